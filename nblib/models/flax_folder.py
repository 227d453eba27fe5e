"""Gemma 3 as Kaggle's Flax variations hold it: an Orbax tree in a folder beside `tokenizer.model`.

Such a folder has no `config.json`: the sizes are read off the tensors, the rest is the same for the
text-only Gemma 3. Layout: https://github.com/google-deepmind/gemma/blob/main/docs/checkpoints.md
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import sentencepiece as spm
from flax import nnx, traverse_util
from tunix.models.gemma3.model import Gemma3, ModelConfig
from tunix.models.gemma3.params import map_from_upstream_checkpoint

from nblib.files import write_json
from nblib.models.config_file import ROPE, config_values, read_config, scaled
from nblib.models.folders import CONFIG_FILE, check_folders_tokenizer, new_folder, orbax_trees
from nblib.models.layout import weights_of
from nblib.models.mesh import check_model_divides
from nblib.models.processes import on_host
from nblib.models.weight_files import check_finite
from nblib.tokens.tokenizer import TOKENIZER_FILE

_WINDOW = 512  # of the text-only sizes, 270m and 1b
_KNOWN = re.compile(r"transformer/(embedder|final_norm|layer_\d+/.+)")


def load_flax_model(
    folder: Path,
    tokenizer: spm.SentencePieceProcessor,
    *,
    mesh: jax.sharding.Mesh,
    dtype: np.dtype | type = jnp.float32,
    rope_factor: float = 0,
) -> Gemma3:
    """Load Kaggle's Flax checkpoint of a text-only Gemma 3, checked against the tokenizer.

    `rope_factor` is for `config_file.scaled`; a folder without config.json has 1.

    Raises FileNotFoundError when there is none, TokenizerMismatch, and ValueError for several
    trees, a damaged one, one with vision, and tensors that are missing, extra, of another shape or
    not finite.
    """
    trees = orbax_trees(folder)
    if not trees:
        raise FileNotFoundError(f"{folder} holds no Orbax tree: it is no Flax checkpoint")
    if len(trees) > 1:
        raise ValueError(f"{folder} holds {len(trees)} Orbax trees: give the folder of one")
    tree = trees[0]
    given = _restore(tree)
    stated = (folder / CONFIG_FILE).is_file()
    own = read_config(folder, dtype=dtype) if stated else _config_of(given, tree, dtype)
    config = scaled(own, rope_factor)
    check_model_divides(config, mesh)
    check_folders_tokenizer(folder, tokenizer, size=config.num_embed)
    model = nnx.eval_shape(lambda: Gemma3(config, rngs=nnx.Rngs(0)))
    found = traverse_util.flatten_dict(map_from_upstream_checkpoint(given))
    expected = dict(nnx.to_flat_state(nnx.state(model)))
    _check_names(tree, found, expected)
    shardings = dict(nnx.to_flat_state(nnx.get_named_sharding(nnx.state(model), mesh)))
    for path, variable in expected.items():
        placed = jax.device_put(found[path].astype(dtype), shardings[path].get_value())
        variable.set_value(placed)
    nnx.update(model, nnx.from_flat_state(list(expected.items())))
    check_finite(model, folder)
    return model


def save_flax_model(
    model: Gemma3,
    tokenizer: spm.SentencePieceProcessor,
    folder: Path,
    *,
    manifest: Mapping[str, Any],
) -> None:
    """Write a model in fp32 in Kaggle's Flax layout, with `config.json`, whole or not at all.

    Adapters must have been merged. The manifest gains the tokenizer's size and fingerprint.
    Raises FileExistsError when `folder` holds something that was not made here.
    """
    with new_folder(folder, tokenizer, manifest, size=model.num_embed) as partial:
        (partial / TOKENIZER_FILE).write_bytes(tokenizer.serialized_model_proto())
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((partial / "checkpoint").absolute(), _to_upstream(model))
        write_json(partial / CONFIG_FILE, config_values(model.config, tokenizer, jnp.float32))


def _restore(tree: Path) -> dict[str, Any]:
    """Return the tree as numpy arrays: the devices it was saved from are not those here."""
    checkpointer = ocp.PyTreeCheckpointer()
    try:
        described = checkpointer.metadata(tree.absolute()).item_metadata
        if described is None:  # Orbax has logged why
            raise ValueError("it does not say which tensors it holds")
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), described.tree)
        options = ocp.args.PyTreeRestore(restore_args=as_numpy)
        return checkpointer.restore(tree.absolute(), args=options)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"{tree} is damaged: {reason}; get the checkpoint again") from error


def _config_of(given: Mapping[str, Any], tree: Path, dtype: np.dtype | type) -> ModelConfig:
    """Return the configuration that a text-only Gemma 3 of these shapes has."""
    shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(given).items()}
    if any("siglip" in path[0].lower() for path in shapes):
        raise ValueError(f"{tree} has a vision encoder (4b and larger): only 270m and 1b are text")
    unknown = ["/".join(path) for path in shapes if not _KNOWN.fullmatch(path[0])]
    if unknown:
        raise ValueError(f"{tree} holds an unknown {unknown[0]}: it is no Gemma 3")
    attention = "transformer/layer_0/attn"
    try:
        vocabulary, width = shapes["transformer/embedder", "input_embedding"]
        heads, head_dim, _ = shapes[f"{attention}/attn_vec_einsum", "w"]
        fused = (f"{attention}/qkv_einsum", "w") in shapes
        kv_heads = heads if fused else shapes[f"{attention}/kv_einsum", "w"][1]
        hidden, _ = shapes["transformer/layer_0/mlp/linear", "w"]
    except KeyError as error:
        raise ValueError(f"{tree} lacks {'/'.join(error.args[0])}: it is no Gemma 3") from error
    return ModelConfig(
        num_layers=len({path[0].split("/")[1] for path in shapes if "/layer_" in path[0]}),
        num_embed=vocabulary,
        embed_dim=width,
        hidden_dim=hidden,
        num_heads=heads,
        head_dim=head_dim,
        num_kv_heads=kv_heads,
        sliding_window_size=_WINDOW,
        **ROPE,
        param_dtype=dtype,
    )


def _check_names(tree: Path, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    for kind, paths in (("lacks", missing), ("holds an unknown", extra)):
        if paths:
            first = min(".".join(map(str, path)) for path in paths)
            raise ValueError(f"{tree} {kind} {first} ({len(paths)} such tensors): get it again")
    for path, variable in expected.items():
        wanted = variable.get_value().shape
        if found[path].shape != wanted:
            name = ".".join(map(str, path))
            raise ValueError(f"{tree}: {name} is {found[path].shape}, expected {wanted}")


def _to_upstream(model: Gemma3) -> dict[str, dict[str, np.ndarray]]:
    """Return the weights under the names of google-deepmind/gemma."""
    tree: dict[str, dict[str, np.ndarray]] = {}
    for (*modules, name), variable in weights_of(model):
        if modules[0] == "layers":
            modules = [f"layer_{modules[1]}", *modules[2:]]
        value = on_host(variable.get_value()).astype(np.float32)
        *outer, last = modules
        if last == "down_proj":
            modules, name = [*outer, "linear"], "w"
        elif last in ("gate_proj", "up_proj"):  # gate, then up; flat paths are sorted
            modules, name = [*outer, "gating_einsum"], "w"
            gate = tree.get("/".join(("transformer", *modules)), {}).get(name)
            value = value.T if gate is None else np.stack([gate, value.T])
        tree.setdefault("/".join(("transformer", *modules)), {})[name] = value
    return tree
