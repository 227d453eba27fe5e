"""Prompts to completions: sorted by length, in batches, order restored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import sentencepiece as spm
from flax import nnx

from nblib.models.decode import Sampling, decode
from nblib.tokens.tokenizer import check_tokenizer, stop_tokens


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How completions are drawn. Temperature 0 is greedy, and the other values are then unused."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what the sampler would take silently and answer wrongly."""
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature {self.temperature} must be at least 0, top_p {self.top_p} in (0, 1]"
            )
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise ValueError(
                f"max_new_tokens {self.max_new_tokens} and batch_size {self.batch_size} "
                "must be at least 1"
            )

    def sampled(self, *, temperature: float, top_p: float) -> "Decoding":
        """Return the same setting with sampling."""
        return replace(self, temperature=temperature, top_p=top_p)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What the model wrote: `tokens` without the stop token; truncated means that none came."""

    prompt: str
    text: str
    tokens: int
    truncated: bool


def generate(
    model: nnx.Module,
    tokenizer: spm.SentencePieceProcessor,
    prompts: Sequence[str],
    decoding: Decoding,
    *,
    mesh: jax.sharding.Mesh,
) -> tuple[Completion, ...]:
    """Return one completion a prompt, in the order of the prompts.

    Prompts are sorted by length, so that a batch is padded little. A sampled completion follows
    from the seed and its prompt's place in `prompts`; the batch's size does not change it.
    Raises TokenizerMismatch when the tokenizer is not the model's.
    """
    check_tokenizer(tokenizer, size=model.num_embed, sha256=None, where="the model")
    stop = stop_tokens(tokenizer)
    written = decode(
        model,
        [[tokenizer.bos_id(), *ids] for ids in tokenizer.encode(list(prompts))],
        Sampling(temperature=decoding.temperature, top_p=decoding.top_p, seed=decoding.seed),
        stop=stop,
        max_new_tokens=decoding.max_new_tokens,
        batch_size=decoding.batch_size,
        mesh=mesh,
    )
    completions = []
    for prompt, tokens in zip(prompts, written, strict=True):
        ended = bool(tokens) and tokens[-1] in stop
        text = tokens[:-1] if ended else tokens
        completions.append(
            Completion(
                prompt=prompt, text=tokenizer.decode(text), tokens=len(text), truncated=not ended
            )
        )
    return tuple(completions)
