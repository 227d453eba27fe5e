"""Two stages on the same items, paired: the difference, its interval, and McNemar's exact test.

Items that both stages solve, or that neither does, say nothing of which is better; the test looks
at the others, the discordant ones. Rates of one stage alone are in `evaluation.metrics`.

Exact test: Q. McNemar, Psychometrika 12 (1947), p. 153, with the binomial distribution in place of
the normal one. Worked examples: Fagerland, Lydersen, Laake, BMC Med. Res. Methodol. 13:91 (2013).
Interval: M. P. Fay, K. Lumbard, Statistics in Medicine 40 (2021), p. 1147; it leaves 0 out exactly
where that test gives p < 0.05, which Tango's, Newcombe's and the bootstrap's intervals do not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.integrate import fixed_quad
from scipy.optimize import brentq
from scipy.special import betaincc, betaincinv
from scipy.stats import binomtest, norm

from nblib.evaluation.metrics import LENIENT, RATE_FIELDS
from nblib.evaluation.tables import Table, in_words

_ALPHA = 0.05  # of the intervals and of `smallest_detectable`
_NODES = 100  # of an integral: the interval's ends are then right to 0.002 points
_COLUMNS = (
    *("compared", "rate", "n", "difference, points", "p"),
    *("both", "only first", "only second", "neither"),
)
_RATES = {field: rate for rate, field in RATE_FIELDS.items()} | {LENIENT: f"{LENIENT}_accuracy"}
Group = TypeVar("Group", int, str)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One rate of two stages on the same `n` items: counts, and fractions of 1.

    Attributes:
        rate: What was compared, such as "answer_accuracy".
        n: Items.
        both_right: Solved by both stages.
        only_first: Solved by the first alone.
        only_second: Solved by the second alone.
        neither: Solved by none.
        difference: Rate of the second less rate of the first: above 0 the second is better.
        ci95: [low, high] of the difference; it covers the true one at least 95 % of the time.
        p_value: McNemar's exact test, two-sided; 1 without a discordant item.
    """

    rate: str
    n: int
    both_right: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    ci95: tuple[float, float]
    p_value: float

    def __post_init__(self) -> None:
        """Refuse counts and figures that contradict each other."""
        counts = (self.both_right, self.only_first, self.only_second, self.neither)
        if self.n < 1 or min(counts) < 0 or sum(counts) != self.n:
            raise ValueError(f"n is {self.n}, expected the sum of the counts {counts}, at least 1")
        if not -1 <= self.ci95[0] <= self.ci95[1] <= 1:
            raise ValueError(f"ci95 is {self.ci95}, expected low and high in -1..1")
        if not 0 <= self.p_value <= 1:
            raise ValueError(f"p_value is {self.p_value}, expected a probability in 0..1")


def paired_comparison(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    *,
    field: str = "correct",
) -> Paired:
    """Compare one field of two stages, item by item.

    Args:
        first: Records of `predictions.jsonl`, those of one stage; the order does not count.
        second: The records of the other stage, on the same items.
        field: A yes-or-no field of the records: correct, format, joint, ...

    Raises:
        ValueError: no records, an item that repeats or that one stage lacks, another reference,
            or a field that is no yes or no. The message names an item.
    """
    before, after = _by_id(first, "first"), _by_id(second, "second")
    _check_same_items(before, after)
    pairs = [(_flag(before[id_], field), _flag(after[id_], field)) for id_ in before]
    return _compared(pairs, rate=_RATES.get(field, field))


def paired_by(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    group: Callable[[Mapping[str, Any]], Group | None],
    *,
    field: str = "correct",
) -> dict[Group, Paired]:
    """Compare two stages on the items of each group, the groups as they appear in `first`.

    `group` names the group of a record of `first`; items where it is None are left out. Takes and
    raises what `paired_comparison` does.
    """
    before, after = _by_id(first, "first"), _by_id(second, "second")
    _check_same_items(before, after)
    groups: dict[Group, list[str]] = {}
    for id_, record in before.items():
        name = group(record)
        if name is not None:
            groups.setdefault(name, []).append(id_)
    return {
        name: paired_comparison(
            [before[id_] for id_ in ids], [after[id_] for id_ in ids], field=field
        )
        for name, ids in groups.items()
    }


def paired_by_level(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    *,
    field: str = "correct",
) -> dict[int, Paired]:
    """Compare two stages on the items of each level, lowest first; items without one are left out.

    Levels are those of `first`. Takes and raises what `paired_comparison` does.
    """
    found = paired_by(first, second, lambda record: record.get("level"), field=field)
    return dict(sorted(found.items()))


def paired_table(paired: Mapping[str, Paired]) -> str:
    """Markdown table, one row a comparison; differences in percentage points with their interval.

    ```
    | compared | rate | n | difference, points | p | both | only first | only second | neither |
    | --- | --- | --- | --- | --- | --- | --- | --- | --- |
    | base to tuned | answer accuracy | 200 | +6.0 [+1.0, +11.3] | 0.017 | 90 | 5 | 17 | 88 |
    ```
    """
    return Table(
        columns=_COLUMNS,
        rows=tuple((in_words(name), *paired_cells(one)) for name, one in paired.items()),
    ).markdown()


