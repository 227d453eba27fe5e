"""New proofs from a strong model behind an endpoint: asked, sorted, kept with what became of each.

The requests are a fixed sequence: every seed once, then all again as the next sample, each with a
temperature and a seed of its own. What was answered is in the transcript, so that a run that was
killed sends what is missing, and a finished one nothing. The rows are made of the transcript again
at each start: they hold every reply, also what is lost, and why.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from nblib.evaluation.intervals import wilson_interval
from nblib.files import read_jsonl, write_jsonl
from nblib.sources.endpoint import Client
from nblib.sources.endpoint_cache import Reply, Request
from nblib.sources.served_models import names_of
from nblib.tasks.generated_proofs import Seed, question, read_reply
from nblib.tasks.proof_sieve import Sieve, Sorted, lost
from nblib.tasks.proof_verdicts import LOST, MODELS, UNJUDGED, VERIFIED
from nblib.training.session import duration

_ROUNDS = 16  # requests of a round, for each that is under way at a time
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a generator is asked, and how often.

    Attributes:
        shots: Statements with proofs, in the same form; each request shows `shown` of them.
        samples: Replies wanted of each seed; temperatures are taken in turn.
        target: Rows that are enough: verified ones, or free texts to be judged.
    """

    seeds: tuple[Seed, ...]
    shots: tuple[tuple[str, str], ...]
    shown: int = 6
    samples: int = 4
    temperatures: tuple[float, ...] = (0.7, 1.0)
    max_tokens: int = 2048
    target: int = 10_000
    form: Literal["language", "text"] = "language"
    invent: bool = False  # new statements, rather than proofs of the seeds

    def __post_init__(self) -> None:
        """Refuse what asks nothing."""
        if not self.seeds:
            raise ValueError("no seed is left: expected statements that can be read and are true")
        counts = {name: getattr(self, name) for name in ("samples", "max_tokens", "target")}
        wrong = [name for name, count in counts.items() if count < 1]
        if wrong or min(self.temperatures) < 0 or self.shown < 0:
            raise ValueError(
                f"{', '.join(wrong) or 'temperatures or shots'} too small: expected samples, "
                "max tokens and target of at least 1, temperatures and shots of at least 0"
            )

    def __len__(self) -> int:
        """How many requests there are at most."""
        return len(self.seeds) * self.samples

    def requests(self) -> Iterator[tuple[Seed, Request]]:
        """Yield each request, with its seed, in their order."""
        for sample in range(self.samples):
            parameters = {
                "temperature": self.temperatures[sample % len(self.temperatures)],
                "max_tokens": self.max_tokens,
                "seed": sample,
            }
            for seed in self.seeds:
                draw = random.Random(f"{seed.statement}/{sample}")
                shots = draw.sample(self.shots, min(self.shown, len(self.shots)))
                asked = question(seed, shots, form=self.form, invent=self.invent)
                message = {"role": "user", "content": asked}
                yield seed, Request(messages=(message,), parameters=parameters)


