import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from nblib.hosts.inputs import find_export, find_start
from nblib.models.exports import ExportNotEqual, export_folder, export_run, gguf_of
from nblib.models.folders import gguf_files, gguf_name
from nblib.models.gemma3 import save_model
from nblib.models.lora import ALL_WEIGHTS, LoraConfig
from nblib.models.names import get_gemma_ref_model
from nblib.models.parity import NEW_TOKENS
from nblib.runs import start_run

pytest.importorskip("gguf", reason="needs the package gguf, in the extra gemma")

from nblib.models import gguf_parity
from nblib.models.gguf_export import save_gguf
from nblib.models.gguf_file import read_gguf
from nblib.models.gguf_parity import compare_top

ASKED = tuple(f"Ann has {n} pens and buys {n + 3} more. How many?" for n in range(2, 9))
SIZES = {"num_layers": 2, "embed_dim": 32, "hidden_dim": 64, "head_dim": 32}
MANIFEST = {"notebook": "v1_sft_format", "command": "a test"}
DATA = SimpleNamespace(origin="made here", sha256={"train": "t", "test": "e"})


@pytest.fixture(autouse=True)
def without_llama_cpp(monkeypatch, tmp_path):
    """What this library finds by itself; `test_with_llama_cpp` has the other reader."""
    monkeypatch.setattr(gguf_parity.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def base(new_model, tokenizer, mesh, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "base"
    save_model(new_model(**SIZES), tokenizer, folder, manifest={"base": {"root": "gemma3-270m"}})
    return get_gemma_ref_model(str(folder), mesh)


def export(base, folder, *, kind="q8_0", model=None, save=save_gguf):
    given = {"kind": kind, "root": base.root, "manifest": {}}
    write = partial(save, model or base.model, base.tokenizer, **given)
    return export_folder(folder, write, base.model, base, manifest=MANIFEST, prompts=ASKED)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_a_proven_file_gets_its_name_and_is_a_model(kind, base, mesh, tmp_path):
    (only,) = export(base, tmp_path / "gguf", kind=kind)
    assert (only.reader, only.choices, only.failure) == ("nblib", 16 * NEW_TOKENS, "")
    assert 0 < only.largest_difference < only.limit and only.different_choices == 0
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["gguf"]
    assert sorted(path.name for path in (tmp_path / "gguf").iterdir()) == [
        "manifest.json",
        gguf_name(kind),
    ]
    manifest = json.loads((tmp_path / "gguf" / "manifest.json").read_text())
    assert manifest["notebook"] == "v1_sft_format" and manifest["parity"][0]["reader"] == "nblib"
    assert find_export("", str(tmp_path / "gguf")) == tmp_path / "gguf"
    file = str(tmp_path / "gguf" / gguf_name(kind))
    assert find_start("v1_sft_format", file) == file
    assert get_gemma_ref_model(file, mesh).root == "gemma3-270m"


def test_the_licence_of_gemma_is_in_the_file(base, tmp_path):
    export(base, tmp_path / "gguf")
    values = read_gguf(tmp_path / "gguf" / gguf_name("q8_0")).values
    assert values["general.license"] == "gemma"
    assert values["general.license.link"] == "https://ai.google.dev/gemma/terms"
    assert values["general.description"].startswith("Gemma is provided under and subject to the")


def test_one_damaged_tensor_is_refused_by_its_name(base, tmp_path):
    def damaging(*given, folder, **named):
        save_gguf(*given, folder=folder, **named)
        (file,) = gguf_files(folder)
        raw = bytes(read_gguf(file).tensors["blk.1.attn_k.weight"].raw)
        whole = bytearray(file.read_bytes())
        whole[whole.index(raw) + 7] ^= 4
        file.write_bytes(whole)

    with pytest.raises(ExportNotEqual, match=r"gguf-not-equal:\n.*blk\.1\.attn_k\.weight is damag"):
        export(base, tmp_path / "gguf", save=damaging)
    kept = [path.name for path in tmp_path.iterdir() if path.name != "cache"]
    assert kept == ["gguf-not-equal"]
    manifest = json.loads((tmp_path / "gguf-not-equal" / "manifest.json").read_text())
    assert "notebook" not in manifest and "is damaged" in manifest["parity"][0]["failure"]


def test_another_model_s_tensor_is_refused_by_its_name(base, new_model, tmp_path):
    other = new_model(**SIZES)
    weight = other.layers[1].mlp.down_proj.kernel
    weight.set_value(weight.get_value().at[0, 0].add(0.5))
    with pytest.raises(ExportNotEqual, match=r"blk\.1\.ffn_down\.weight is not the model's tensor"):
        export(base, tmp_path / "gguf", model=other)


def test_a_run_exports_it_and_an_export_gets_it_later(base, tmp_path, capsys):
    run = start_run("v2_grpo", {}, root=tmp_path)
    given = {"data": DATA, "steps": 7, "steps_left": 0, "prompts": ASKED}
    lora = LoraConfig(rank=ALL_WEIGHTS, alpha=1.0)
    export_run(run, base, base.model, lora, **given, gguf="f16")
    assert "gguf/\nread by nblib: 16 prompts" in capsys.readouterr().out
    assert gguf_of(run.export, "f16") == run.path / "gguf" / gguf_name("f16")
    assert capsys.readouterr().out == ""  # it was there
    made = gguf_of(run.export, "q8_0")
    assert made.name == "model-q8_0.gguf" and "read by nblib" in capsys.readouterr().out
    manifest = json.loads((run.export / "manifest.json").read_text())
    (run.export / "manifest.json").write_text(json.dumps({**manifest, "steps": 8}))
    gguf_of(run.export, "q8_0")  # trained on since
    assert json.loads((made.parent / "manifest.json").read_text())["steps"] == 8


def test_top_choices_by_hand():
    logits = np.log(np.array([[[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]]]))
    same = [[{0: np.log(0.7), 1: np.log(0.2)}, {0: np.log(0.5), 1: np.log(0.4)}]]
    found = compare_top(logits, same, tolerance=0.1)
    assert (found.prompts, found.choices, found.different_choices) == (1, 2, 0)
    assert found.largest_difference == pytest.approx(0, abs=1e-6) and found.equal
    assert found.limit == pytest.approx(0.1 * np.log(10))
    near = [[same[0][0], {1: np.log(0.46), 0: np.log(0.44)}]]
    found = compare_top(logits, near, tolerance=0.1)  # another token: a tie
    assert found.equal and found.largest_difference == pytest.approx(np.log(0.46 / 0.4))
    far = [[{1: np.log(0.7), 0: np.log(0.2)}, {2: np.log(0.9), 1: np.log(0.05)}]]
    found = compare_top(logits, far, tolerance=0.1)
    assert not found.equal and found.different_choices == 2
    broken = [[{0: np.nan}, same[0][1]]]
    assert not compare_top(logits, broken, tolerance=0.1).equal