def smallest_detectable(n: int, discordant_share: float, power: float = 0.8) -> float:
    """Return the smallest difference that `n` items show at alpha 0.05, a fraction of 1.

    "Show": McNemar's two-sided test finds it with probability `power`. Solved for d from the sample
    size n = (z_alpha sqrt(s) + z_power sqrt(s - d²))² / d², with s the share of discordant items:
    R. J. Connor, Biometrics 43 (1987), p. 207. It approximates by the normal distribution; the
    exact test needs a little more.

    Returns:
        The difference, or infinity where so few items could not even show all discordant ones on
        one side (d = s).

    Raises:
        ValueError: n below 1, a share outside (0, 1], or a power outside [0.5, 1).

    Example:
        >>> round(smallest_detectable(400, 0.25), 3)
        0.07
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1")
    if not 0 < discordant_share <= 1:
        raise ValueError(f"discordant_share is {discordant_share}, expected a share in (0, 1]")
    if not 0.5 <= power < 1:
        raise ValueError(f"power is {power}, expected a probability in [0.5, 1)")
    z_alpha, z_power = float(norm.ppf(1 - _ALPHA / 2)), float(norm.ppf(power))
    inner = n - z_alpha**2 + z_power**2
    if inner < 0:
        return math.inf
    root = z_alpha * math.sqrt(n) + z_power * math.sqrt(inner)
    difference = math.sqrt(discordant_share) * root / (n + z_power**2)
    return difference if difference <= discordant_share else math.inf


def _by_id(records: Sequence[Mapping[str, Any]], which: str) -> dict[str, Mapping[str, Any]]:
    if not records:
        raise ValueError(f"the {which} stage has no records: expected one an item")
    found: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record["id"] in found:
            raise ValueError(
                f"item {record['id']!r} repeats in the {which} stage: "
                "expected the records of one stage, one an item"
            )
        found[record["id"]] = record
    return found


def _check_same_items(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]
) -> None:
    for here, there, which in ((first, second, "second"), (second, first, "first")):
        missing = [id_ for id_ in here if id_ not in there]
        if missing:
            raise ValueError(
                f"the {which} stage lacks {len(missing)} items of the other, such as "
                f"{missing[0]!r}: expected the same items in both"
            )
    for id_, record in first.items():
        if record["reference"] != second[id_]["reference"]:
            raise ValueError(
                f"item {id_!r} has the reference {record['reference']!r} in the first stage and "
                f"{second[id_]['reference']!r} in the second: expected the same items in both"
            )


def _flag(record: Mapping[str, Any], field: str) -> bool:
    value = record.get(field)
    if not isinstance(value, bool):
        raise ValueError(f"item {record['id']!r}: {field} is {value!r}, expected true or false")
    return value


def _compared(pairs: Sequence[tuple[bool, bool]], *, rate: str) -> Paired:
    n, only_first, only_second = len(pairs), pairs.count((True, False)), pairs.count((False, True))
    discordant = only_first + only_second
    return Paired(
        rate=rate,
        n=n,
        both_right=pairs.count((True, True)),
        only_first=only_first,
        only_second=only_second,
        neither=pairs.count((False, False)),
        difference=(only_second - only_first) / n,
        ci95=(
            -_upper_limit(only_second, only_first, n),
            _upper_limit(only_first, only_second, n),
        ),
        p_value=float(binomtest(only_second, discordant).pvalue) if discordant else 1.0,
    )


def _upper_limit(lost: int, gained: int, n: int) -> float:
    """Return the upper end of the interval of (gained - lost) / n.

    The difference is a product: the share of discordant items, times how much more of them are
    gained than lost. Each factor has its Clopper-Pearson limit, the quantile of a beta
    distribution; the limit of the product is the quantile of the product of the two. Below 0 the
    share's lower limit makes the product higher, above 0 its upper one.
    """
    discordant = gained + lost
    above = betaincc(gained + 1, lost, 0.5) > _ALPHA / 2 if lost else True  # half the two-sided p

    def share(chance: Any) -> Any:
        if not above:
            return betaincinv(discordant, n - discordant + 1, chance)
        if discordant == n:
            return np.ones_like(chance)
        return betaincinv(discordant + 1, n - discordant, chance)

    if lost == 0:  # then the second factor's limit is 1
        return float(share(1 - _ALPHA / 2))

    def too_high(difference: float) -> float:
        def chance_above(u: np.ndarray) -> np.ndarray:
            return betaincc(gained + 1, lost, np.clip((1 + difference / share(u)) / 2, 0, 1))

        return float(fixed_quad(chance_above, 0, 1, n=_NODES)[0]) - _ALPHA / 2

    return float(brentq(too_high, *((0, 1) if above else (-1, 0))))


def paired_cells(one: Paired) -> tuple[str, ...]:
    """Return a comparison as texts: rate, n, difference with interval, p, and the four counts."""
    counts = (one.both_right, one.only_first, one.only_second, one.neither)
    return (
        in_words(one.rate),
        str(one.n),
        difference_text(one),
        p_text(one.p_value),
        *map(str, counts),
    )


def difference_text(one: Paired) -> str:
    """Return the difference in points with its interval: `+6.0 [+1.0, +11.3]`."""
    low, high = (f"{100 * bound:+.1f}" for bound in one.ci95)
    return f"{100 * one.difference:+.1f} [{low}, {high}]"


def p_text(p_value: float) -> str:
    """Return a p-value to three places."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