@dataclass(kw_only=True)
class Generated:
    """What became of the replies so far."""

    models: tuple[str, ...]  # all names that the generator is known by
    sieve: Sieve
    rows: list[dict[str, Any]] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    tokens: int = 0  # of prompts and completions, kept replies too
    sent: int = 0
    stopped: str = ""

    def take(self, plan: Plan, seed: Seed, request: Request, reply: Reply) -> None:
        """Sort a reply."""
        if reply.kind == "unsent":
            return
        written, sorted_ = _sorted(plan, seed, reply, self.sieve)
        self.verdicts[sorted_.verdict] += 1
        self.tokens += sum(reply.tokens)
        self.rows.append({
            **{"statement": written[0], "proof": written[1], **sorted_.fields},
            **{"seed": seed.name, MODELS: [*self.models]},
            "temperature": request.parameters["temperature"],
        })  # fmt: skip

    def useful(self, plan: Plan) -> int:
        """How many rows count towards the target."""
        return self.verdicts[VERIFIED if plan.form == "language" else UNJUDGED]

    def plan_line(self, plan: Plan, asked: int, *, seconds: float, left: int) -> str:
        """Say how far the target is, by the yield so far, and what is left to ask.

        `asked` are replies so far, `left` requests of the plan, `seconds` those of a request.
        """
        useful, kind = self.useful(plan), "verified" if plan.form == "language" else "to be judged"
        line = f"plan: {useful:,} of {plan.target:,} {kind}"
        if not asked:
            return f"{line}; {left:,} requests at most"
        low, high = wilson_interval(useful, asked)
        copies = self.sieve.keys.total() - len(self.sieve.keys)
        line += (
            f"; yield {useful / asked:.3f} [{low:.3f}, {high:.3f}] of {asked:,} replies, "
            f"{self.verdicts[LOST]:,} lost, {copies:,} statements asked or stated again"
        )
        missing = plan.target - useful
        if missing <= 0:
            return f"{line}: enough"
        if not useful:
            return f"{line}; {left:,} requests are left: look at the reasons before you go on"
        more = round(missing * asked / useful)
        line += f"; about {more:,} more requests, {more * self.tokens / asked / 1e6:.2g} M tokens"
        line += f", {duration(more * seconds)}" if seconds else ""
        if more > left:
            line += f"; {left:,} are left, for about {useful + round(left * useful / asked):,}: "
            line += "more seeds or samples"
        return line


def generate(client: Client, plan: Plan, sieve: Sieve, out: Path, *, say: Say = print) -> Generated:
    """Ask until the target is reached, the plan is over, or nothing may be sent; write the rows.

    A plan line is said at first and after each round. Replies that are there already come first;
    where they are enough, nothing is sent. The rows are written when this ends, also by an
    interrupt, but not over a file that holds more.
    """
    models = (*names_of(client.endpoint), *_models_of(out))
    generated = Generated(models=tuple(dict.fromkeys(models)), sieve=sieve)
    before, began, asked = client.budget.sent, monotonic(), 0
    requests = plan.requests()
    say(generated.plan_line(plan, 0, seconds=0.0, left=len(plan)))
    try:
        following = list[tuple[Seed, Request]]()
        for seed, request in requests:  # what is there already costs nothing, and comes first
            reply = client.find(request)
            if reply is None:
                following = [(seed, request)]
                break
            generated.take(plan, seed, request, reply)
            asked += 1
        rest = chain(following, requests)
        size = _ROUNDS * client.endpoint.concurrency
        while generated.useful(plan) < plan.target and (part := [*islice(rest, size)]):
            batch = client.ask([request for _, request in part])
            for (seed, request), reply in zip(part, batch.replies, strict=True):
                generated.take(plan, seed, request, reply)
            asked += len(part) - sum(one.kind == "unsent" for one in batch.replies)
            generated.sent, generated.stopped = client.budget.sent - before, batch.stopped
            each = (monotonic() - began) / generated.sent if generated.sent else 0.0
            say(generated.plan_line(plan, asked, seconds=each, left=len(plan) - asked))
            if batch.stopped:
                break
    finally:
        _write(out, generated.rows, say)
    return generated


def _write(out: Path, rows: Sequence[Mapping[str, Any]], say: Say) -> None:
    """Write the rows, but not over a file that holds more of them."""
    there = len(read_jsonl(out)) if out.exists() else 0
    if there > len(rows):
        say(f"{out} is left as it was: it holds {there:,} rows, and this start made {len(rows):,}")
    else:
        write_jsonl(out, rows)


def _models_of(out: Path) -> list[str]:
    """Return the names that earlier rows have: a server may call another model the same today."""
    rows = read_jsonl(out) if out.exists() else []
    return [name for row in rows if isinstance(row, dict) for name in row.get(MODELS) or ()]


def _sorted(plan: Plan, seed: Seed, reply: Reply, sieve: Sieve) -> tuple[tuple[str, str], Sorted]:
    """Return a reply's statement and proof, and what became of them."""
    if not reply.is_complete:
        return (seed.statement, ""), lost(reply.kind, reply.reason[:200])
    written = read_reply(reply.text, seed, invent=plan.invent)
    found = written.statement, written.proof
    return found, lost(written.failure) if written.failure else sieve.sort(*found)
