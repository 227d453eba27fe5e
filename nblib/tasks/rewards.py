"""Rewards: weighted views of the one Score, so that what is trained is what is measured.

Tags and the answer are read in `scoring` and nowhere else. What is added here looks at the whole
text: whether the sums written in it are right, and how long it is. Weights under which a wrong
answer could earn as much as a right one are refused: public rewards pay 4.5 for a well-formed
wrong answer and -2.5 for a right one without its tags, and get what they pay for.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import pairwise

from nblib.tasks.numbers import parse_number
from nblib.tasks.scoring import Score
from nblib.tasks.task import Example, Task

TERMS = ("correct", "format", "steps", "brevity", "truncated")

# For reference "18": each shows one rule.
HAND_WRITTEN = (
    "<reasoning>2 * 9 = 18</reasoning><answer>18</answer>",
    "<reasoning>2 * 9 = 18</reasoning><answer>$18.00</answer>",  # the same number
    "2 * 9 = 18 <answer>18</answer>",  # right, not in the form
    "Okay. <reasoning>2 * 9 = 18</reasoning><answer>18</answer>",  # a preamble
    "<reasoning>2 * 9 = 18</reasoning><answer>18</answer> Done!",  # text after the end
    "<reasoning>2 * 9 = 16</reasoning><answer>16</answer>",  # in the form, wrong
    "<reasoning>2 * 9 = 18</reasoning><answer>-18</answer>",  # the sign counts
    "<reasoning>2 * 9 = 18</reasoning><answer>18</answer><answer>16</answer>",  # says two things
    "",
)

_SHOWN = 80  # characters of a completion in a table
_MAX_OPERATIONS = 16  # in one sum, so that a hostile completion costs no time
_MAX_PARTS = 8  # after equals signs
_SIGN = "[-+\N{MINUS SIGN}]?"
_DIGITS = r"(?:[0-9]++(?:,[0-9]++)*+(?:\.[0-9]++)?+|\.[0-9]++)"
_NUMBER = f"{_SIGN}[$€£]?{_SIGN}{_DIGITS}"
# No sign after an x: "3x+7=22" is an equation, not 3 times +7.
_OPERATOR = "(?:[-+*/×÷–\N{MINUS SIGN}]|x(?! *[-+\N{MINUS SIGN}]))"
# All that arithmetic is written with, so that a part of a longer expression is not taken for a
# sum: "(2 + 2) * 3 = 12" does not hold "2 * 3 = 12". A point or comma before a digit alone, and
# an x that no letter touches; other ones end a sentence or belong to a word.
_ARITHMETIC = re.compile(
    "(?:[-0-9$€£+*/×÷–\N{MINUS SIGN}=()%^ ]|[.,](?=[0-9])|(?<![^\\W\\d_])x(?![^\\W\\d_]))+"
)
_OPERATIONS = f"(?: *+{_OPERATOR} *+{_NUMBER})"
_SUM = re.compile(
    rf" *+\(? *+(?P<parts>{_NUMBER}{_OPERATIONS}{{1,{_MAX_OPERATIONS}}}"
    rf"(?: *+= *+{_NUMBER}{_OPERATIONS}{{0,{_MAX_OPERATIONS}}}){{1,{_MAX_PARTS}}})"
    r" *+\)? *+"
)
_OPERATION = re.compile(rf" *+(?P<operator>{_OPERATOR}) *+(?P<number>{_NUMBER})")


@dataclass(frozen=True, kw_only=True)
class RewardWeights:
    """What each term of a reward is worth; a right answer is always worth more than a wrong one.

    Attributes:
        correct: The answer's number is right.
        format: The whole completion is strictly in the format.
        steps: Share of the sums written that are right.
        brevity: Share of the allowed tokens that was not needed.
        truncated: Taken away where the length limit cut the completion.
    """

    correct: float = 1.0
    format: float = 0.2  # enough to order the wrong ones; a model that has had v1 writes it anyway
    steps: float = 0.0  # at a price a model can write sums that nobody needs
    brevity: float = 0.0  # at a price a model can leave its steps out
    truncated: float = 0.0  # a cut completion has lost its answer, and most often that is enough

    def __post_init__(self) -> None:
        """Refuse weights under which being wrong could pay."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} {value} must be a finite number of at least 0")
        if self.correct <= 0:
            raise ValueError(f"correct {self.correct} must be above 0")
        worst_right = self.correct - self.truncated
        best_wrong = self.format + self.steps + self.brevity
        if worst_right <= best_wrong:
            raise ValueError(
                f"a wrong answer could earn format {self.format} + steps {self.steps} + brevity "
                f"{self.brevity} = {best_wrong:g}, and a right one only correct {self.correct} - "
                f"truncated {self.truncated} = {worst_right:g}: raise correct or lower the others"
            )


def reward_terms(score: Score, completion: str, *, length_share: float) -> dict[str, float]:
    """The unweighted terms of one completion, each from 0 to 1, in the order of `TERMS`.

    Args:
        score: What the scorer says of the completion.
        completion: Its text, for the sums in it.
        length_share: Tokens written / tokens allowed.

    Raises:
        ValueError: `length_share` is not from 0 to 1.
    """
    if not 0 <= length_share <= 1:
        raise ValueError(f"length_share {length_share} must be from 0 to 1: tokens / allowed")
    return {
        "correct": float(score.correct),
        "format": float(score.format),
        "steps": _right_sums(completion),
        "brevity": 1.0 - length_share,
        "truncated": float(score.truncated or False),
    }


