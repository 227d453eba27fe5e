"""Proofs as free texts: the form is scored, and only what passed is learnt."""

import pytest

from nblib.sources.inequalities import inequalities
from nblib.sources.rows import Row
from nblib.tasks.proof_verdicts import FALSE_ACCEPT_LIMIT, losses
from nblib.tasks.proofs import PROOFS
from nblib.tasks.rewards import reward_weights
from nblib.tasks.task import Example, check_task, choose_examples
from nblib.tasks.text_proofs import TEXT_PROOFS

STATEMENT = "a^2+b^2 >= 2ab for real a, b"
LINE = "Square a-b: a^2+b^2 >= 2ab"
PROSE = "A square is never negative, so (a-b)^2 >= 0."


def row(number, proof, **fields):
    made = {"statement": STATEMENT, "proof": proof, "technique": "free text", **fields}
    return Row(id=f"proofs/train/{number}", fields=made)


def judged(at_most):
    return {"verdict": "judged", "reason": "", "false_accepts_at_most": at_most}


GENERATED = (
    row(0, LINE, verdict="verified", reason=""),
    row(1, PROSE, **judged(0.05)),
    row(2, PROSE, **judged(0.11)),
    row(3, PROSE, **judged(None)),
    row(4, PROSE, **judged(True)),
    row(5, PROSE, verdict="judged", reason=""),
    row(6, PROSE, verdict="unjudged", reason="verifier not trusted"),
    row(7, PROSE, verdict="lost", reason="judged wrong"),
    row(8, "", verdict="lost", reason="truncated"),
)


@pytest.mark.parametrize(
    ("completion", "failure"),
    [
        (f"<proof>\n{PROSE}\n</proof>", None),
        (PROSE, "no proof block"),
        ("<proof>It", "no proof block"),
        ("<proof></proof>", "empty proof"),
        ("<proof>a</proof><proof>b</proof>", "several blocks"),
        ("Sure: <proof>a</proof>", "text outside"),
    ],
)
def test_one_whole_block_is_the_form(completion, failure):
    example = Example(id="1", prompt="", completion="", reference=STATEMENT)
    found = TEXT_PROOFS.score(completion, example)
    assert found.failure == failure and found.values == {"format_accuracy": failure is None}
    assert failure is None or failure in TEXT_PROOFS.advice


def test_only_what_passed_is_learnt_and_a_judged_proof_only_with_known_few_false_accepts():
    assert FALSE_ACCEPT_LIMIT == 0.10
    examples, left_out = choose_examples(TEXT_PROOFS, GENERATED, -1, seed=0)
    assert [one.id for one in examples] == ["proofs/train/0", "proofs/train/1"] and left_out == 7
    assert examples[1].completion == f"<proof>\n{PROSE}\n</proof>"
    exact, left_out = choose_examples(PROOFS, GENERATED, -1, seed=0)
    assert [one.completion for one in exact] == [f"<proof>\n{LINE}\n</proof>"] and left_out == 8


def test_where_nothing_passed_it_is_refused_with_what_was_lost_where():
    message = (
        r"none of 3 rows can be learnt \(1 unjudged: verifier not trusted, 1 lost: truncated, "
        r"1 lost: judged wrong\): expected some that are verified, or judged .* at most 10%"
    )
    with pytest.raises(ValueError, match=message):
        choose_examples(TEXT_PROOFS, GENERATED[6:], -1, seed=0)
    with pytest.raises(ValueError, match="TASK text_proofs learns judged ones"):
        choose_examples(PROOFS, GENERATED[1:], -1, seed=0)


def test_a_verdict_of_the_file_is_not_believed_where_it_can_be_checked():
    wrong = row(0, "Square a-b: a^2+b^2 >= 3ab", verdict="verified", reason="")
    for task in (PROOFS, TEXT_PROOFS):
        with pytest.raises(ValueError, match="its proof is not verified: line 1"):
            task.examples(task.normalise((wrong,)))


def test_built_in_proofs_are_texts_here_that_hold_their_statement():
    rows = inequalities(40, seed=0, split="train")
    examples = TEXT_PROOFS.examples(TEXT_PROOFS.normalise(rows))
    check_task(TEXT_PROOFS, examples)
    texts = [one.completion for one in examples]
    assert len(set(texts)) == 40 and sum("AM-GM inequality" in text for text in texts) > 10
    assert TEXT_PROOFS.examples(rows) == examples  # the style follows from the row


def test_losses_are_counted_by_verdict_and_reason_in_the_order_of_the_pipeline():
    assert [*losses(GENERATED)] == [
        ("verified", ""),
        ("judged", ""),
        ("unjudged", "verifier not trusted"),
        ("lost", "truncated"),
        ("lost", "judged wrong"),
    ]
    assert losses(GENERATED)["judged", ""] == 5 and losses((row(9, LINE),)) == {}


def test_there_are_no_rewards():
    with pytest.raises(ValueError, match="task text_proofs has no rewards"):
        reward_weights(TEXT_PROOFS)
