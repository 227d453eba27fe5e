"""The tables of a judge: one that is believed, one that is not, and none."""

from nblib.evaluation.calibration import Calibration
from nblib.evaluation.judge import Judged, JudgedStage, Verdict
from nblib.report.judging import judge_tables
from nblib.tasks.judging import Pair


def calibration(table, **outcomes):
    made = {"right: upper case": (table[0][0], sum(table[0]))}
    return Calibration(table=table, made=made, outcomes=outcomes, stable=30, swapped=40)


GOOD = calibration(((19, 1), (1, 19)), equivalent=20, not_equivalent=20, unsure=3, failed=2)
BAD = calibration(((20, 0), (20, 0)), equivalent=40)


def figures(value):
    return {"n": 10, "slot_f1": value, "slot_f1_ci95": [value - 0.1, value + 0.1]}


def stage(name, *words, after=None, most=None):
    pairs = {
        Pair(slot="s", meaning="", gold="a", answer=str(n)): Verdict(word=word)
        for n, word in enumerate(words)
    }
    return JudgedStage(
        **{"name": name, "verdicts": pairs, "before": figures(0.5)},
        **{"after": after and figures(after), "at_most": most and figures(most)},
    )


def judged(found, *stages, stopped=""):
    return Judged(
        **{"model": "m", "headline": "slot_f1", "calibration": found},
        **{"stages": stages, "sent": 99, "stopped": stopped},
    )


def test_a_judge_that_agrees_is_shown_with_its_figures():
    one = stage("tuned_x", "equivalent", "unsure", "failed", "unsent", after=0.6, most=0.7)
    agreement, table = judge_tables(judged(GOOD, one, stopped="the budget is spent"))
    rows = dict(agreement.rows)
    low, high = GOOD.record["kappa_ci95"]
    assert rows == {
        "verdict": "✓ calibrated",
        "kappa": f"0.90 [{low:.2f}, {high:.2f}]",
        "accuracy on right pairs": "0.95 (19 of 20)",
        "accuracy on wrong pairs": "0.95 (19 of 20)",
        **{"unsure": "3", "failed": "2", "not asked": "0"},
        "same verdict when exchanged": "0.75 (30 of 40)",
        "right: upper case": "19 of 20",
    }
    assert table.columns == (
        *("stage", "pairs", "equivalent", "not equivalent", "unsure", "failed", "not asked"),
        *("slot f1", "slot f1, judged", "at most"),
    )
    assert table.rows == (
        (
            *("tuned x", "4", "1", "0", "1", "1", "1"),
            *("0.500\n[0.400, 0.600] (n=10)", "0.600\n[0.500, 0.700] (n=10)", "0.700"),
        ),
    )
    assert table.note.endswith("99 requests; stopped: the budget is spent")


def test_no_figure_of_a_judge_that_does_not_agree_is_shown():
    agreement, table = judge_tables(judged(BAD, stage("tuned", "unsent")))
    assert agreement.rows[0] == (
        "verdict",
        "✗ not calibrated: its kappa is 0.00, at least 0.6 is wanted",
    )
    assert table.rows[0][-2:] == ("not calibrated", "not calibrated")


def test_where_no_slot_is_a_judges_there_is_nothing_to_agree_on():
    nothing = Calibration(table=((0, 0), (0, 0)), made={}, outcomes={}, stable=0, swapped=0)
    agreement, _ = judge_tables(judged(nothing, stage("tuned")))
    ((_, words),) = agreement.rows
    assert words == '✗ not calibrated: no slot of the examples is compared by "judge"'


def test_without_a_judge_there_is_no_table():
    assert judge_tables(None) == ()
