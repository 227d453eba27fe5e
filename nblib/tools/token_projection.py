"""Tokens that pages cost, measured on answers that are there, against a day's budget and prices.

Tokens are counted by the tokenizer of the model that answered: another model's tokenizer, such as
the strong one's, makes more or fewer of the same text. Prices are the user's; none is known here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev

from nblib.evaluation.answer_table import read_answers
from nblib.files import read_jsonl
from nblib.tokens.tokenizer import load_tokenizer
from nblib.tools.publishing import newest_export

_STAGES = ("tuned_grammar", "tuned")  # of a run: as `extract` asks, or else without a grammar
_MILLION = 1e6
_Z = 1.96  # 95 % of a normal distribution, as which a mean of many pages varies
_LEAST = 2  # pages, or nothing is known of how they vary
_STRONG = "strong model, by as many tokens"  # though its tokenizer makes others
Pair = tuple[int, int]  # tokens of a page's prompt, and of its answer


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Of a million tokens in and out, in any currency."""

    tokens_in: float
    tokens_out: float

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Return what so many tokens cost."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / _MILLION


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Pages a day in tokens and money, from pages that were measured.

    Attributes:
        where: What was measured.
        measured: Tokens in and out of each page.
        budget: Tokens a day that there are.
        backlog: Pages to be done once.
        prices: Whose -> what a million tokens cost.
    """

    where: str
    measured: Sequence[Pair]
    pages_per_day: int
    budget: int
    backlog: int = 0
    prices: Mapping[str, Prices]

    def __str__(self) -> str:
        """Lines of figures: tokens a page and their spread, a day, the budget, cost."""
        return "\n".join((*self._of_a_page(), *self._of_a_day(), *self._costs()))

    def _of_a_page(self) -> Iterable[str]:
        yield f"{self.where}: {len(self.measured):,} pages"
        columns = zip(*self.measured, strict=True)
        for name, values in zip(("in", "out"), columns, strict=True):
            yield f"tokens {name} a page: {_spread(values)}"
        yield f"tokens a page: {_spread(self._totals)}"

    def _of_a_day(self) -> Iterable[str]:
        mean, half = self._mean, _Z * stdev(self._totals) / math.sqrt(len(self.measured))
        day = f"{rounded(self.pages_per_day * mean)} tokens a day"
        ends = (rounded(self.pages_per_day * one) for one in (mean - half, mean + half))
        yield f"{self.pages_per_day:,} pages a day: {day} (95 %: {' to '.join(ends)})"
        share = self.pages_per_day * mean / self.budget
        fits = f"{rounded(self.budget / mean)} pages a day fit"
        yield f"budget {self.budget:,} tokens a day: {share:.0%} of it are used; {fits}"
        if self.backlog:
            days = self.backlog * mean / self.budget
            yield f"backlog {self.backlog:,} pages: {rounded(days)} days of the whole budget"

    def _costs(self) -> Iterable[str]:
        tokens = [sum(values) / len(values) for values in zip(*self.measured, strict=True)]
        for name, prices in self.prices.items():
            a_page = prices.cost(*tokens)
            a_day = rounded(self.pages_per_day * a_page)
            more = f", {rounded(self.backlog * a_page)} the backlog" if self.backlog else ""
            yield f"{name}: {a_day} a day{more}, {rounded(1000 * a_page)} a thousand pages"

    @property
    def _totals(self) -> list[float]:
        return [float(sum(pair)) for pair in self.measured]

    @property
    def _mean(self) -> float:
        return sum(self._totals) / len(self.measured)


def measured_tokens(given: str) -> tuple[str, list[Pair]]:
    """Return where pages were measured, and the tokens in and out of each.

    `given` is a table of answers that `extract` wrote, or an export, its run or its notebook, whose
    held-out pages are then counted. Raises ValueError and OSError saying what is missing.
    """
    path = Path(given).expanduser()
    if path.is_file():
        pairs, where = _of_answers(path), path.name
    else:
        export = newest_export(given)
        pairs, where = _of_predictions(export)
    if len(pairs) < _LEAST:
        raise ValueError(f"{given} has {len(pairs)} answered pages, expected at least {_LEAST}")
    return where, pairs


def price_pairs(given: Mapping[str, float | None]) -> dict[str, Prices]:
    """Return the prices of the models that have both; ValueError where one of a pair is missing.

    `given` holds "price_in", "price_out", "strong_price_in", "strong_price_out", None for none.
    """
    found = {}
    for model, start in (("tuned model", ""), (_STRONG, "strong_")):
        names = [f"{start}price_{way}" for way in ("in", "out")]
        known = [given[name] for name in names]
        if known.count(None) == 1:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in names)
            raise ValueError(f"one price of the {model} is missing: give {options}, or none")
        tokens_in, tokens_out = known
        if tokens_in is not None and tokens_out is not None:
            found[model] = Prices(tokens_in=tokens_in, tokens_out=tokens_out)
    return found


def rounded(value: float) -> str:
    """Return a number with three digits that count, and the name of its size.

    >>> rounded(2431872.4), rounded(87), rounded(0.01234)
    ('2.43 M', '87.0', '0.0123')
    """
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{rounded(value / size)} {name}"
    if not value:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:.{digits}f}"


def _of_answers(path: Path) -> list[Pair]:
    records = read_answers(path)
    return [
        (one["prompt_tokens"], one["completion_tokens"])
        for one in records
        if one["problem"] is None
    ]


def _of_predictions(export: Path) -> tuple[list[Pair], str]:
    path = export.parent / "predictions.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: its run evaluated nothing; give the table that extract wrote"
        )
    records, tokenizer = read_jsonl(path), load_tokenizer(export)
    stages = {one["stage"] for one in records}
    stage = next((name for name in _STAGES if name in stages), None)
    if stage is None:
        raise ValueError(f"{path} has no stage {' or '.join(_STAGES)}, only {', '.join(stages)}")
    own = [one for one in records if one["stage"] == stage]
    pairs = [(1 + len(tokenizer.encode(one["prompt"])), one["tokens"]) for one in own]
    return pairs, f"{path.parent.resolve().name}, stage {stage}"


def _spread(values: Sequence[float]) -> str:
    ordered, count = sorted(values), len(values)
    mean = sum(ordered) / count
    p50, p95 = (ordered[math.ceil(share * count) - 1] for share in (0.5, 0.95))
    return f"mean {rounded(mean)}, p50 {p50:,.0f}, p95 {p95:,.0f}"
