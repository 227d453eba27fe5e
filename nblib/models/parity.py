"""The parity gate: an export is called saved when, loaded again, it answers as the model did.

Both models continue the same prompts greedily; compared are the logits at every choice, in fp32 and
with full-precision products, which is not every host's default. The exported folder is read from
nothing, and where torch is installed by `transformers` as well.
"""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece as spm
from flax import nnx
from jaxtyping import Array, Float, Int
from tunix.models.gemma3.model import Gemma3

from nblib.files import write_json
from nblib.models.adapters import load_adapters, save_adapters
from nblib.models.flax_folder import save_flax_model
from nblib.models.folders import MANIFEST_FILE, check_replaceable, rename_folder
from nblib.models.gemma3 import save_model
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.models.weight_files import SHARD_BYTES
from nblib.tokens.tokenizer import tokenizer_seal

PROMPTS = 16
NEW_TOKENS = 16
TOLERANCE = 1e-4  # of the largest logit; two implementations in fp32 differ by a tenth of it
_MOST_PROMPT_TOKENS = 64


class ExportNotEqual(RuntimeError):
    """What was written does not answer as the model in memory; it is kept under another name."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a reader of the folder is from the model in memory.

    The limit is `TOLERANCE` of the largest logit, at least of 1. A choice differs when the reader
    prefers another token by more than the limit: less is a tie.
    """

    reader: str
    prompts: int
    choices: int
    limit: float
    largest_difference: float
    different_choices: int

    @property
    def equal(self) -> bool:
        """Whether the export may be called saved."""
        return self.largest_difference <= self.limit and self.different_choices == 0

    def __str__(self) -> str:
        """The comparison in one line."""
        return (
            f"read by {self.reader}: {self.prompts} prompts, largest logit difference "
            f"{self.largest_difference:.1e} (limit {self.limit:.1e}), "
            f"{self.different_choices} of {self.choices} greedy tokens differ"
        )


def export_model(
    model: Gemma3,
    tokenizer: spm.SentencePieceProcessor,
    folder: Path,
    *,
    manifest: Mapping[str, Any],
    prompts: Sequence[str],
    mesh: jax.sharding.Mesh,
    trained: Gemma3 | None = None,
    dtype: np.dtype | type = jnp.float32,
    shard_bytes: int = SHARD_BYTES,
    flax: bool = False,
) -> tuple[Parity, ...]:
    """Save a model, load the folder again, and give it its name only if both answer the same.

    Until then it is called `<name>-unproven`, and stays `<name>-not-equal` when it failed. The
    manifest gains what was compared; only a proven export has the manifest's own keys on top, so
    that nothing finds a failed one.

    Args:
        model: a plain Gemma3, adapters merged.
        tokenizer: the model's own.
        folder: a new one, or one that an earlier start of the run made.
        manifest: the facts of the model; `base` as `RefModel.described` says it.
        prompts: what both are asked.
        mesh: where the folder is loaded to.
        trained: the model with its adapters, as it was trained: it is what is compared, so that a
            wrong merge shows. None, or another dtype than fp32: `model` is.
        dtype: of the weights in the file.
        shard_bytes: more become several files.
        flax: write Kaggle's Flax layout (Orbax) instead of Hugging Face's.

    Returns a comparison for each reader: this library, and `transformers` where torch is installed
    (on a CPU; beside an accelerator's JAX the two would fight for the device).
    Raises ExportNotEqual, and FileExistsError as `save_model` does.
    """
    as_trained = trained if trained is not None and dtype == jnp.float32 else model

    def write(unproven: Path) -> None:
        if flax:
            save_flax_model(model, tokenizer, unproven, manifest={}, dtype=dtype)
        else:
            save_model(
                model, tokenizer, unproven, manifest={}, dtype=dtype, shard_bytes=shard_bytes
            )

    def compared(unproven: Path) -> tuple[Parity, ...]:
        asked = {"prompts": prompts, "mesh": mesh, "dtype": dtype}
        return compare_folder(as_trained, tokenizer, unproven, **asked)

    return _proven(folder, tokenizer, manifest, write=write, compared=compared)


