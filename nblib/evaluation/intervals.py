"""95 % intervals and tests of rates and means, and of differences on the same items.

Numbers in, numbers out; for records of a stage prefer `evaluation.statistics`. numpy and scipy load
inside the functions that need them: `python -m nblib score` answers at once.

Rates: the interval of E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), p. 209. Two rates on the same
items: McNemar's exact test (Psychometrika 12, 1947, p. 153; examples: Fagerland, Lydersen, Laake,
BMC Med. Res. Methodol. 13:91, 2013) with the interval of M. P. Fay, K. Lumbard, Statistics in
Medicine 40 (2021), p. 1147. It leaves 0 out exactly where that test gives p < 0.05, which Tango's,
Newcombe's and the bootstrap's intervals do not.

Means: a percentile bootstrap of n from the n values and one more at each end of what is possible,
as A. Agresti, B. Coull, The American Statistician 52 (1998), p. 119, add successes and failures:
a few items that are all alike do not make a mean certain.

Agreement with what is known: kappa of J. Cohen, Educational and Psychological Measurement 20
(1960), p. 37, with a bootstrap to which one item of each cell is added, for the same reason.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal

_ALPHA = 0.05
_Z = 1.959963984540054  # 97.5 % of a normal distribution lie below: 95 % between -_Z and _Z
_Z_POWER = NormalDist().inv_cdf(0.8)
_NODES = 100  # of an integral: the interval's ends are then right to 0.002 points
_RESAMPLES, _CHUNK = 10_000, 100
_END = 249  # place of the interval's low end among the sorted resamples: 2.49 % lie below


def wilson_interval(hits: float, n: int) -> tuple[float, float]:
    """Return where the true rate behind `hits` of `n` can lie."""
    rate, share = hits / n, _Z**2 / n
    centre = rate + share / 2
    half = _Z * math.sqrt(rate * (1 - rate) / n + share / (4 * n))
    # At the ends the formula gives exactly 0 and 1; its rounding does not.
    low = 0.0 if hits == 0 else (centre - half) / (1 + share)
    high = 1.0 if hits == n else (centre + half) / (1 + share)
    return low, high


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return where the true mean behind values in 0..1 can lie."""
    return _middle(_resampled_means(values, 0.0, 1.0), values)


def mean_difference_test(differences: Sequence[float]) -> tuple[tuple[float, float], float]:
    """Return interval and two-sided p-value of a mean of differences in -1..1.

    Both are read from the same resamples: p < 0.05 exactly where the interval leaves 0 out.
    """
    mirrored = [-value for value in differences]
    if sorted(mirrored) > sorted(differences):  # the other order of two stages says the same
        (low, high), p_value = mean_difference_test(mirrored)
        return (-high, -low), p_value
    means = _resampled_means(differences, -1.0, 1.0)
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return _middle(means, differences), min(1.0, 2 * (beyond + 1) / (_RESAMPLES + 1))


def rate_difference_test(gained: int, lost: int, n: int) -> tuple[tuple[float, float], float]:
    """Return interval and two-sided p-value of (gained - lost) / n; p is 1 where both are 0."""
    from scipy.stats import binomtest

    ci95 = (-_upper_limit(gained, lost, n), _upper_limit(lost, gained, n))
    return ci95, float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def cohen_kappa(table: Sequence[Sequence[int]]) -> float | None:
    """Return the agreement beyond chance of two verdicts; rows are one's, columns the other's.

    None where it is not defined: there are no items, or both say the same of all.

    >>> cohen_kappa([[20, 5], [10, 15]])
    0.4
    """
    total = sum(map(sum, table))
    rows, columns = [*map(sum, table)], [*map(sum, zip(*table, strict=True))]
    by_chance = sum(row * column for row, column in zip(rows, columns, strict=True))
    if by_chance == total**2:
        return None
    same = sum(row[place] for place, row in enumerate(table))
    return (total * same - by_chance) / (total**2 - by_chance)


