"""The parity gate: does a model that was written answer, loaded again, as it did in memory?

Both models continue the same prompts greedily. Compared are the logits at every choice, in fp32
and with full-precision products (not the default on every host). The folder is read by this library
and, where torch is installed, by `transformers`.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece as spm
from flax import nnx
from jaxtyping import Array, Float, Int
from tunix.models.gemma3.model import Gemma3

from nblib.models.adapters import load_adapters
from nblib.models.attention import called
from nblib.models.folders import is_adapter_folder
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.models.processes import on_host

PROMPTS = 16
NEW_TOKENS = 16
TOLERANCE = 1e-4  # of the largest logit; two implementations in fp32 differ by a tenth of it
_MOST_PROMPT_TOKENS = 64


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
    failure: str = ""

    @classmethod
    def failed(cls, reader: str, failure: str) -> "Parity":
        """Return what is known of a reader that made something else of the files: why."""
        return cls(
            reader=reader,
            prompts=0,
            choices=0,
            limit=0.0,
            largest_difference=float("inf"),
            different_choices=0,
            failure=failure,
        )

    @property
    def equal(self) -> bool:
        """Whether the export may be called saved."""
        return self.largest_difference <= self.limit and self.different_choices == 0

    def __str__(self) -> str:
        """The comparison in one line."""
        if self.failure:
            return f"read by {self.reader}: {self.failure}"
        return (
            f"read by {self.reader}: {self.prompts} prompts, largest logit difference "
            f"{self.largest_difference:.1e} (limit {self.limit:.1e}), "
            f"{self.different_choices} of {self.choices} greedy tokens differ"
        )


def compare_folder(
    model: Gemma3, base: RefModel, folder: Path, prompts: Sequence[str]
) -> tuple[Parity, ...]:
    """Compare a model in memory with what each reader makes of its folder.

    The readers are this library, and `transformers` where torch is installed and jax runs on a CPU
    (beside an accelerator's jax the two would fight for the device).
    `base` gives tokenizer and mesh; a folder of adapters is read over it, in fp32.
    """
    mesh = base.mesh
    tokens, logits = greedy(in_fp32(model), prompt_rows(base.tokenizer, prompts), mesh=mesh)
    if is_adapter_folder(folder):
        named = {"base_name": base.name, "base_sha256": base.sha256}
        again = load_adapters(folder, in_fp32(base.model), base.tokenizer, **named)
    else:
        again = get_gemma_ref_model(str(folder), mesh).model
    others = {"nblib": choice_logits(again, tokens, mesh=mesh)}
    torch_here = importlib.util.find_spec("torch") and jax.default_backend() == "cpu"
    if torch_here and any(folder.glob("model*.safetensors")):
        try:
            others["transformers"] = transformers_logits(folder, tokens)
        except ImportError as error:  # says nothing about the export
            warnings.warn(f"the export was not read by transformers: {error}", stacklevel=2)
    return tuple(compare(tokens, logits, other, reader=name) for name, other in others.items())


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
        tokens = on_host(_continued(model, jnp.asarray(rows)))
    return tokens, choice_logits(model, tokens, mesh=mesh)


def choice_logits(
    model: Gemma3, tokens: Int[np.ndarray, "P T"], *, mesh: jax.sharding.Mesh
) -> Float[np.ndarray, "P N V"]:
    """Return a model's logits for the last `NEW_TOKENS` of each row, given what stands before."""
    with mesh, jax.default_matmul_precision("highest"):
        return on_host(_choices(model, jnp.asarray(tokens)))


def transformers_logits(folder: Path, tokens: Int[np.ndarray, "P T"]) -> Float[np.ndarray, "P N V"]:
    """Return the same logits as `choice_logits`, of `transformers`; needs the extra `parity`."""
    import torch
    from transformers import Gemma3ForCausalLM

    model = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        output = model(torch.tensor(tokens), logits_to_keep=NEW_TOKENS + 1)
    return output.logits[:, :-1].numpy()


def compare(
    tokens: Int[np.ndarray, "P T"],
    logits: Float[np.ndarray, "P N V"],
    other: Float[np.ndarray, "P N V"],
    *,
    reader: str,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare two models' logits for the same choices; `tokens` end with those of the first.

    NaN is the largest difference there is.
    """
    chosen = tokens[:, -NEW_TOKENS:, None]
    lost = other.max(axis=-1) - np.take_along_axis(other, chosen, axis=-1)[..., 0]
    difference = np.abs(other - logits).max()
    limit = tolerance * max(1.0, float(np.abs(logits).max()))
    return Parity(
        reader=reader,
        prompts=len(tokens),
        choices=chosen.size,
        limit=limit,
        largest_difference=float(difference) if np.isfinite(difference) else float("inf"),
        different_choices=int((~(lost <= limit)).sum()),
    )


def in_fp32(model: Gemma3) -> Gemma3:
    """Return the model with its weights in fp32; itself where they are."""
    if model.config.param_dtype == jnp.float32:
        return model
    exact = nnx.clone(model)
    nnx.update(exact, jax.tree.map(lambda w: w.astype(jnp.float32), nnx.state(exact)))
    return exact


def _logits(
    model: Gemma3, tokens: Int[Array, "P T"], first: int | Int[Array, ""], count: int
) -> Float[Array, "P N V"]:
    """Return the logits at `count` positions alone: at all of them they are the most of memory."""
    rows, length = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (rows, length, length))
    hidden, _ = called(model, tokens, positions, None, causal)
    return model.embedder.decode(jax.lax.dynamic_slice_in_dim(hidden, first, count, axis=1))


@partial(nnx.jit, graph_updates=False)
def _choices(model: Gemma3, tokens: Int[Array, "P T"]) -> Float[Array, "P N V"]:
    first = tokens.shape[1] - NEW_TOKENS - 1
    return _logits(model, tokens, first, NEW_TOKENS).astype(jnp.float32)


@partial(nnx.jit, graph_updates=False)
def _continued(model: Gemma3, rows: Int[Array, "P T"]) -> Int[Array, "P T+N"]:
    start = rows.shape[1]
    structure, state = nnx.split(model)

    def step(place: Int[Array, ""], tokens: Int[Array, "P T"]) -> Int[Array, "P T"]:
        # qwix writes to the modules that it adapts while they run: the loop needs its own.
        looped = nnx.merge(structure, state)
        # Behind `place` is padding, which no earlier position attends to.
        following = _logits(looped, tokens, place - 1, 1)[:, 0].argmax(axis=-1)
        return tokens.at[:, place].set(following.astype(tokens.dtype))

    padded = jnp.pad(rows, ((0, 0), (0, NEW_TOKENS)))
    return jax.lax.fori_loop(start, start + NEW_TOKENS, step, padded)
