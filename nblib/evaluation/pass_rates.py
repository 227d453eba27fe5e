"""How often a model solves each training prompt when it is sampled, kept in a file.

GRPO learns from differences inside a group: a prompt that is always solved, or never, gives none.
What is measured here decides which prompts are worth a step, so it reads the train split alone.
pass@k: M. Chen et al., Evaluating Large Language Models Trained on Code, arXiv:2107.03374 (2021).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nblib.evaluation.generate import Decoding, generate
from nblib.files import read_jsonl, to_jsonable, write_jsonl
from nblib.models.names import RefModel
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import task_prompts


@dataclass(frozen=True, kw_only=True)
class PassRates:
    """How many of `samples` completions of each prompt were right.

    Attributes:
        solved: id of the prompt -> right completions, 0 to `samples`, in the prompts' order.
        samples: completions a prompt.
    """

    solved: Mapping[str, int]
    samples: int

    def __post_init__(self) -> None:
        """Refuse counts that no measurement gives."""
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}, expected at least 1")
        if not self.solved:
            raise ValueError("solved is empty, expected a count for each prompt")
        for id_, count in self.solved.items():
            if not 0 <= count <= self.samples:
                raise ValueError(f"solved[{id_!r}] is {count}, expected 0 to {self.samples}")

    def pass_at(self, k: int) -> float:
        """Return the chance that `k` completions of a prompt hold a right one, over all prompts."""
        return float(np.mean([pass_at_k(self.samples, c, k) for c in self.solved.values()]))

    def informative(
        self, lowest: float | None = None, highest: float | None = None
    ) -> tuple[str, ...]:
        """Return the ids whose share of right completions lies in [lowest, highest].

        None means 1 / samples and 1 - 1 / samples: neither never nor always solved.

        Raises:
            ValueError: a bound outside 0..1, or bounds in the wrong order.
        """
        low = 1 / self.samples if lowest is None else lowest
        # The bounds are divided as the shares are, so that equal ones compare equal.
        high = (self.samples - 1) / self.samples if highest is None else highest
        given = [bound for bound in (lowest, highest) if bound is not None]
        if not all(0 <= bound <= 1 for bound in given) or given != sorted(given):
            raise ValueError(
                f"lowest {lowest} and highest {highest} must be shares in 0..1, in this order"
            )
        return tuple(id_ for id_, c in self.solved.items() if low <= c / self.samples <= high)

    def summary(self) -> str:
        """One line: `never 25.0%, sometimes 50.0%, always 25.0% of 8 prompts; pass@1 0.50, ...`."""
        counts, n = list(self.solved.values()), len(self.solved)
        never, always = counts.count(0) / n, counts.count(self.samples) / n
        return (
            f"never {never:.1%}, sometimes {1 - never - always:.1%}, always {always:.1%} "
            f"of {n} prompts; pass@1 {self.pass_at(1):.3f}, "
            f"pass@{self.samples} {self.pass_at(self.samples):.3f}"
        )


def pass_at_k(n: int, solved: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from `solved` right ones of `n` completions.

    It is the share of the choices of k of the n completions that hold a right one:
    1 - C(n - solved, k) / C(n, k).

    Raises:
        ValueError: `solved` outside 0..n, or `k` outside 1..n.

    Example:
        >>> round(pass_at_k(4, 1, 2), 3)
        0.5
    """
    if not 0 <= solved <= n:
        raise ValueError(f"solved is {solved}, expected 0 to n = {n}")
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}, expected 1 to n = {n}")
    return 1 - math.comb(n - solved, k) / math.comb(n, k)


