import pytest

from nblib.report.verdicts import at_least, at_most, verdict_table


def test_limits_belong_to_the_good_side():
    assert at_least("a", 0.99, 0.99, "").met and at_most("b", 3.0, 3.0, "").met
    assert not at_least("a", 0.98, 0.99, "").met and not at_most("b", 3.1, 3.0, "").met


def test_nan_is_never_met():
    assert not at_least("a", float("nan"), 0.0, "").met
    assert not at_most("b", float("nan"), 9.0, "").met


def test_wording():
    verdict = at_most("parameters", 3_988_224, 4_000_000, "use a smaller size")
    assert (verdict.target, verdict.measured, verdict.word) == (
        "at most 4,000,000",
        "3,988,224",
        "met",
    )


def test_rounding_never_shows_a_missed_limit_as_reached():
    assert at_least("a", 0.98999, 0.99, "").measured == "0.98999"


def test_table_is_aligned_and_advises_only_where_missed():
    table = verdict_table(
        [
            at_least("format", 0.995, 0.99, "unseen"),
            at_least("answers extractable", 0.5, 0.7, "train\nlonger"),
        ]
    )
    assert table.splitlines() == [
        "verdict  what                 target         measured  what to try next",
        "met      format               at least 0.99  0.995",
        "NOT MET  answers extractable  at least 0.7   0.5       train longer",
    ]


def test_no_verdicts():
    assert verdict_table([]) == "no verdicts"


def test_a_verdict_is_frozen():
    with pytest.raises(AttributeError):
        at_least("a", 1, 1, "").met = False
