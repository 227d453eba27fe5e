"""Both directions with `transformers` and `peft`, which the extra `parity` installs with torch."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nblib.evaluation.package import read_package
from nblib.models import gemma3, weight_files
from nblib.models.adapters import save_adapters
from nblib.models.attention import hidden_states
from nblib.models.config_file import scaled
from nblib.models.exports import ExportNotEqual, export_folder
from nblib.models.gemma3 import load_model, save_model
from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model, merge_lora
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.models.parity import (
    NEW_TOKENS,
    choice_logits,
    compare_folder,
    greedy,
    prompt_rows,
    transformers_logits,
)
from nblib.sources.wordproblems import word_problems
from nblib.tokens.chat import render_prompt
from nblib.tokens.tokenizer import load_tokenizer

torch = pytest.importorskip("torch", reason="needs the extra parity")
peft = pytest.importorskip("peft", reason="needs the extra parity")

ASKED = tuple(f"Ann has {n} pens and buys {n + 3} more. How many?" for n in range(2, 9))
HEADS = {"mqa": (2, 1), "gqa": (4, 2), "fused": (2, 2)}
LORA = LoraConfig(rank=2, alpha=3.0)
LINEAR = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
}


def theirs(folder, tokenizer, *, heads="mqa", dtype="float32", shard="1GB", rope=None):
    """A Gemma 3 with random weights and norms, made and saved by transformers."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    attention, key_value = HEADS[heads]
    config = Gemma3TextConfig(
        vocab_size=544,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=6,
        num_attention_heads=attention,
        num_key_value_heads=key_value,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=16,
        rope_parameters=rope,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    (folder / "tokenizer.model").write_bytes(tokenizer.serialized_model_proto())
    return Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def their_greedy(model, rows):
    return model.generate(
        torch.tensor(rows),
        attention_mask=torch.ones(rows.shape, dtype=torch.int64),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
    ).numpy()


@pytest.mark.parametrize(
    ("heads", "dtype", "shard", "rope", "files"),
    [
        ("mqa", "float32", "1GB", None, 1),
        ("mqa", "bfloat16", "1GB", None, 1),
        ("gqa", "float32", "30KB", LINEAR, 2),
        ("gqa", "bfloat16", "15KB", None, 2),
        ("fused", "float32", "30KB", None, 2),
    ],
)
def test_what_they_wrote_answers_the_same_here(
    heads, dtype, shard, rope, files, tmp_path, tokenizer, mesh
):
    model = theirs(tmp_path, tokenizer, heads=heads, dtype=dtype, shard=shard, rope=rope)
    assert min(2, len(list(tmp_path.glob("*.safetensors")))) == files
    loaded = load_model(tmp_path, tokenizer, mesh=mesh)
    rows = prompt_rows(tokenizer, ASKED)
    tokens, logits = greedy(loaded, rows, mesh=mesh)
    np.testing.assert_array_equal(tokens, their_greedy(model, rows))
    with torch.no_grad():
        expected = model(torch.tensor(tokens)).logits[:, -NEW_TOKENS - 1 : -1].numpy()
    assert np.abs(expected).max() > 1
    assert np.abs(logits - expected).max() < 1e-4


def ref(model, tokenizer, mesh):
    given = {"model": model, "tokenizer": tokenizer, "mesh": mesh}
    return RefModel(name="", folder=Path(), sha256="", root="", **given)


def adapted(base, mesh):
    """Adapters with random values in both halves, large enough to matter."""
    model = get_lora_model(base, mesh, LORA)
    rng = np.random.default_rng(0)
    for _, adapter in nnx.to_flat_state(nnx.state(model, LORA_PARAMETER)):
        shape = adapter.get_value().shape
        adapter.set_value(jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32))
    return model


def with_norms(model):
    """Random norms as well: a fresh model's are zero, and any two could be swapped unseen."""
    rng = np.random.default_rng(1)
    for path, weight in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path[-1] == "scale":
            shape = weight.get_value().shape
            weight.set_value(jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32))
    return model


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("kind", ["merged", "full"])
def test_what_is_written_here_answers_the_same_there(
    heads, kind, new_model, tokenizer, mesh, tmp_path, monkeypatch
):
    attention, key_value = HEADS[heads]
    model = with_norms(new_model(num_heads=attention, num_kv_heads=key_value))
    if kind == "merged":
        model = merge_lora(adapted(model, mesh), LORA)
        monkeypatch.setattr(weight_files, "_SHARD_BYTES", 30_000)
    save_model(model, tokenizer, tmp_path / "export", manifest={})
    ours, through = compare_folder(model, ref(model, tokenizer, mesh), tmp_path / "export", ASKED)
    assert (ours.reader, through.reader) == ("nblib", "transformers")
    assert ours.largest_difference == 0
    assert through.largest_difference < 1e-4 and through.different_choices == 0


