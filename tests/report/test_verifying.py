"""The table of a verifier: one that is trusted, one that is not, and one that says nothing."""

from nblib.evaluation.verifier import VerifierCalibration
from nblib.report.verifying import verifier_tables

MADE = {"right: latex": (33, 40), "wrong: empty": (40, 40), "wrong: injection": (38, 40)}


def rows_of(false_accepts, false_rejects, made=MADE, **outcomes):
    found = VerifierCalibration(
        **{"false_accepts": false_accepts, "false_rejects": false_rejects},
        **{"made": made, "outcomes": outcomes},
    )
    (table,) = verifier_tables(found, "m")
    assert table.title == "How far the verifier m is to be believed"
    assert table.note.endswith("false accepts are at most 10%, at the upper end")
    return found, dict(table.rows)


def test_a_trusted_verifier_is_shown_with_its_errors_and_each_attack():
    _, rows = rows_of((2, 80), (4, 37), right=35, wrong=82, unsure=2, failed=1)
    assert rows == {
        "verdict": "✓ trusted",
        "false accepts": "0.03 [0.01, 0.09] (2 of 80)",
        "false rejects": "0.11 [0.04, 0.25] (4 of 37)",
        **{"unsure": "2", "failed": "1", "not asked": "0"},
        "right: latex": "33 of 40 accepted",
        "wrong: empty": "40 of 40 refused",
        "wrong: injection": "38 of 40 refused",
    }


def test_of_one_that_is_not_trusted_the_reason_stands_first():
    found, rows = rows_of((9, 80), (0, 40), right=49, wrong=71)
    assert next(iter(rows.items())) == ("verdict", f"✗ not trusted: {found.problem}")
    assert "9 of 80 wrong proofs" in found.problem


def test_where_nothing_was_decided_there_is_no_rate():
    _, rows = rows_of((0, 0), (0, 0), made={}, unsent=120)
    assert (rows["false accepts"], rows["false rejects"], rows["not asked"]) == ("–", "–", "120")
    assert "too few" in rows["verdict"]