def export_adapters(
    model: Gemma3,
    base: RefModel,
    folder: Path,
    *,
    rank: int,
    alpha: float,
    manifest: Mapping[str, Any],
    prompts: Sequence[str],
    mesh: jax.sharding.Mesh,
) -> tuple[Parity, ...]:
    """Save a model's adapters, read them again, and prove them over `base` as `export_model` does.

    Raises what `save_adapters` and `export_model` raise.
    """

    def write(unproven: Path) -> None:
        over = {"base": manifest.get("base", {})}
        save_adapters(model, base.tokenizer, unproven, rank=rank, alpha=alpha, manifest=over)

    def compared(unproven: Path) -> tuple[Parity, ...]:
        asked = {"prompts": prompts, "mesh": mesh}
        return compare_folder(model, base.tokenizer, unproven, base=base, **asked)

    return _proven(folder, base.tokenizer, manifest, write=write, compared=compared)


def _proven(
    folder: Path,
    tokenizer: spm.SentencePieceProcessor,
    manifest: Mapping[str, Any],
    *,
    write: Callable[[Path], None],
    compared: Callable[[Path], tuple[Parity, ...]],
) -> tuple[Parity, ...]:
    check_replaceable(folder)
    unproven = folder.with_name(f"{folder.name}-unproven")
    write(unproven)
    found = compared(unproven)
    proof = {"parity": [asdict(one) for one in found], **tokenizer_seal(tokenizer)}
    if all(one.equal for one in found):
        write_json(unproven / MANIFEST_FILE, {**manifest, **proof})
        rename_folder(unproven, folder)
        return found
    failed = folder.with_name(f"{folder.name}-not-equal")
    write_json(unproven / MANIFEST_FILE, {**proof, "not_equal": dict(manifest)})
    rename_folder(unproven, failed)
    raise ExportNotEqual(
        f"the export does not answer as the model in memory; it is kept as {failed}:\n"
        + "\n".join(f"  {one}" for one in found)
    )


def compare_folder(
    model: Gemma3,
    tokenizer: spm.SentencePieceProcessor,
    folder: Path,
    *,
    prompts: Sequence[str],
    mesh: jax.sharding.Mesh,
    dtype: np.dtype | type = jnp.float32,
    base: RefModel | None = None,
) -> tuple[Parity, ...]:
    """Compare a model in memory with what each reader makes of its folder, written in `dtype`.

    Adapters need the `base` that they were made over.
    """
    rows = prompt_rows(tokenizer, prompts)
    reference = _rounded(model, dtype)
    tokens, logits = greedy(reference, rows, mesh=mesh)
    again = _loaded(folder, mesh, base)
    others = {"nblib": choice_logits(again, tokens, mesh=mesh)}
    for_transformers = any(folder.glob("model*.safetensors"))
    torch_here = importlib.util.find_spec("torch") and jax.default_backend() == "cpu"
    if for_transformers and torch_here:
        try:
            others["transformers"] = transformers_logits(folder, tokens)
        except ImportError as error:  # says nothing about the export
            warnings.warn(f"the export was not read by transformers: {error}", stacklevel=2)
    return tuple(compare(tokens, logits, other, reader=name) for name, other in others.items())


def _loaded(folder: Path, mesh: jax.sharding.Mesh, base: RefModel | None) -> Gemma3:
    if base is None:
        return get_gemma_ref_model(str(folder), mesh).model
    whole = _rounded(base.model, jnp.float32)
    named = {"base_name": base.name, "base_sha256": base.sha256}
    return load_adapters(folder, whole, base.tokenizer, **named)


def prompt_rows(
    tokenizer: spm.SentencePieceProcessor, prompts: Sequence[str]
) -> Int[np.ndarray, "P T"]:
    """Return `PROMPTS` rows of one length, so that no reader needs a mask.

    A row is BOS and the end of a prompt, where prompts differ; too few prompts are repeated.
    Raises ValueError when there are none.
    """
    if not prompts:
        raise ValueError("no prompt to compare the export on: give at least one")
    encoded = [tokenizer.encode(text) for text in islice(cycle(prompts), PROMPTS)]
    length = min(_MOST_PROMPT_TOKENS, *map(len, encoded))
    return np.array([[tokenizer.bos_id(), *ids[len(ids) - length :]] for ids in encoded])