def pass_rates(
    ref: RefModel,
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    samples: int,
    mesh: jax.sharding.Mesh,
    cache: Path,
) -> PassRates:
    """Sample every prompt `samples` times and count the right answers; zero-shot, as in evaluation.

    The counts are written to `cache` (whole or not at all) under the identity of what was measured.
    A file with the same identity is used again instead, and a line says so; one with another is
    measured anew and replaced.

    Args:
        ref: the model. Its `sha256` is its folder's, so a fine-tune in memory must have its own
            `name`.
        task: its format makes the prompts, its score judges the answers (`Score.correct`).
        examples: training examples with ids of their own.
        decoding: with a temperature; its seed is the first repetition's.
        samples: completions a prompt.
        mesh: the devices.
        cache: the `.jsonl` file.

    Raises:
        ValueError: no examples, ids that repeat, no temperature, no samples, or a `cache` that
            holds something else.
    """
    _check_request(examples, decoding, samples)
    identity = _identity(ref, task, examples, decoding, samples)
    kept = _read(cache, identity)
    if kept is not None:
        print(f"pass rates: used again from {cache}; {kept.summary()}", flush=True)
        return kept
    solved = _count(ref, task, examples, decoding, samples=samples, mesh=mesh)
    rates = PassRates(solved=solved, samples=samples)
    rows = ({"id": id_, "solved": count, "samples": samples} for id_, count in solved.items())
    write_jsonl(cache, [{"identity": identity}, *rows])
    return rates


def keep_informative(
    examples: Sequence[Example], rates: PassRates
) -> tuple[tuple[Example, ...], int, int]:
    """Return the examples solved sometimes, and how many were dropped as always and never solved.

    Raises:
        ValueError: an example that was not measured, by id.
    """
    for example in examples:
        if example.id not in rates.solved:
            raise ValueError(f"example {example.id!r} has no pass rate: measure these examples")
    wanted = set(rates.informative())
    kept = tuple(example for example in examples if example.id in wanted)
    counts = [rates.solved[example.id] for example in examples]
    return kept, counts.count(rates.samples), counts.count(0)


def _check_request(examples: Sequence[Example], decoding: Decoding, samples: int) -> None:
    if not examples:
        raise ValueError("got 0 examples: expected at least one")
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1")
    if decoding.temperature == 0:
        raise ValueError(
            "temperature is 0: greedy decoding writes the same each time, expected above 0"
        )
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise ValueError(f"example {example.id!r} repeats: expected ids of their own")
        seen.add(example.id)


def _count(
    ref: RefModel,
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    samples: int,
    mesh: jax.sharding.Mesh,
) -> dict[str, int]:
    prompts = task_prompts(task, examples)
    solved = dict.fromkeys((example.id for example in examples), 0)
    for repetition in range(samples):
        fresh = replace(decoding, seed=decoding.seed + repetition)
        completions = generate(ref.model, ref.tokenizer, prompts, fresh, mesh=mesh)
        for one, example in zip(completions, examples, strict=True):
            score = task.score(one.text, example.answer, truncated=one.truncated)
            solved[example.id] += score.correct
        print(f"pass rates: repetition {repetition + 1} of {samples}", flush=True)
    return solved


def _identity(
    ref: RefModel, task: Task, examples: Sequence[Example], decoding: Decoding, samples: int
) -> dict[str, Any]:
    """What the counts depend on; the prompts as they are asked, so that the format counts too."""
    digest = hashlib.sha256()
    for prompt, example in zip(task_prompts(task, examples), examples, strict=True):
        digest.update(json.dumps([example.id, prompt, example.answer]).encode() + b"\n")
    identity = {
        "model": ref.name,
        "model_sha256": ref.sha256,
        "task": task.name,
        "format": task.answer_format.name,
        "examples": digest.hexdigest(),
        "decoding": asdict(decoding),
        "samples": samples,
    }
    return dict(to_jsonable(identity))


def _read(cache: Path, identity: Mapping[str, Any]) -> PassRates | None:
    """Return the counts in the file, None when there is none or it is of another measurement."""
    if not cache.exists():
        return None
    header, *rows = read_jsonl(cache) or [None]
    if not isinstance(header, dict) or "identity" not in header:
        raise ValueError(f"{cache} holds no pass rates: expected an identity in its first line")
    found = header["identity"]
    if found != identity:
        names = ", ".join(name for name in identity if found.get(name) != identity[name])
        print(f"pass rates: {cache} is of another {names}; measured anew", flush=True)
        return None
    return PassRates(solved={row["id"]: row["solved"] for row in rows}, samples=identity["samples"])
