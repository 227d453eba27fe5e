"""Evaluation against the stock way: the same questions in sorted batches, and four by four."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from nblib.evaluation.answers import Decoding, generate
from nblib.models.mesh import device_mesh
from nblib.models.names import get_gemma_ref_model
from nblib.models.published import EMBEDDED
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import stop_tokens

_STOCK_BATCH = 4  # tunix's GRPO demo evaluates so
_EVALUATED = 1319  # as many as GSM8K's test split has
_MAX_NEW_TOKENS = 320
_BATCH = 32


def evaluation() -> dict[str, float]:
    """Answer the same questions in sorted batches, and four by four through a plain Sampler.

    Both begin with nothing compiled. The stock way is that of Tunix's GRPO demo: batches in the
    order of the questions, prompts padded to the next power of two, a cache for all.
    """
    mesh = device_mesh()
    ref = get_gemma_ref_model(EMBEDDED, mesh)
    rows = word_problems(_EVALUATED, seed=0, split="test")
    prompts = task_prompts(GSM8K, GSM8K.examples(rows), style="question")
    decoding = Decoding(max_new_tokens=_MAX_NEW_TOKENS, batch_size=_BATCH)
    ours, ours_s = _timed(lambda: generate(ref, prompts, decoding))
    stock, stock_s = _timed(lambda: _stock_answers(ref, prompts, mesh))
    same = sum(one["completion"] == other for one, other in zip(ours, stock, strict=True))
    return {
        "evaluation_ratio": stock_s / ours_s,
        "evaluation_items_per_s": len(prompts) / ours_s,
        "evaluation_stock_items_per_s": len(prompts) / stock_s,
        "evaluation_same_answers": same / len(prompts),
    }


def _stock_answers(ref: Any, prompts: Sequence[str], mesh: Any) -> list[str]:
    from tunix.generate.sampler import CacheConfig, Sampler

    config = ref.model.config
    longest = max(len(ids) for ids in ref.tokenizer.encode(list(prompts)))
    padded = 1 << longest.bit_length()
    cache = CacheConfig(
        cache_size=padded + _MAX_NEW_TOKENS,
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    sampler = Sampler(ref.model, ref.tokenizer, cache)
    texts: list[str] = []
    for start in range(0, len(prompts), _STOCK_BATCH):
        with mesh:
            output = sampler(
                list(prompts[start : start + _STOCK_BATCH]),
                max_generation_steps=_MAX_NEW_TOKENS,
                eos_tokens=stop_tokens(ref.tokenizer),
            )
        texts += output.text
    return texts


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    done = work()
    return done, time.perf_counter() - began
