"""Paired figures by hand, by published tables, and their symmetry."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from nblib.evaluation.paired import (
    Paired,
    paired_by_level,
    paired_comparison,
    paired_table,
    smallest_detectable,
)
from nblib.files import to_jsonable


def records(flags, *, field="correct", levels=None):
    return [
        {"id": f"item/{index}", "reference": str(index), field: flag, "level": level}
        for index, (flag, level) in enumerate(
            zip(flags, levels or [None] * len(flags), strict=True)
        )
    ]


def two_stages(both, only_first, only_second, neither):
    pairs = [(True, True)] * both + [(True, False)] * only_first
    pairs += [(False, True)] * only_second + [(False, False)] * neither
    first, second = zip(*pairs, strict=True)
    return records(first), records(second)


def test_counts_difference_and_p_by_hand():
    # 1 against 5 of 6: 2 (C(6,0) + C(6,1)) / 2^6 = 14/64.
    paired = paired_comparison(*two_stages(3, 1, 5, 1))
    assert (paired.n, paired.rate) == (10, "answer_accuracy")
    assert (paired.both_right, paired.only_first) == (3, 1)
    assert (paired.only_second, paired.neither) == (5, 1)
    assert paired.difference == pytest.approx(0.4)  # 8 of 10 against 4 of 10
    assert paired.p_value == pytest.approx(14 / 64)


@pytest.mark.parametrize(
    ("table", "p_value"),
    [
        # Fagerland, Lydersen, Laake (2013), tables 1 and 2: exact conditional test.
        ((1, 1, 7, 12), 0.0703),
        ((59, 6, 16, 80), 0.0525),
    ],
)
def test_published_examples(table, p_value):
    assert paired_comparison(*two_stages(*table)).p_value == pytest.approx(p_value, abs=5e-5)


def compared(gained, lost, n):
    return paired_comparison(*two_stages(n - gained - lost, lost, gained, 0))


def test_without_a_discordant_item_nothing_is_shown_and_little_is_known():
    paired = compared(0, 0, 4)
    assert (paired.difference, paired.p_value) == (0.0, 1.0)
    limit = 1 - 0.025 ** (1 / 4)  # of the share of discordant items: (1 - share)^4 = 0.025
    assert paired.ci95 == pytest.approx((-limit, limit))


def test_interval_of_one_item():
    """Gained: the chance that it is gained if discordant is above 0.025, and 2 * 0.025 - 1."""
    assert compared(1, 0, 1).ci95 == pytest.approx((-0.95, 1.0))
    assert compared(0, 1, 1).ci95 == pytest.approx((-1.0, 0.95))


@pytest.mark.parametrize(("gained", "lost"), [(9, 1), (6, 6), (40, 17)])
def test_interval_where_all_items_are_discordant_is_that_of_clopper_and_pearson(gained, lost):
    exact = binomtest(gained, gained + lost).proportion_ci(0.95)
    low, high = compared(gained, lost, gained + lost).ci95
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
    paired = compared(35, 15, 200)
    assert paired.ci95 == pytest.approx(melded, abs=3e-4)
    # 0.1 -+ 1.96 sqrt((50 - 20^2 / 200) / 200^2)
    assert paired.ci95 == pytest.approx((0.0321, 0.1679), abs=0.007)


def test_interval_leaves_zero_out_exactly_where_the_test_finds_a_difference():
    """For every number of discordant items, the last table that shows nothing and the first."""
    for discordant in range(1, 40):
        p_values = [binomtest(lost, discordant).pvalue for lost in range(discordant // 2 + 1)]
        shown = sum(p < 0.05 for p in p_values)
        for lost in {max(0, shown - 1), min(shown, discordant // 2)}:
            for n in (discordant, 3 * discordant):
                paired = compared(discordant - lost, lost, n)
                assert (paired.ci95[0] > 0) == (paired.p_value < 0.05), (discordant, lost, n)
                assert paired.ci95[0] < paired.difference <= paired.ci95[1]


def test_interval_covers_the_true_difference_at_least_as_often_as_it_says():
    n = 10
    tables = [(g, lost) for g in range(n + 1) for lost in range(n + 1 - g)]
    low, high = np.array([compared(g, lost, n).ci95 for g, lost in tables]).T
    for share in (0.02, 0.1, 0.3, 0.6, 0.95, 1.0):
        for gained in (0.0, 0.1, 0.5, 0.7, 1.0):
            chances = (share * gained, share * (1 - gained), 1 - share)
            seen = multinomial.pmf([(g, lost, n - g - lost) for g, lost in tables], n, chances)
            true = chances[0] - chances[1]
            assert seen[(low <= true + 1e-9) & (true - 1e-9 <= high)].sum() > 0.95, chances


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any), st.randoms(use_true_random=False))
def test_swapped_stages_and_another_order_of_the_items(table, random):
    first, second = two_stages(*table)
    paired = paired_comparison(first, second)
    back = paired_comparison(second, first)
    assert back.difference == -paired.difference
    assert back.p_value == pytest.approx(paired.p_value)
    assert (back.only_first, back.only_second) == (paired.only_second, paired.only_first)
    assert paired.ci95[0] <= paired.difference <= paired.ci95[1]
    random.shuffle(second)
    assert paired_comparison(first, second) == paired


def test_another_field_has_its_rates_name():
    first = records([True, False], field="joint")
    assert paired_comparison(first, first, field="joint").rate == "joint_accuracy"
    with pytest.raises(ValueError, match="'item/0': format is None, expected true or false"):
        paired_comparison(first, first, field="format")


def test_other_items_are_refused_by_name():
    both = records([True, False, True])
    with pytest.raises(ValueError, match=r"second stage lacks 1 items .* 'item/2'"):
        paired_comparison(both, both[:2])
    with pytest.raises(ValueError, match=r"first stage lacks 1 items .* 'item/2'"):
        paired_comparison(both[:2], both)
    with pytest.raises(ValueError, match="'item/1' repeats in the second stage"):
        paired_comparison(both, [*both, both[1]])
    other = [both[0], {**both[1], "reference": "7"}, both[2]]
    with pytest.raises(ValueError, match=r"'item/1' has the reference '1' .* '7' in the second"):
        paired_comparison(both, other)
    with pytest.raises(ValueError, match="first stage has no records"):
        paired_comparison([], both)


def test_by_level_lowest_first_and_without_items_of_none():
    levels = [2, 1, 2, None, 1]
    first = records([False, False, True, True, True], levels=levels)
    second = records([True, False, True, False, True], levels=levels)
    by_level = paired_by_level(first, second[::-1])
    assert list(by_level) == [1, 2]
    assert (by_level[1].n, by_level[1].only_second, by_level[1].both_right) == (2, 0, 1)
    assert (by_level[2].n, by_level[2].only_second, by_level[2].both_right) == (2, 1, 1)
    with pytest.raises(ValueError, match="lacks"):
        paired_by_level(first, second[1:])


def test_table_in_points_with_counts():
    paired = paired_comparison(*two_stages(3, 1, 5, 1))
    low, high = (f"{100 * bound:+.1f}" for bound in paired.ci95)
    clear = replace(paired, p_value=0.0004, difference=-0.123, ci95=(-0.2, -0.05))
    assert paired_table({"base_to_tuned": paired, "a|b": clear}).splitlines() == [
        "| compared | rate | n | difference, points | p | both | only first | only second "
        "| neither |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| base to tuned | answer accuracy | 10 | +40.0 [{low}, {high}] | 0.219 | 3 | 1 | 5 | 1 |",
        "| a\\|b | answer accuracy | 10 | -12.3 [-20.0, -5.0] | < 0.001 | 3 | 1 | 5 | 1 |",
    ]


def test_it_goes_into_json_as_it_is():
    content = to_jsonable(paired_comparison(*two_stages(3, 1, 5, 1)))
    assert json.loads(json.dumps(content)) == content
    assert content["ci95"] == list(content["ci95"])


@pytest.mark.parametrize(
    ("field", "value"), [("n", 11), ("only_first", -1), ("ci95", (0.3, 0.2)), ("p_value", 1.5)]
)
def test_contradictions_are_refused(field, value):
    good = paired_comparison(*two_stages(3, 1, 5, 1))
    with pytest.raises(ValueError, match=str(value).replace("(", r"\(").replace(")", r"\)")):
        replace(good, **{field: value})
    assert isinstance(good, Paired)


def test_smallest_detectable_by_hand():
    # sqrt(.25) (1.95996 sqrt(400) + 0.84162 sqrt(400 - 3.84146 + 0.70833)) / (400 + 0.70833)
    assert smallest_detectable(400, 0.25) == pytest.approx(0.069834, abs=2e-6)


@given(st.integers(50, 5000), st.floats(0.1, 1.0), st.sampled_from([0.5, 0.8, 0.9]))
def test_smallest_detectable_solves_connors_sample_size(n, share, power):
    z_power = {0.5: 0.0, 0.8: 0.8416212, 0.9: 1.2815516}[power]
    d = smallest_detectable(n, share, power)
    if math.isfinite(d):
        size = (1.9599640 * math.sqrt(share) + z_power * math.sqrt(share - d * d)) ** 2 / d**2
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


def test_smallest_detectable_of_too_few_items_is_out_of_reach():
    assert smallest_detectable(2, 0.5) == math.inf
    assert smallest_detectable(20, 0.1) == math.inf  # two discordant items


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((0, 0.2), "n is 0"), ((9, 0.0), "discordant_share is 0.0"), ((9, 0.2, 1.0), "power is 1.0")],
)
def test_smallest_detectable_names_what_is_wrong(arguments, named):
    with pytest.raises(ValueError, match=named):
        smallest_detectable(*arguments)
