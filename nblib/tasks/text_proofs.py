r"""Proofs of inequalities as free text: what a person would write, and only a reader can judge.

    prompt      Prove: a^2+b^2 >= 2ab for real a, b
    completion  <proof>
                A square is never negative, so (a-b)^2 >= 0, that is a^2+b^2 >= 2ab.
                </proof>
    reference   a^2+b^2 >= 2ab for real a, b

Learnt is what was verified exactly (rewritten as a text), and what a verifier accepted whose false
accepts are known to be few (`proof_sieve`). The score says only whether there is one whole proof
block: whether the proof is right is asked of a judge after the evaluation, and never added to what
is exact. So the task has no rewards: they would pay for the form alone.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256

from nblib.sources.rows import Row
from nblib.tasks.proof_prose import STYLES, in_prose
from nblib.tasks.proof_verdicts import FREE_TEXT, is_believed, passed
from nblib.tasks.proofs import CLOSE, OPEN, PROOFS, proof_fields, read_block
from nblib.tasks.task import Example, Metric, Score, Target, Task, example_of

_SHARED = ("truncated", "no proof block", "several blocks", "text outside")  # with `proofs`
FAILURES = {
    **{name: PROOFS.advice[name] for name in _SHARED},
    "empty proof": "look at the examples: is there a proof in each block?",
}


def score(completion: str, example: Example) -> Score:
    """Score the form of a completion: one proof block with a text in it, and nothing outside."""
    failure, proof = read_block(completion)
    if proof == "":
        failure = failure or "empty proof"
    return Score(
        values={"format_accuracy": not failure}, answer=proof or None, failure=failure or None
    )


def _example(row: Row) -> Example:
    statement, proof, technique = proof_fields(row)
    if not is_believed(row.fields):
        (checked,) = PROOFS.examples([row])  # raises where it is not verified
        style = sha256(checked.completion.encode()).digest()[0] % STYLES
        proof = in_prose(statement, proof, style)
    return example_of(
        row,
        prompt=f"Prove: {statement}",
        completion=f"{OPEN}\n{proof.strip()}\n{CLOSE}",
        reference=statement,
        group=technique or FREE_TEXT,
    )


def _examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    return tuple(map(_example, rows))


TEXT_PROOFS = Task(
    name="text_proofs",
    system_prompt="Prove the inequality in a proof block. Give a reason for every step.",
    metrics=(Metric(name="format_accuracy", meaning="one proof block, and nothing outside it"),),
    headline="format_accuracy",
    form="format_accuracy",
    grouped_by="technique",
    examples=_examples,
    score=score,
    normalise=partial(passed, judged=True),
    reward_weights={},
    targets=(
        Target(
            metric="format_accuracy",
            limit=0.95,
            advice="raise MAX_NEW_TOKENS, or train for more steps",
        ),
    ),
    advice=FAILURES,
    limits=(
        "The form alone is measured exactly. Whether a proof is right was judged by another model, "
        "whose errors were measured in the same run; a judged proof is not a verified one.",
    ),
)
