"""Stages to report on: scored answers to GSM8K, and to "slots", whose headline is a mean."""

import pytest

from nblib.evaluation.answers import score_answers
from nblib.tasks.gsm8k import GSM8K


@pytest.fixture(scope="session")
def word_stage():
    """Return a stage of GSM8K: a name, and completions of questions whose answer is 4."""

    def build(name, completions, **fields):
        answers = [
            {"id": f"t/{n}", "question": "How many? " * (n + 1), "reference": "4", "group": "1"}
            | {"completion": text, "truncated": False, **fields}
            for n, text in enumerate(completions)
        ]
        return score_answers(name, answers, GSM8K)

    return build


@pytest.fixture(scope="session")
def slot_stage(slots):
    """Return a stage of "slots": a name, and completions of which `{"a": 1, "b": 2}` is right."""

    def build(name, completions):
        answers = [
            {"id": f"s/{n}", "question": "a is 1, b is 2", "reference": {"a": 1, "b": 2}}
            | {"group": ("times", "places")[n % 2], "completion": text, "truncated": False}
            for n, text in enumerate(completions)
        ]
        return score_answers(name, answers, slots)

    return build
