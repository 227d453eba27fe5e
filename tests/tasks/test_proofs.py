"""The task of proofs: scores, rewards, rows, and any text at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.__main__ import main
from nblib.files import to_jsonable
from nblib.sources.rows import Row
from nblib.tasks.proof_check import MAX_LINES
from nblib.tasks.proof_text import RULES
from nblib.tasks.proofs import FAILURES, PROOFS, proof_lines, score
from nblib.tasks.rewards import reward_function, reward_weights
from nblib.tasks.task import Example, check_task
from tests.tasks.right_proofs import RIGHT

STATEMENT = "a^2+b^2+c^2 >= ab+bc+ca for real a, b, c"
SQUARE = "Square a-b cyclic: a^2+b^2 >= 2ab"
LAST = "Sum 1/2(1): a^2+b^2+c^2 >= ab+bc+ca"
WRONG = "Sum 1/3(1): a^2+b^2+c^2 >= ab+bc+ca"


def example(reference=STATEMENT):
    return Example(id="1", prompt="", completion="", reference=reference)


def block(*lines):
    return "\n".join(["<proof>", *lines, "</proof>"])


RIGHT_BLOCK = block(SQUARE, LAST)


@pytest.mark.parametrize(
    ("completion", "failure", "verified", "form", "steps", "used"),
    [
        (RIGHT_BLOCK, None, 1, 1, 1, 1),
        (f"\n {RIGHT_BLOCK.replace(chr(10), chr(10) + ' ')}\n\n", None, 1, 1, 1, 1),
        (RIGHT_BLOCK.replace("\n", "\r\n"), None, 1, 1, 1, 1),
        (f"<proof>{SQUARE}\n{LAST}</proof>", None, 1, 1, 1, 1),
        (block(SQUARE, WRONG), "Sum fails", 0, 1, 1 / 2, 1 / 2),
        (block(SQUARE, "Square a: a^2 >= 0", LAST), None, 1, 1, 1, 1),
        (block(SQUARE, "Square a: a^2 >= 1", LAST), "Square fails", 0, 1, 2 / 3, 1),
        (block(SQUARE), "cyclic", 0, 1, 1, 0),
        (block("Square a: a^2 >= 0"), "another conclusion", 0, 1, 1, 0),
        (block("Sum (1): a^2+b^2+c^2 >= ab+bc+ca"), "unknown step", 0, 1, 0, 0),
        (block(SQUARE, "So it follows.", LAST), "unreadable line", 0, 0, 0, 0),
        (block(SQUARE, "", LAST), "unreadable line", 0, 0, 0, 0),
        (block(SQUARE, "Schur a, b, c: a >= b", LAST), "unknown rule", 0, 0, 0, 0),
        (block(SQUARE, LAST.replace("1/2(1)", "(1)-(1)")), "wrong arguments", 0, 0, 0, 0),
        (block(), "unreadable line", 0, 0, 0, 0),
        (block(*[SQUARE] * MAX_LINES, LAST), "too long", 0, 0, 0, 0),
        (block(SQUARE + " " * 10**6, LAST), "too long", 0, 0, 0, 0),
        (f"So: {RIGHT_BLOCK}", "text outside", 0, 0, 0, 0),
        (f"{RIGHT_BLOCK}.", "text outside", 0, 0, 0, 0),
        (RIGHT_BLOCK * 2, "several blocks", 0, 0, 0, 0),
        (block(RIGHT_BLOCK), "several blocks", 0, 0, 0, 0),
        (f"{RIGHT_BLOCK}</proof>", "several blocks", 0, 0, 0, 0),
        (RIGHT_BLOCK.removesuffix("</proof>"), "no proof block", 0, 0, 0, 0),
        (f"</proof>{SQUARE}<proof>", "no proof block", 0, 0, 0, 0),
        (RIGHT_BLOCK.replace("proof", "Proof"), "no proof block", 0, 0, 0, 0),
        (f"{SQUARE}\n{LAST}", "no proof block", 0, 0, 0, 0),
        ("", "no proof block", 0, 0, 0, 0),
    ],
)
def test_scores(completion, failure, verified, form, steps, used):
    found = score(completion, example())
    assert (found.failure, *found.values.values()) == (failure, verified, form, steps)
    assert PROOFS.reward_terms(completion, example()) == {"used_steps": used}
    assert failure is None or failure in FAILURES
    assert (found.answer is None) == (failure in ("no proof block", "several blocks"))


def test_what_is_said_again_or_follows_from_what_is_wrong_earns_nothing():
    wrong = example()
    claim = wrong.reference.partition(" for ")[0]
    again = [f"Square a: {claim}", *(f"So ({n}): {claim}" for n in range(1, 30))]
    padded = [
        *["Square 1: 1 >= 0"] * 30,
        f"Sum {'+'.join(f'({n + 1})' for n in range(30))}: {claim}",
    ]
    assert PROOFS.reward_terms(block(*again), wrong) == {"used_steps": 0}
    assert PROOFS.reward_terms(block(*padded), wrong) == {"used_steps": 0.5}


def test_a_failure_says_where_and_why():
    found = score(block(SQUARE, "Square a: a^2 >= 1", LAST), example())
    reason = "left - right is not the square"
    assert found.details == {
        **{"line": 2, "text": "Square a: a^2 >= 1", "reason": reason, "marks": "✓✗✓"}
    }
    assert score(RIGHT_BLOCK, example()).details == {}


def test_each_line_is_shown_with_its_mark():
    reason = "✗ left - right is not the sum of the steps' left - right"
    assert proof_lines(block(SQUARE, WRONG), example()) == [("✓", SQUARE), (reason, WRONG)]
    assert proof_lines(RIGHT_BLOCK, example()) == [("✓", SQUARE), ("✓", LAST)]
    assert proof_lines("", example()) == [("✗ no proof block", "")]
    assert proof_lines(f"So {RIGHT_BLOCK}", example())[2:] == [("✗ text outside", "")]
    other = "✗ the last line is not what is to be proved"
    assert proof_lines(block("Square a: a^2 >= 0"), example())[1:] == [(other, "")]


def test_a_wrong_proof_earns_at_most_a_fifth_of_a_right_one():
    reward = reward_function(PROOFS, reward_weights(PROOFS), max_new_tokens=100)
    earned = [reward(one, text, 10, False).reward for text, one in PROOFS.reward_examples]
    assert earned == pytest.approx([1.2, 0.1, 0, 0, 0])
    padded = block(*["Square a: a^2 >= 0"] * 20, "Sum " + "+".join(f"({n})" for n in range(1, 21))
                   + ": a^2+b^2+c^2 >= ab+bc+ca")  # fmt: skip
    assert 0 < reward(example(), padded, 10, False).reward <= 0.2


@pytest.mark.parametrize("reference", ["", "a > b for a, b > 0", "sqrt(a) >= 0 for a > 0", "18", 3])
def test_a_reference_that_cannot_be_proved_names_itself(reference):
    for judged in (score, proof_lines, PROOFS.reward_terms):
        with pytest.raises(ValueError, match=f"{reference}'".replace("(a)", ".a.")):
            judged(RIGHT_BLOCK, example(reference))
        with pytest.raises(ValueError, match=f"{reference}'".replace("(a)", ".a.")):
            judged("", example(reference))  # which is not even a block


def row(**changes):
    fields = {"statement": STATEMENT, "proof": f"{SQUARE}\n{LAST}", "technique": "Square"}
    return Row(id="rows/train/7", fields={**fields, **changes}, place="rows.jsonl line 8")


def test_rows_become_examples_that_pass_their_own_task():
    rows = [row(statement=one.statement, proof=one.proof) for one in RIGHT]
    check_task(PROOFS, PROOFS.examples(rows))
    (one,) = PROOFS.examples([row()])
    assert (one.prompt, one.completion) == (f"Prove: {STATEMENT}", RIGHT_BLOCK)
    assert (one.reference, one.group) == (STATEMENT, "Square")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"proof": f"{SQUARE}\n{WRONG}"}, "line 2, Sum fails: left - right is not"),
        ({"proof": SQUARE}, "line 1, cyclic: "),
        ({"proof": None}, "its proof is 'None', expected a text"),
        ({"technique": 3}, "its technique is '3', expected a text"),
        ({"statement": "a > b for a, b > 0"}, "cannot be proved in this language"),
    ],
)
def test_a_row_without_a_right_proof_is_named(changes, complaint):
    with pytest.raises(ValueError, match=r"rows.jsonl line 8 \(rows/train/7\): ") as error:
        PROOFS.examples([row(), row(**changes)])
    assert complaint in str(error.value)


def test_the_command_line_prints_all_figures(tmp_path, capsys):
    path = tmp_path / "proofs.jsonl"
    lines = [RIGHT_BLOCK, block(SQUARE, WRONG), "Clearly."]
    records = [{"reference": STATEMENT, "completion": line} for line in lines]
    path.write_text("\n".join(map(json.dumps, records)))
    assert main(["score", str(path), "--task", "proofs"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failures"] == {"Sum fails": 1, "no proof block": 1}
    assert [found[name] for name in PROOFS.metric_names] == pytest.approx([1 / 3, 2 / 3, 1 / 2])


MARKS = [*"abc0123456789+-*/^()=:;, \n\0", ">=", " of ", " cyclic", "(1)", "1/2(1)", ": ", "sqrt"]
PIECES = [*RULES, *MARKS, "<proof>", "</proof>", "a^2+b^2 >= 2ab", SQUARE, LAST, "\ud800", "\u00b2"]
PIECES_TEXT = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
ANY = st.text(st.characters(exclude_categories=())) | PIECES_TEXT


@settings(deadline=None, max_examples=400)
@given(ANY, st.booleans())
def test_any_text_has_a_score_that_a_record_can_hold(text, inside):
    completion = f"<proof>{text}</proof>" if inside else text
    found = score(completion, example())
    assert {*found.values} == {*PROOFS.metric_names}
    assert all(0 <= value <= 1 for value in found.values.values())
    assert found.failure is None or found.failure in FAILURES
    assert bool(found.values["proof_verified"]) == (found.failure is None)
    json.dumps(to_jsonable({"details": found.details, "answer": found.answer}))
    assert all(0 <= term <= 1 for term in PROOFS.reward_terms(completion, example()).values())
    assert isinstance(proof_lines(completion, example()), list)