def test_written_in_bf16_it_is_the_rounded_model_there(new_model, tokenizer, mesh, tmp_path):
    model = with_norms(new_model())
    save_model(model, tokenizer, tmp_path / "export", manifest={}, dtype=jnp.bfloat16)
    base = ref(model, tokenizer, mesh)
    _, exact = compare_folder(model, base, tmp_path / "export", ASKED)
    both_ways = jax.tree.map(lambda w: w.astype("bfloat16").astype("float32"), nnx.state(model))
    nnx.update(model, both_ways)
    _, rounded = compare_folder(model, base, tmp_path / "export", ASKED)
    assert rounded.largest_difference < 1e-4
    assert exact.largest_difference > 1e-3


@pytest.mark.parametrize("heads", HEADS)
def test_adapters_written_here_answer_the_same_in_peft(heads, new_model, tokenizer, mesh, tmp_path):
    from transformers import Gemma3ForCausalLM

    attention, key_value = HEADS[heads]
    base = new_model(num_heads=attention, num_kv_heads=key_value)
    model = adapted(base, mesh)
    save_model(base, tokenizer, tmp_path / "base", manifest={})
    manifest = {"base": {"name": str(tmp_path / "base"), "sha256": "a" * 64}}
    save_adapters(model, tokenizer, tmp_path / "adapters", LORA, manifest=manifest)
    rows = prompt_rows(tokenizer, ASKED)
    tokens, expected = greedy(merge_lora(model, LORA), rows, mesh=mesh)
    there = Gemma3ForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    there = peft.PeftModel.from_pretrained(there, tmp_path / "adapters").eval()
    with torch.no_grad():
        found = there(torch.tensor(tokens)).logits[:, -NEW_TOKENS - 1 : -1].numpy()
    assert np.abs(found - expected).max() < 1e-4
    np.testing.assert_array_equal(found.argmax(axis=-1), tokens[:, -NEW_TOKENS:])
    alone = transformers_logits(tmp_path / "base", tokens)
    assert np.abs(alone - expected).max() > 0.1