def greedy(
    model: Gemma3, rows: Int[np.ndarray, "P T"], *, mesh: jax.sharding.Mesh
) -> tuple[Int[np.ndarray, "P T+N"], Float[np.ndarray, "P N V"]]:
    """Return the rows with `NEW_TOKENS` greedy tokens each, and the logits they were chosen by."""
    with mesh, jax.default_matmul_precision("highest"):
        tokens = np.asarray(_continued(model, jnp.asarray(rows)))
    return tokens, choice_logits(model, tokens, mesh=mesh)


def choice_logits(
    model: Gemma3, tokens: Int[np.ndarray, "P T"], *, mesh: jax.sharding.Mesh
) -> Float[np.ndarray, "P N V"]:
    """Return a model's logits for the last `NEW_TOKENS` of each row, given what stands before."""
    with mesh, jax.default_matmul_precision("highest"):
        return np.asarray(_choices(model, jnp.asarray(tokens)))


def transformers_logits(
    folder: Path, tokens: Int[np.ndarray, "P T"], *, adapters: Path | None = None
) -> Float[np.ndarray, "P N V"]:
    """Return the same logits as `choice_logits`, of `Gemma3ForCausalLM` with the folder's weights.

    With `adapters`, a PEFT folder, those are put over it by `peft`. Needs the extra `parity`.
    """
    import torch
    from transformers import Gemma3ForCausalLM

    model = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if adapters is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapters)
    with torch.no_grad():
        output = model(torch.tensor(tokens), logits_to_keep=NEW_TOKENS + 1)
    return output.logits[:, :-1].numpy()


def compare(
    tokens: Int[np.ndarray, "P T"],
    logits: Float[np.ndarray, "P N V"],
    other: Float[np.ndarray, "P N V"],
    *,
    reader: str,
) -> Parity:
    """Compare two models' logits for the same choices; `tokens` end with those of the first.

    NaN is the largest difference there is.
    """
    chosen = tokens[:, -NEW_TOKENS:, None]
    lost = other.max(axis=-1) - np.take_along_axis(other, chosen, axis=-1)[..., 0]
    difference = np.abs(other - logits).max()
    limit = TOLERANCE * max(1.0, float(np.abs(logits).max()))
    return Parity(
        reader=reader,
        prompts=len(tokens),
        choices=chosen.size,
        limit=limit,
        largest_difference=float(difference) if np.isfinite(difference) else float("inf"),
        different_choices=int((~(lost <= limit)).sum()),
    )


def _rounded(model: Gemma3, dtype: np.dtype | type) -> Gemma3:
    """Return the model with weights as the file will have them, computing in fp32."""
    if dtype == jnp.float32 and model.config.param_dtype == jnp.float32:
        return model
    rounded = nnx.clone(model)
    state = nnx.state(rounded)
    nnx.update(rounded, jax.tree.map(lambda w: w.astype(dtype).astype(jnp.float32), state))
    return rounded


def _logits(model: Gemma3, tokens: Int[Array, "P T"]) -> Float[Array, "P T V"]:
    rows, length = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (rows, length, length))
    return model(tokens, positions, None, causal)[0]


@nnx.jit
def _choices(model: Gemma3, tokens: Int[Array, "P T"]) -> Float[Array, "P N V"]:
    return _logits(model, tokens)[:, -NEW_TOKENS - 1 : -1].astype(jnp.float32)


@nnx.jit
def _continued(model: Gemma3, rows: Int[Array, "P T"]) -> Int[Array, "P T+N"]:
    start = rows.shape[1]
    structure, state = nnx.split(model)

    def step(place: Int[Array, ""], tokens: Int[Array, "P T"]) -> Int[Array, "P T"]:
        # qwix writes to the modules that it adapts while they run: the loop needs its own.
        looped = nnx.merge(structure, state)
        # What stands behind `place` is padding, which no earlier position attends to.
        following = _logits(looped, tokens)[:, place - 1].argmax(axis=-1)
        return tokens.at[:, place].set(following.astype(tokens.dtype))

    padded = jnp.pad(rows, ((0, 0), (0, NEW_TOKENS)))
    return jax.lax.fori_loop(start, start + NEW_TOKENS, step, padded)