def kappa_interval(table: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return where the true kappa behind a table of two by two can lie."""
    import numpy as np

    kappa = cohen_kappa(table)
    if kappa is None:
        return -1.0, 1.0
    cells = np.array(table).ravel()
    chances = (cells + 1) / (cells.sum() + 4)
    drawn = np.random.default_rng(0).multinomial(cells.sum(), chances, size=_RESAMPLES)
    found = [cohen_kappa(one.reshape(2, 2).tolist()) for one in drawn]
    kappas = sorted(one for one in found if one is not None)
    end = _END * len(kappas) // _RESAMPLES
    return min(kappas[end], kappa), max(kappas[-1 - end], kappa)


def smallest_detectable(n: int, spread: float, *, kind: Literal["rate", "mean"] = "rate") -> float:
    """Return the smallest difference that `n` items show, infinity where they cannot differ by it.

    "Show": a two-sided test at alpha 0.05 finds it with a power of 0.8, by the normal distribution;
    the exact test needs a little more.

    Of a rate, `spread` is s, the share of items that differ. Solved for d from the sample size
    n = (z_alpha sqrt(s) + z_power sqrt(s - d²))² / d²: R. J. Connor, Biometrics 43 (1987), p. 207.
    Of a mean, it is the standard deviation of the differences, -1 and 1 added as in the test.
    """
    if kind == "mean":
        difference, most = (_Z + _Z_POWER) * spread / math.sqrt(n), 1.0
    else:
        inner = n - _Z**2 + _Z_POWER**2
        if inner < 0:
            return math.inf
        root = _Z * math.sqrt(n) + _Z_POWER * math.sqrt(inner)
        difference, most = math.sqrt(spread) * root / (n + _Z_POWER**2), spread
    return difference if difference <= most else math.inf


def _resampled_means(values: Sequence[float], low: float, high: float) -> Any:
    """Return the sorted means of the bootstrap's resamples, always the same for the same values."""
    import numpy as np

    rng, pool = np.random.default_rng(0), np.sort([*values, low, high])
    size, parts = (_CHUNK, len(values)), range(_RESAMPLES // _CHUNK)
    means = [pool[rng.integers(len(pool), size=size)].mean(axis=1) for _ in parts]
    return np.sort(np.concatenate(means))


def _middle(means: Any, values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % in the middle of sorted means, with the mean of the values in it."""
    mean = math.fsum(values) / len(values)
    return min(float(means[_END]), mean), max(float(means[-1 - _END]), mean)


def _upper_limit(lost: int, gained: int, n: int) -> float:
    """Return the upper end of the interval of (gained - lost) / n.

    The difference is a product: the share of discordant items, times how much more of them are
    gained than lost. Each factor has its Clopper-Pearson limit, the quantile of a beta
    distribution; the limit of the product is the quantile of the product of the two. Below 0 the
    share's lower limit makes the product higher, above 0 its upper one.
    """
    import numpy as np
    from scipy.integrate import fixed_quad
    from scipy.optimize import brentq
    from scipy.special import betaincc, betaincinv

    discordant = gained + lost
    # Half the two-sided p decides; 1 where the limit is above 0.
    above = int(not lost or betaincc(gained + 1, lost, 0.5) > _ALPHA / 2)

    def share(chance: Any) -> Any:
        if above and discordant == n:
            return np.ones_like(chance)
        return betaincinv(discordant + above, n - discordant + 1 - above, chance)

    if lost == 0:  # then the second factor's limit is 1
        return float(share(1 - _ALPHA / 2))

    def too_high(difference: float) -> float:
        def chance_above(u: np.ndarray) -> np.ndarray:
            return betaincc(gained + 1, lost, np.clip((1 + difference / share(u)) / 2, 0, 1))

        return float(fixed_quad(chance_above, 0, 1, n=_NODES)[0]) - _ALPHA / 2

    return float(brentq(too_high, *((0, 1) if above else (-1, 0))))