def test_adapters_that_peft_trained_answer_the_same_here(tokenizer, mesh, tmp_path):
    """On some projections only, keys and values with an A each, as peft makes them."""
    (tmp_path / "base").mkdir()
    base = theirs(tmp_path / "base", tokenizer)
    config = peft.LoraConfig(
        r=3, lora_alpha=6, target_modules=["k_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(base, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapters")
    ref = get_gemma_ref_model(str(tmp_path / "adapters"), mesh)
    tokens, logits = greedy(ref.model, prompt_rows(tokenizer, ASKED), mesh=mesh)
    with torch.no_grad():
        expected = model(torch.tensor(tokens)).logits[:, -NEW_TOKENS - 1 : -1].numpy()
    assert np.abs(logits - expected).max() < 1e-4
    plain = load_model(tmp_path / "base", tokenizer, mesh=mesh)
    assert np.abs(choice_logits(plain, tokens, mesh=mesh) - expected).max() > 0.1


def test_a_loaded_model_keeps_no_link_to_the_file(tmp_path, tokenizer, mesh):
    """The loader maps the file: a folder that is replaced must not change a model in memory."""
    theirs(tmp_path, tokenizer)
    model = load_model(tmp_path, tokenizer, mesh=mesh)
    before = [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(model))]
    file = tmp_path / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.seek(size // 2)
        handle.write(b"\xff" * (size // 4))
    after = jax.tree.leaves(nnx.state(model))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def scaled_folder(mesh, tmp_path_factory):
    """The embedded model at the RoPE factor 4: its folder, and rows of ten of its windows."""
    ref = get_gemma_ref_model("embedded", mesh, rope_factor=4)
    folder = tmp_path_factory.mktemp("scaled") / "export"
    save_model(ref.model, ref.tokenizer, folder, manifest={})
    rows = word_problems(120, seed=1, split="test")
    text = " ".join(row.fields["question"] for row in rows)
    ids = [ref.tokenizer.bos_id(), *ref.tokenizer.encode(text)]
    assert len(ids) > 2560 == 10 * ref.model.config.sliding_window_size
    return folder, np.array([ids[:2560]])


def test_they_scale_the_global_layers_alone(scaled_folder):
    from transformers import Gemma3ForCausalLM

    there = Gemma3ForCausalLM.from_pretrained(scaled_folder[0], dtype=torch.float32)
    assert there.config.max_position_embeddings == 131_072
    steps = np.arange(0, 32, 2) / 32
    rotations = {"full_attention": 1e6**-steps / 4, "sliding_attention": 1e4**-steps}
    for kind, expected in rotations.items():
        found = getattr(there.model.rotary_emb, f"{kind}_inv_freq").numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=kind)


@pytest.mark.parametrize("start", [0, 30_000])
def test_far_away_they_answer_the_same_and_without_the_factor_they_do_not(
    start, scaled_folder, mesh
):
    """What is far away is seen by the global layer alone; positions are of fp32 in both.

    Rows of more than 2,048 tokens are computed in blocks of queries.
    """
    from transformers import Gemma3ForCausalLM

    folder, tokens = scaled_folder
    there = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    places = start + torch.arange(tokens.shape[1])[None]
    with torch.no_grad():
        found = there(torch.tensor(tokens), position_ids=places, logits_to_keep=NEW_TOKENS)
    found = found.logits.numpy()

    @partial(nnx.jit, graph_updates=False)
    def last_logits(model):
        hidden = hidden_states(model, tokens, jnp.asarray(places.numpy()), np.ones_like(tokens))
        return model.embedder.decode(hidden[:, -NEW_TOKENS:])

    logits = {}
    for factor in (4, 1):
        model = get_gemma_ref_model(str(folder), mesh, rope_factor=factor).model
        with mesh, jax.default_matmul_precision("highest"):
            logits[factor] = np.asarray(last_logits(model))
    limit = 1e-4 if start == 0 else 1e-2  # 16 was the largest logit
    assert np.abs(logits[4] - found).max() < limit
    np.testing.assert_array_equal(logits[4].argmax(axis=-1), found.argmax(axis=-1))
    assert np.abs(logits[1] - found).max() > 1


def test_the_gate_refuses_an_export_that_only_they_read_without_the_factor(
    new_model, tokenizer, mesh, tmp_path, monkeypatch
):
    """Written and read by the same wrong rule, the folder is ours again; they know better."""
    save_model(with_norms(new_model()), tokenizer, tmp_path / "base", manifest={})
    four = get_gemma_ref_model(str(tmp_path / "base"), mesh, rope_factor=4)
    values, read = gemma3.config_values, gemma3.read_config
    plain = lambda config, *more: values(scaled(config, 1), *more)  # noqa: E731
    monkeypatch.setattr(gemma3, "config_values", plain)
    monkeypatch.setattr(gemma3, "read_config", lambda *a, **named: scaled(read(*a, **named), 4))
    write = partial(save_model, four.model, tokenizer, manifest={})
    given = {"manifest": {}, "prompts": ASKED}
    with pytest.raises(ExportNotEqual, match="read by transformers: 16 prompts, largest logit"):
        export_folder(tmp_path / "export", write, four.model, four, **given)
    manifest = json.loads((tmp_path / "export-not-equal" / "manifest.json").read_text())
    ours, through = manifest["parity"]
    assert ours["largest_difference"] == 0 and through["largest_difference"] > 0.01


def test_a_package_answers_its_smoke_item_there_by_the_chat_template_of_its_folder(package):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    smoke = read_package(package).smoke
    tokenizer, ours = AutoTokenizer.from_pretrained(package), load_tokenizer(package)
    assert len(tokenizer) == len(ours)  # no piece is added: the embedding has no row for it
    asked = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    messages = [{"role": "user", "content": smoke.question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == tokenizer.bos_token + smoke.prompt
    inputs = tokenizer.apply_chat_template(messages, **asked)
    assert inputs["input_ids"].tolist() == [[ours.bos_id(), *ours.encode(smoke.prompt)]]
    model = AutoModelForCausalLM.from_pretrained(package, dtype=torch.float32).eval()
    written = model.generate(**inputs, do_sample=False, max_new_tokens=64)
    answer = tokenizer.decode(written[0, smoke.prompt_tokens :], skip_special_tokens=True)
    assert answer == smoke.answer == smoke.unbound
    assert written.shape[1] == smoke.prompt_tokens + smoke.completion_tokens + 1  # the turn's end


def test_the_chat_template_writes_our_prompts_there(package):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package)
    said = [("system", "Be brief."), ("user", "1 + 1?"), ("assistant", "2"), ("user", " {2}\n\n")]
    messages = [{"role": role, "content": text} for role, text in said]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = render_prompt(" {2}\n\n", system_prompt="Be brief.", shots=[("1 + 1?", "2")])
    assert text == tokenizer.bos_token + prompt
    assert tokenizer(prompt)["input_ids"][1:] == load_tokenizer(package).encode(prompt)
