r"""Proofs of inequalities as a task: each line is checked exactly.

    prompt      Prove: a^2+b^2+c^2 >= ab+bc+ca for a, b, c > 0
    completion  <proof>
                AM-GM a^2, b^2: a^2+b^2 >= 2ab
                AM-GM b^2, c^2: b^2+c^2 >= 2bc
                AM-GM c^2, a^2: c^2+a^2 >= 2ca
                Sum 1/2(1)+1/2(2)+1/2(3): a^2+b^2+c^2 >= ab+bc+ca
                </proof>
    reference   a^2+b^2+c^2 >= ab+bc+ca for a, b, c > 0
    group       AM-GM

A proof is verified where the completion is one block, every line is right by its rule
(`proof_rules`), used or not, and the last one is the statement. No model judges anything.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from nblib.sources.rows import Row
from nblib.tasks.proof_check import (
    MAX_CHARACTERS,
    UNREADABLE,
    Verdict,
    check_proof,
    check_statement,
)
from nblib.tasks.proof_text import RULES
from nblib.tasks.proof_verdicts import passed
from nblib.tasks.task import Example, Metric, Score, Target, Task, example_of

OPEN, CLOSE = "<proof>", "</proof>"
_FIELDS = ("statement", "proof", "technique")
_MOST_SHOWN = 200  # characters of a line, in a record

# Code of a failure -> what to do about it; in the order in which they are looked for.
FAILURES: Mapping[str, str] = {
    "truncated": "raise MAX_NEW_TOKENS; look at the sample for lines that repeat",
    "no proof block": "raise MAX_NEW_TOKENS; is the end of the examples in the loss?",
    "several blocks": "every example must end after one block, by the end of the turn",
    "text outside": "remove what stands before and after the block from the examples",
    "too long": "lower MAX_NEW_TOKENS; look at the sample for lines that repeat",
    "unreadable line": "train on more examples; is each piece of `^`, `>=`, `(1)` a known token?",
    "unknown rule": "train on more examples: the rules are " + ", ".join(RULES),
    "wrong arguments": "train on more examples of the rule that is named",
    "unknown step": "train on longer proofs, whose lines name those before them",
    "too large": "keep the examples' numbers and exponents small",
    "denominator": "train on examples with fractions; are their variables above 0?",
    "not by sight": "train on examples of the rule: what is not seen from signs needs a step",
    **{f"{rule} fails": f"train on more examples of {rule}; look at its numbers" for rule in RULES},
    "cyclic": "a cyclic line is used by Sum or Product alone, and is never the last one",
    "another conclusion": "train on more examples: does the last line repeat the statement?",
}


def score(completion: str, example: Example) -> Score:
    """Score a completion; the reference is the statement's text.

    Example:
        >>> statement = "a^2+1 >= 2a for real a"
        >>> score("<proof>Square a-1: a^2+1 >= 2a</proof>", Example(id="1", prompt="",
        ...       completion="", reference=statement)).values["proof_verified"]
        True

    Raises ValueError for a reference that is no statement, or one that the language cannot prove.
    """
    verdict, proof, form = _judged(completion, example.reference)
    right = sum(step.failure is None for step in verdict.steps)
    return Score(
        values={
            "proof_verified": verdict.verified,
            "format_accuracy": form,
            "steps_checked": right / len(verdict.steps) if form and verdict.steps else 0.0,
        },
        answer=proof,
        failure=verdict.failure,
        details=_details(verdict) if verdict.failure else {},
    )


def proof_lines(completion: str, example: Example) -> list[tuple[str, str]]:
    """Return each line of a completion's proof with its mark: `✓`, or `✗` with the reason.

    Example:
        [("✓", "Square a-b: a^2+b^2 >= 2ab"), ("✗ left - right is not ...", "Sum (1): ...")]

    What is wrong with the whole is a last line without text. Raises ValueError as `score` does.
    """
    verdict, _, _ = _judged(completion, example.reference)
    marks = [(f"✗ {one.problem}" if one.failure else "✓", one.text) for one in verdict.steps]
    if verdict.failure not in (None, *(one.failure for one in verdict.steps)):
        marks.append((f"✗ {verdict.reason}", ""))
    return marks


def reward_terms(completion: str, example: Example) -> dict[str, float]:
    """Return `used_steps`: of the claims that the last line needs, its own too, the proven share.

    A claim that is said twice counts once. It is 0 where the last line is not the statement itself:
    what leads elsewhere earns nothing.
    """
    verdict, _, form = _judged(completion, example.reference)
    used = {one.text.partition(":")[2].strip(): one.proven for one in verdict.steps if one.used}
    is_led = form and verdict.claims_statement
    return {"used_steps": sum(used.values()) / len(used) if is_led else 0.0}


def _judged(completion: str, reference: Any) -> tuple[Verdict, str | None, bool]:
    """Return the verdict, the text of the one block, and whether the completion has the form."""
    if not isinstance(reference, str):
        raise ValueError(
            f"the reference is {str(reference)[:40]!r}: expected a statement's text, such as "
            "'a^2+b^2 >= 2ab for a, b > 0'"
        )
    check_statement(reference)
    failure, proof = read_block(completion)
    if proof is None:
        return Verdict(verified=False, failure=failure, reason=failure), None, False
    check = _check_once if len(proof) <= MAX_CHARACTERS else check_proof
    verdict = check(reference, proof)
    if failure:
        verdict = replace(verdict, verified=False, failure=failure, line=0, reason=failure)
        return verdict, proof, False
    codes = {verdict.failure, *(step.failure for step in verdict.steps)}
    return verdict, proof, codes.isdisjoint(("too long", *UNREADABLE))


def read_block(completion: str) -> tuple[str, str | None]:
    """Return a failure, "" for none, and what stands in the block where there is one alone."""
    before, opened, rest = completion.partition(OPEN)
    proof, closed, after = rest.partition(CLOSE)
    if not (opened and closed):
        return "no proof block", None
    if any(tag in part for tag in (OPEN, CLOSE) for part in (before, proof, after)):
        return "several blocks", None
    return "text outside" if before.strip() or after.strip() else "", proof.strip()


@lru_cache(maxsize=64)
def _check_once(statement: str, proof: str) -> Verdict:
    """Check a proof once for its score and its reward."""
    return check_proof(statement, proof)


def _details(verdict: Verdict) -> dict[str, Any]:
    """Return what a reader of a record needs to know of a failure."""
    return {
        "line": verdict.line,
        "text": verdict.steps[verdict.line - 1].text[:_MOST_SHOWN] if verdict.line else "",
        "reason": verdict.reason[:_MOST_SHOWN],
        "marks": "".join("✗" if one.failure else "✓" for one in verdict.steps),
    }


def proof_fields(row: Row) -> tuple[str, str, str]:
    """Return a row's statement, proof and technique. Raises ValueError for one that is no text."""
    values = [row.fields.get(name) for name in _FIELDS]
    for name, value in zip(_FIELDS, values, strict=True):
        if not isinstance(value, str):
            raise ValueError(f"{row.named}: its {name} is {str(value)[:40]!r}, expected a text")
    statement, proof, technique = map(str, values)
    return statement, proof, technique


