"""A task is a value: the same task in another format is scored in that format."""

from nblib.tasks.formats import HASH, XML
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import for_format

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
