"""Tables of proofs: each line with its mark, and why proofs are refused."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from nblib.evaluation.answers import score_answers
from nblib.evaluation.comparison import failure_counts
from nblib.evaluation.proof_judging import JudgedProofs
from nblib.evaluation.verifier import VerifierCalibration
from nblib.report.proofs import (
    marked_proof,
    proof_failures_table,
    proof_losses_table,
    proof_rows_table,
    proof_samples_table,
    proof_table,
)
from nblib.report.samples import pick_samples
from nblib.report.verifying import judged_proofs_tables
from nblib.sources.datasets import get_dataset
from nblib.tasks.proofs import FAILURES, PROOFS
from nblib.tasks.task import Example
from nblib.tasks.text_proofs import TEXT_PROOFS

STATEMENT = "a^2+b^2+c^2 >= ab+bc+ca for real a, b, c"
RIGHT = "Square a-b cyclic: a^2+b^2 >= 2ab\nSum 1/2(1): a^2+b^2+c^2 >= ab+bc+ca"
OTHER = "Square a-b: a^2+b^2 >= 2ab"
WRONG = RIGHT.replace("1/2(1)", "1/3(1)")
EXAMPLE = Example(
    id="1", prompt="Prove", completion=f"<proof>\n{RIGHT}\n</proof>", reference=STATEMENT, group="x"
)


def block(proof):
    return f"<proof>\n{proof}\n</proof>"


def test_each_line_has_its_mark_and_a_bad_one_says_why():
    assert marked_proof(EXAMPLE.completion, EXAMPLE).splitlines() == [
        f"✓ {line}" for line in RIGHT.splitlines()
    ]
    first, last = marked_proof(block(WRONG), EXAMPLE).splitlines()
    assert first == "✓ Square a-b cyclic: a^2+b^2 >= 2ab"
    assert last.startswith("✗ Sum 1/3(1): a^2+b^2+c^2 >= ab+bc+ca   [") and last.endswith("]")


@pytest.mark.parametrize("text", ["It is obvious.", "<proof>\nSquare a-", ""])
def test_a_text_without_a_proof_is_shown_as_it_is(text):
    assert marked_proof(text, EXAMPLE) == text


def test_text_around_a_proof_is_said_below_its_lines():
    *lines, last = marked_proof(f"{block(RIGHT)}\nDone.", EXAMPLE).splitlines()
    assert lines == [f"✓ {line}" for line in RIGHT.splitlines()] and last == "✗ text outside"


def test_a_proof_of_something_else_has_right_lines_and_a_last_word():
    *lines, last = marked_proof(block(OTHER), EXAMPLE).splitlines()
    assert lines == [f"✓ {OTHER}"] and last.startswith("✗ ")


def test_examples_are_shown_as_the_checker_sees_them():
    table = proof_table(PROOFS, (EXAMPLE,))
    assert table.columns == ("technique", "statement", "proof")
    assert table.rows == (("x", STATEMENT, marked_proof(EXAMPLE.completion, EXAMPLE)),)


def test_rows_are_counted_by_technique_and_split():
    rows = [
        SimpleNamespace(fields={"technique": name, "proof": proof})
        for name, proof in (("AM-GM", "a"), ("chain", "a\nb\nc"), ("AM-GM", "a"), ("chain", "a\nb"))
    ]
    data = SimpleNamespace(train=rows[:3], test=rows[3:], origin="made here")
    table = proof_rows_table(PROOFS, data)
    assert table.columns == ("technique", "lines", "train", "test")
    assert table.rows == (("AM-GM", "1", "2", "0"), ("chain", "2 or 3", "1", "1"))


def stage(name, *completions):
    answers = [
        {"id": str(n), "completion": text, "question": "", "reference": STATEMENT, "group": "x"}
        | {"truncated": False}
        for n, text in enumerate(completions)
    ]
    return score_answers(name, answers, PROOFS)


BASE = stage("base", "It is obvious.", block(WRONG), block(WRONG))
TUNED = stage("tuned", block(RIGHT), block(WRONG), block(OTHER))


def test_samples_stand_beside_each_other_line_by_line():
    picked = pick_samples(PROOFS, (BASE, TUNED), count=3, seed=0)
    table = proof_samples_table(PROOFS, picked)
    assert table.columns == ("item", "technique", "statement", "base", "tuned")
    cells = {row[0][0]: row[3:] for row in table.rows}
    assert {row[0] for row in table.rows} >= {"0\nnewly right", "1\nwrong at the end"}
    assert cells["0"][0] == "✗ no proof block\nIt is obvious."
    assert cells["0"][1] == f"✓ verified\n{marked_proof(block(RIGHT), EXAMPLE)}"
    assert cells["1"][1] == f"✗ Sum fails\n{marked_proof(block(WRONG), EXAMPLE)}"
    assert proof_samples_table(PROOFS, ()).rows == ()


def test_refused_proofs_are_counted_by_their_first_bad_line():
    stages = (BASE, TUNED)
    table = proof_failures_table(PROOFS, stages, failure_counts(stages, PROOFS))
    assert table.columns == ("first bad line", "base", "tuned", "one of them", "what to do")
    found = {kind: (before, after, one, advice) for kind, before, after, one, advice in table.rows}
    assert found["Sum fails"][:2] == ("2", "1")
    assert found["Sum fails"][2].startswith("Sum 1/3(1): a^2+b^2+c^2 >= ab+bc+ca\n")
    assert found["another conclusion"][:2] == ("0", "1")
    assert found["no proof block"][:3] == ("1", "0", "It is obvious.")
    assert all(advice == FAILURES[kind] for kind, (*_, advice) in found.items())
    assert proof_failures_table(PROOFS, (), {}).rows == ()


def test_a_proof_that_was_cut_is_shown_as_cut_and_as_nothing_else():
    before, cut = stage("base", "No."), stage("tuned", "<proof>\nSquare a-")
    cut.records[0]["truncated"] = True
    table = proof_failures_table(PROOFS, (before, cut), failure_counts((before, cut), PROOFS))
    found = {kind: (first, last, one) for kind, first, last, one, _ in table.rows}
    assert found["truncated"] == ("0", "1", "<proof>\nSquare a-")
    assert found["no proof block"] == ("1", "0", "No.")


def test_built_in_rows_have_a_table_and_a_marked_proof():
    data = get_dataset("builtin", task="proofs", num_train=30, num_test=10, seed=1)
    assert sum(int(row[2]) for row in proof_rows_table(PROOFS, data).rows) == 30
    for one in PROOFS.examples(data.train):
        lines = marked_proof(one.completion, one).splitlines()
        assert lines and all(line.startswith("✓ ") for line in lines)


def test_what_became_of_generated_proofs_is_counted_with_what_to_do():
    def row(**fields):
        return SimpleNamespace(fields={"statement": STATEMENT, "proof": "", **fields})

    judged = {"verdict": "judged", "reason": "", "false_accepts_at_most": 0.072}
    rows = [row(**judged), row(verdict="lost", reason="truncated"), row(**judged), row()]
    table = proof_losses_table(SimpleNamespace(train=rows[:3], test=rows[3:]))
    assert table.columns[2] == "rows of 4"
    assert table.rows == (
        ("judged", "", "2", "0.500", "its verifier's false accepts: at most 7.2%"),
        ("lost", "truncated", "1", "0.250", "raise --max-tokens"),
    )
    none = proof_losses_table(SimpleNamespace(train=[row()], test=[]))
    assert none.rows == () and none.note == ""


def test_a_free_text_has_no_marks_and_what_its_judge_said_is_a_table_of_its_own():
    text = replace(EXAMPLE, completion="<proof>\nClear.\n</proof>")
    assert proof_table(TEXT_PROOFS, (text,)).rows[0][2] == text.completion
    calibration = VerifierCalibration(
        false_accepts=(0, 60), false_rejects=(2, 40), made={}, outcomes={"right": 38, "wrong": 62}
    )
    words = {"base": {"1": "wrong", "2": "no proof"}, "tuned": {"1": "right", "2": "unsure"}}
    judged = JudgedProofs(model="m", calibration=calibration, stages=words, sent=9, stopped="")
    *_, table = judged_proofs_tables(judged)
    assert [row[:8] for row in table.rows] == [
        ("base", "2", "1", "0", "1", "0", "0", "0"),
        ("tuned", "2", "0", "1", "0", "1", "0", "0"),
    ]
    assert table.rows[1][8].startswith("0.500") and "+50.0 points" in table.note
    lenient = replace(calibration, false_accepts=(20, 60))
    *_, table = judged_proofs_tables(replace(judged, calibration=lenient))
    assert {row[8] for row in table.rows} == {"no figure"} and "points" not in table.note
    cut = {"base": words["base"], "tuned": {"1": "unsent", "2": "unsent"}}
    *_, table = judged_proofs_tables(replace(judged, stages=cut))  # as where a budget was spent
    assert table.rows[1][8] == "no figure" and "points" not in table.note
    assert judged_proofs_tables(None) == ()
