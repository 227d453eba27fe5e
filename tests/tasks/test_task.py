"""A task is a value: the same task in another format is scored in that format."""

from dataclasses import FrozenInstanceError

import pytest

from nblib.tasks.formats import HASH, XML
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import RewardWeights
from nblib.tasks.task import Example, for_format

IN_HASH = "2 * 9 = 18\n#### 18"
IN_XML = "<reasoning>2 * 9 = 18</reasoning><answer>18</answer>"


def test_another_format_scores_in_that_format_and_leaves_the_task_alone():
    task = for_format(GSM8K, HASH)
    assert (task.name, task.answer_format, task.examples) == ("gsm8k", HASH, GSM8K.examples)
    assert task.score(IN_HASH, "18").joint
    assert not task.score(IN_XML, "18").joint
    assert GSM8K.answer_format is XML
    assert GSM8K.score(IN_XML, "18").joint
    assert not GSM8K.score(IN_HASH, "18").joint


def test_truncation_reaches_the_score():
    assert GSM8K.score(IN_XML, "18", truncated=True).truncated
    assert for_format(GSM8K, HASH).score(IN_HASH, "18", truncated=True).truncated


def test_there_and_back_is_the_first_format():
    assert for_format(for_format(GSM8K, HASH), XML).score(IN_XML, "18").joint


@pytest.mark.parametrize(
    "value",
    [
        Example(id="q/0", question="How many?", reasoning="so", answer="18", level=None),
        GSM8K,
        XML,
        XML.parse(IN_XML),
        GSM8K.score(IN_XML, "18"),
        RewardWeights(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_cannot_be_changed_and_are_made_by_name(value):
    (name, *_) = vars(value)
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
    with pytest.raises(TypeError, match="positional"):
        type(value)(*vars(value).values())
