"""Both directions with `transformers` and `peft`, which the extra `parity` installs with torch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nblib.models import weight_files
from nblib.models.adapters import save_adapters
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