def _example(row: Row) -> Example:
    statement, proof, technique = proof_fields(row)
    try:
        verdict = check_proof(statement, proof)
    except ValueError as error:
        raise ValueError(f"{row.named}: {error}; correct or remove this row") from error
    if not verdict.verified:
        raise ValueError(
            f"{row.named}: its proof is not verified: line {verdict.line}, {verdict.failure}: "
            f"{verdict.reason}; correct or remove this row"
        )
    return example_of(
        row,
        prompt=f"Prove: {statement}",
        completion=f"{OPEN}\n{proof.strip()}\n{CLOSE}",
        reference=statement,
        group=technique,
    )


_SHOWN = Example(
    id="shown", prompt="", completion="", reference="a^2+b^2+c^2 >= ab+bc+ca for real a, b, c"
)
_SQUARE = "Square a-b cyclic: a^2+b^2 >= 2ab\n"
_LAST = "Sum 1/2(1): a^2+b^2+c^2 >= ab+bc+ca\n"

PROOFS = Task(
    name="proofs",
    system_prompt=(
        "Prove the inequality in a proof block, one step a line: rule arguments: left >= right."
    ),
    metrics=(
        Metric(name="proof_verified", meaning="every line is right, and the last is the statement"),
        Metric(name="format_accuracy", meaning="one proof block, and each line can be read"),
        Metric(name="steps_checked", meaning="share of the lines that are right", kind="mean"),
    ),
    headline="proof_verified",
    form="format_accuracy",
    grouped_by="technique",
    examples=lambda rows: tuple(map(_example, rows)),
    score=score,
    normalise=passed,
    # A line that nothing needs earns nothing: one right line, repeated, is no proof.
    reward_weights={"proof_verified": 1.0, "used_steps": 0.2},
    reward_terms=reward_terms,
    reward_examples=(
        (f"<proof>\n{_SQUARE}{_LAST}</proof>", _SHOWN),
        (f"<proof>\n{_SQUARE}{_LAST.replace('1/2', '1/3')}</proof>", _SHOWN),
        (f"<proof>\n{_SQUARE}</proof>", _SHOWN),
        (f"<proof>\n{_LAST.replace('1/2(1)', '(1)')}</proof>", _SHOWN),
        ("It follows from (a-b)^2 >= 0.", _SHOWN),
    ),
    targets=(
        Target(
            metric="proof_verified",
            limit=0.60,
            advice="train for more steps, or on more rows of the techniques that fail",
        ),
    ),
    advice=FAILURES,
    limits=(
        "A verified proof is exact: rational arithmetic checks every line, no model judges it.",
        "The proof language has no roots, no strict inequalities, no cases and no calculus.",
        "A sign is seen from coefficients alone: a right proof may be refused, a wrong one is not "
        "accepted.",
    ),
)
