"""Intervals and tests by hand, by published tables, against scipy, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial
from statsmodels.stats.inter_rater import cohens_kappa

from nblib.evaluation.intervals import (
    cohen_kappa,
    kappa_interval,
    mean_difference_test,
    mean_interval,
    rate_difference_test,
    smallest_detectable,
    wilson_interval,
)

SHARES = st.lists(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.9, 1.0]), min_size=1, max_size=30)


def test_wilson_of_a_published_run():
    # 58 of 400 correct: scoring notes of the public GRPO demo, 14.5 % [11.4, 18.3].
    assert wilson_interval(58, 400) == pytest.approx((0.114, 0.183), abs=5e-4)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1319])
def test_wilson_is_scipys(n: int):
    for hits in {0, 1, n // 3, n // 2, n - 1, n}:
        expected = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
        low, high = wilson_interval(hits, n)
        assert [low, high] == pytest.approx([expected.low, expected.high], abs=1e-12)
        assert (low == 0, high == 1) == (hits == 0, hits == n)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [
        # Fagerland, Lydersen, Laake (2013), tables 1 and 2: exact conditional test.
        (7, 1, 0.0703),
        (16, 6, 0.0525),
        (5, 1, 14 / 64),  # 1 against 5 of 6: 2 (C(6,0) + C(6,1)) / 2^6
    ],
)
def test_p_of_rates_is_mcnemars_exact_one(gained, lost, p_value):
    assert rate_difference_test(gained, lost, 161)[1] == pytest.approx(p_value, abs=5e-5)


def test_without_a_discordant_item_nothing_is_shown_and_little_is_known():
    limit = 1 - 0.025 ** (1 / 4)  # of the share of discordant items: (1 - share)^4 = 0.025
    assert rate_difference_test(0, 0, 4) == (pytest.approx((-limit, limit)), 1.0)


def test_interval_of_one_item():
    """Gained: the chance that it is gained if discordant is above 0.025, and 2 * 0.025 - 1."""
    assert rate_difference_test(1, 0, 1)[0] == pytest.approx((-0.95, 1.0))
    assert rate_difference_test(0, 1, 1)[0] == pytest.approx((-1.0, 0.95))


@pytest.mark.parametrize(("gained", "lost"), [(9, 1), (6, 6), (40, 17)])
def test_interval_where_all_items_are_discordant_is_that_of_clopper_and_pearson(gained, lost):
    exact = binomtest(gained, gained + lost).proportion_ci(0.95)
    low, high = rate_difference_test(gained, lost, gained + lost)[0]
    assert (low > 0, high < 1) == (exact.low > 0.5, True)
    if low < 0:  # above 0 the share itself is uncertain, and its lower limit below 1
        assert low == pytest.approx(2 * exact.low - 1, abs=1e-6)
    assert high == pytest.approx(2 * exact.high - 1, abs=1e-6)


def test_interval_of_many_items_is_the_melded_one_and_near_the_normal_one():
    rng = np.random.default_rng(0)
    share, gained = (
        rng.beta([50, 51], [151, 150], (400_000, 2)),
        rng.beta([35, 36], [16, 15], (400_000, 2)),
    )
    drawn = share * (2 * gained - 1)
    melded = (np.quantile(drawn[:, 0], 0.025), np.quantile(drawn[:, 1], 0.975))
    ci95, _ = rate_difference_test(35, 15, 200)
    assert ci95 == pytest.approx(melded, abs=3e-4)
    # 0.1 -+ 1.96 sqrt((50 - 20^2 / 200) / 200^2)
    assert ci95 == pytest.approx((0.0321, 0.1679), abs=0.007)


def test_interval_leaves_zero_out_exactly_where_the_test_finds_a_difference():
    """For every number of discordant items, the last table that shows nothing and the first."""
    for discordant in range(1, 40):
        p_values = [binomtest(lost, discordant).pvalue for lost in range(discordant // 2 + 1)]
        shown = sum(p < 0.05 for p in p_values)
        for lost in {max(0, shown - 1), min(shown, discordant // 2)}:
            for n in (discordant, 3 * discordant):
                (low, high), p_value = rate_difference_test(discordant - lost, lost, n)
                assert (low > 0) == (p_value < 0.05), (discordant, lost, n)
                assert low < (discordant - 2 * lost) / n <= high


def test_interval_covers_the_true_difference_at_least_as_often_as_it_says():
    n = 10
    tables = [(g, lost) for g in range(n + 1) for lost in range(n + 1 - g)]
    low, high = np.array([rate_difference_test(g, lost, n)[0] for g, lost in tables]).T
    for share in (0.02, 0.1, 0.3, 0.6, 0.95, 1.0):
        for gained in (0.0, 0.1, 0.5, 0.7, 1.0):
            chances = (share * gained, share * (1 - gained), 1 - share)
            seen = multinomial.pmf([(g, lost, n - g - lost) for g, lost in tables], n, chances)
            true = chances[0] - chances[1]
            assert seen[(low <= true + 1e-9) & (true - 1e-9 <= high)].sum() > 0.95, chances


def test_of_one_value_a_mean_can_be_anything():
    """A resample is one of 0, the value and 1, each a third of the time."""
    for value in (0.0, 0.3, 1.0):
        assert mean_interval([value]) == (0.0, 1.0)
        assert mean_difference_test([value])[0] == (-1.0, 1.0)


def test_interval_of_two_values_by_hand():
    """Of 16 resamples of 0, 0.5, 0.5 and 1 one is 0, 0 and one is 1, 1: 6.25 % at each end."""
    assert mean_interval([0.5, 0.5]) == (0.0, 1.0)
    # Of 1, 1, 1, 0 the mean is 1 in 56 %, 0.5 in 38 %, 0 in 6 %.
    assert mean_interval([1.0, 1.0]) == (0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_values_that_are_all_alike_leave_a_mean_uncertain(value):
    """About one resample in three lacks the 0, and one in three the 1."""
    low, high = mean_interval([value] * 100)
    assert 0.01 < high - low < 0.06 and low <= value <= high
    (low, high), p_value = mean_difference_test([0.0] * 100)
    assert low < -0.02 and high > 0.02 and p_value == 1.0


def test_interval_of_a_mean_is_near_the_normal_one_and_the_same_each_time():
    values = np.random.default_rng(0).beta(2, 2, 400).tolist()
    half = 1.96 * np.std(values) / math.sqrt(400)
    found = mean_interval(values)
    assert found == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.004)
    assert mean_interval(values[::-1]) == found


@settings(max_examples=60, deadline=None)
@given(SHARES, st.data())
def test_interval_and_p_of_a_mean_never_contradict_each_other(first, data):
    second = data.draw(st.lists(st.sampled_from(first), min_size=len(first), max_size=len(first)))
    differences = [b - a for a, b in zip(first, second, strict=True)]
    (low, high), p_value = mean_difference_test(differences)
    assert (low > 0 or high < 0) == (p_value < 0.05)
    assert -1 <= low <= sum(differences) / len(differences) + 1e-9
    assert sum(differences) / len(differences) - 1e-9 <= high <= 1
    if sorted(differences) != sorted(-value for value in differences):
        assert mean_difference_test([-value for value in differences]) == ((-high, -low), p_value)
    low, high = mean_interval(first)
    assert 0 <= low < high <= 1 and low - 1e-9 <= sum(first) / len(first) <= high + 1e-9


def test_p_of_a_mean_falls_below_five_percent_where_the_interval_leaves_zero():
    spread = np.random.default_rng(3).uniform(-0.3, 0.3, 40)
    found = [mean_difference_test((spread + shift).tolist()) for shift in np.arange(0, 0.2, 0.001)]
    assert [low > 0 for (low, _), _ in found] == [p_value < 0.05 for _, p_value in found]
    assert (
        0.04 < max(p for _, p in found if p < 0.05) < min(p for _, p in found if p >= 0.05) < 0.06
    )


DISTRIBUTIONS = {  # drawn from a generator and a size, with their mean
    "symmetric": (lambda rng, n: rng.beta(2, 2, n), 0.5),
    "skewed": (lambda rng, n: rng.beta(5, 1, n), 5 / 6),
    "both ends": (lambda rng, n: rng.beta(0.5, 0.5, n), 0.5),
    "near zero": (lambda rng, n: rng.beta(0.2, 2, n), 1 / 11),
    "mostly ones": (lambda rng, n: np.where(rng.random(n) < 0.95, 1, rng.random(n)), 0.975),
    "ones and halves": (lambda rng, n: np.where(rng.random(n) < 0.9, 1, 0.5), 0.95),
    "two values": (lambda rng, n: np.where(rng.random(n) < 0.3, 0.6, 0.4), 0.46),
    "rare ones": (lambda rng, n: (rng.random(n) < 0.05).astype(float), 0.05),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [5, 20, 60])
def test_interval_of_a_mean_covers_the_true_one(name, n, few_resamples):
    draw, true = DISTRIBUTIONS[name]
    rng = np.random.default_rng(n)
    found = [mean_interval(draw(rng, n).tolist()) for _ in range(500)]
    covered = sum(low <= true <= high for low, high in found)
    assert covered / 500 > 0.93  # 0.94 less a standard error


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [5, 20, 60])
def test_without_a_difference_of_means_few_are_found(name, n, few_resamples):
    draw, _ = DISTRIBUTIONS[name]
    rng = np.random.default_rng(n)
    pairs = ((draw(rng, n), draw(rng, n)) for _ in range(500))
    found = [mean_difference_test((after - before).tolist()) for before, after in pairs]
    assert sum(p_value < 0.05 for _, p_value in found) / 500 <= 0.06
    assert all((low > 0 or high < 0) == (p < 0.05) for (low, high), p in found)


def test_smallest_detectable_by_hand():
    # sqrt(.25) (1.95996 sqrt(400) + 0.84162 sqrt(400 - 3.84146 + 0.70833)) / (400 + 0.70833)
    assert smallest_detectable(400, 0.25) == pytest.approx(0.069834, abs=2e-6)
    # (1.95996 + 0.84162) 0.3 / sqrt(400)
    assert smallest_detectable(400, 0.3, kind="mean") == pytest.approx(0.042024, abs=2e-6)


@given(st.integers(50, 5000), st.floats(0.1, 1.0))
def test_smallest_detectable_solves_connors_sample_size(n, share):
    d = smallest_detectable(n, share)
    if math.isfinite(d):
        size = (1.9599640 * math.sqrt(share) + 0.8416212 * math.sqrt(share - d * d)) ** 2 / d**2
        assert size == pytest.approx(n, rel=1e-5)


def test_smallest_detectable_is_found_by_the_exact_test_about_as_often_as_it_says():
    """The exact test is somewhat stricter than the approximation: a few points less."""
    n, share = 400, 0.25
    d = smallest_detectable(n, share)
    power = 0.0
    for discordant in range(1, n + 1):
        counts = np.arange(discordant + 1)
        p_values = np.minimum(
            1, 2 * binom.cdf(np.minimum(counts, discordant - counts), discordant, 0.5)
        )
        found = binom.pmf(counts[p_values <= 0.05], discordant, (1 + d / share) / 2).sum()
        power += binom.pmf(discordant, n, share) * found
    assert 0.74 < power < 0.80


def test_smallest_detectable_of_a_mean_is_found_about_as_often_as_it_says(few_resamples):
    rng, n, deviation = np.random.default_rng(0), 100, 0.2
    with_both_ends = math.sqrt((n * deviation**2 + 2) / (n + 2))
    d = smallest_detectable(n, with_both_ends, kind="mean")
    drawn = rng.uniform(d - deviation * math.sqrt(3), d + deviation * math.sqrt(3), (400, n))
    found = [mean_difference_test(differences.tolist())[1] < 0.05 for differences in drawn]
    assert 0.75 < np.mean(found) < 0.95


def test_smallest_detectable_of_too_few_items_is_out_of_reach():
    assert smallest_detectable(2, 0.5) == math.inf
    assert smallest_detectable(20, 0.1) == math.inf  # two discordant items
    assert smallest_detectable(1, 0.5, kind="mean") == math.inf


@pytest.fixture
def few_resamples(monkeypatch):
    """A tenth of the resamples, for simulations of hundreds of stages."""
    from nblib.evaluation import intervals

    monkeypatch.setattr(intervals, "_RESAMPLES", 1000)
    monkeypatch.setattr(intervals, "_END", 24)


def test_kappa_by_hand():
    assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)  # Cohen's own kind of table
    assert cohen_kappa([[30, 0], [0, 30]]) == 1
    assert cohen_kappa([[30, 0], [30, 0]]) == 0
    assert cohen_kappa([[0, 10], [10, 0]]) == -1
    assert cohen_kappa([[5, 0], [0, 0]]) is None and cohen_kappa([[0, 0], [0, 0]]) is None


def test_the_interval_of_kappa_holds_it_and_narrows():
    low, high = kappa_interval([[20, 5], [10, 15]])
    by_formula = cohens_kappa(np.array([[20, 5], [10, 15]]))  # Fleiss, Cohen and Everitt (1969)
    assert by_formula.kappa == pytest.approx(0.4)
    assert low == pytest.approx(by_formula.kappa_low, abs=0.05)
    assert high == pytest.approx(by_formula.kappa_upp, abs=0.05)
    more = kappa_interval([[200, 50], [100, 150]])
    assert low < more[0] < 0.4 < more[1] < high
    low, high = kappa_interval([[30, 0], [0, 30]])
    assert 0.7 < low < 0.95 and high == 1  # sixty that are all alike are not certain
    assert kappa_interval([[0, 0], [0, 0]]) == (-1, 1)
    assert kappa_interval([[20, 5], [10, 15]]) == kappa_interval([[20, 5], [10, 15]])
