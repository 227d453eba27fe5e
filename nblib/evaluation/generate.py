"""Prompts to completions with Tunix's sampler: sorted by length, fixed shapes, order restored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import sentencepiece as spm
from flax import nnx
from tunix.generate.sampler import CacheConfig, Sampler

from nblib.tokens.tokenizer import check_tokenizer, stop_tokens

_PROMPT_MULTIPLE = 64  # prompts of a batch are padded to a multiple: few shapes, few compilations


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

    @property
    def name(self) -> str:
        """A short name for tables: "greedy" or "t=0.7 p=0.95"."""
        return "greedy" if self.temperature == 0 else f"t={self.temperature} p={self.top_p}"


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
    sampler: Sampler | None = None,
) -> tuple[Completion, ...]:
    """Return one completion a prompt, in the order of the prompts.

    Prompts are sorted by length and the last batch is filled up, so that there is one compilation
    for each padded prompt length. Whoever asks the same prompts again and again hands in a
    `sampler` of his own, which keeps what it compiled and reads the live weights of `model`.
    Raises TokenizerMismatch when the tokenizer is not the model's.
    """
    check_tokenizer(tokenizer, size=model.num_embed, sha256=None, where="the model")
    lengths = [1 + len(ids) for ids in tokenizer.encode(list(prompts))]
    order = sorted(range(len(prompts)), key=lambda index: -lengths[index])
    if sampler is None:
        sampler = make_sampler(model, tokenizer, max(lengths), decoding)
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), decoding.batch_size):
        chosen = order[start : start + decoding.batch_size]
        filled = chosen + chosen[:1] * (decoding.batch_size - len(chosen))
        with mesh:
            output = sampler(
                [prompts[index] for index in filled],
                max_generation_steps=decoding.max_new_tokens,
                max_prompt_length=_padded(lengths[chosen[0]]),
                eos_tokens=stop_tokens(tokenizer),
                temperature=decoding.temperature,
                # Without top_p the sampler is greedy, whatever the temperature says.
                top_p=decoding.top_p if decoding.temperature > 0 else None,
                seed=decoding.seed + start,
            )
        for index, text, tokens in zip(chosen, output.text, output.tokens, strict=False):
            completions[index] = Completion(
                prompt=prompts[index],
                text=text,
                tokens=len(tokens),
                truncated=len(tokens) >= decoding.max_new_tokens,
            )
    return tuple(completions[index] for index in range(len(prompts)))


def make_sampler(
    model: nnx.Module, tokenizer: spm.SentencePieceProcessor, longest: int, decoding: Decoding
) -> Sampler:
    """Return Tunix's sampler with a cache for prompts of up to `longest` tokens, BOS included."""
    config = model.config
    cache = CacheConfig(
        cache_size=_padded(longest) + decoding.max_new_tokens,
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    return Sampler(model, tokenizer, cache)


def _padded(length: int) -> int:
    return -(-length // _PROMPT_MULTIPLE) * _PROMPT_MULTIPLE