def total_reward(terms: Mapping[str, float], weights: RewardWeights) -> float:
    """The weighted sum of the terms, `truncated` taken away.

    Example:
        >>> terms = dict(correct=1, format=1, steps=0, brevity=0, truncated=0)
        >>> total_reward(terms, RewardWeights())
        1.2

    Raises:
        ValueError: A term is missing, or one is unknown.
    """
    if terms.keys() != set(TERMS):
        raise ValueError(f"terms {sorted(terms)} must be exactly {sorted(TERMS)}")
    weighted = {name: getattr(weights, name) * terms[name] for name in TERMS}
    # In the order of the check of the weights, so that rounding cannot undo what it promises.
    extra = weighted["format"] + weighted["steps"] + weighted["brevity"]
    return weighted["correct"] - weighted["truncated"] + extra


@dataclass(frozen=True, kw_only=True)
class Rewarded:
    """What one completion earned, and why: the unweighted terms, and the scorer's own score."""

    reward: float
    terms: Mapping[str, float]
    score: Score


def task_judge(
    task: Task, examples: Sequence[Example], weights: RewardWeights, *, max_new_tokens: int
) -> Callable[[int, str, int, bool], Rewarded]:
    """Return the judge of a training: (index of the example, completion, tokens, cut) -> Rewarded.

    `tokens` counts the end token as well and may be at most `max_new_tokens`.
    """

    def judge(index: int, completion: str, tokens: int, truncated: bool) -> Rewarded:
        score = task.score(completion, examples[index].answer, truncated=truncated)
        terms = reward_terms(score, completion, length_share=tokens / max_new_tokens)
        return Rewarded(reward=total_reward(terms, weights), terms=terms, score=score)

    return judge


def reward_table(
    completions: Sequence[str], reference: str, task: Task, weights: RewardWeights
) -> str:
    """Markdown table: one row a completion, its terms and its reward.

    There is no tokenizer here: length is in characters, as a share of the longest completion
    shown, and none counts as truncated.

    ```
    | completion | correct | format | steps | brevity | truncated | reward |
    | --- | --- | --- | --- | --- | --- | --- |
    | `2 * 9 = 18 <answer>18</answer>` | 1.00 | 0.00 | 1.00 | 0.50 | 0.00 | 1.00 |
    ```
    """
    longest = max(map(len, completions), default=0) or 1
    rows = [["completion", *TERMS, "reward"], ["---"] * (len(TERMS) + 2)]
    for completion in completions:
        terms = reward_terms(
            task.score(completion, reference), completion, length_share=len(completion) / longest
        )
        figures = [*terms.values(), total_reward(terms, weights)]
        rows.append([_shown(completion), *(f"{figure:.2f}" for figure in figures)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _shown(completion: str) -> str:
    """One line in code type, where tags are no HTML and $ is no formula; start and end are kept."""
    text = " ".join(completion.split())
    if not text:
        return "(nothing)"
    if len(text) > _SHOWN:
        half = (_SHOWN - 3) // 2
        text = f"{text[:half]} … {text[-half:]}"
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"


def _right_sums(text: str) -> float:
    """Share of the sums "a + b = c" in the text that are exactly right; 0 where there is none.

    Products go before sums. A sum that is worked out, "47 + 38 = 70 + 15 = 85", is one for each
    equals sign. Not counted is what cannot be read surely: inner brackets, percentages, powers, a
    sum that does not end in a number, words between the numbers. A rounded result is not right;
    nor is a division by zero or a misplaced comma.
    """
    verdicts = [
        _is_right(left, right)
        for run in _ARITHMETIC.finditer(text)
        # "y+3+4=9": the first number is not the first one
        if not (run[0][0] != " " and text[: run.start()][-1:].isalnum())
        and (found := _SUM.fullmatch(run[0]))
        for left, right in _equalities(found["parts"])
    ]
    return sum(verdicts) / len(verdicts) if verdicts else 0.0


def _equalities(parts: str) -> list[tuple[str, str]]:
    """Return both sides of every equals sign; none where the last side is a sum itself."""
    sides = [side.strip() for side in parts.split("=")]
    return list(pairwise(sides)) if re.fullmatch(_NUMBER, sides[-1]) else []


def _is_right(left: str, right: str) -> bool:
    value = _value(left)
    return value is not None and value == _value(right)


def _value(expression: str) -> Fraction | None:
    """The value of "a + b * c", None where a number is unreadable or a divisor is 0."""
    addends = [Fraction(0)]
    for operation in _OPERATION.finditer(f"+{expression}"):
        operator, number = operation["operator"], parse_number(operation["number"])
        if number is None or (operator in "/÷" and number == 0):
            return None
        if operator in "*x×":
            addends[-1] *= number
        elif operator in "/÷":
            addends[-1] /= number
        else:
            addends.append(number if operator == "+" else -number)
    return sum(addends, Fraction(0))
