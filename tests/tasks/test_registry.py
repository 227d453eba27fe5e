import pytest

from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.registry import TASKS, get_task, task_names


def test_tasks_and_their_variants_by_name():
    assert get_task("gsm8k") is GSM8K
    assert get_task("gsm8k/hash") is GSM8K.variants["hash"]
    assert {name: get_task(name).name for name in task_names()} == dict(
        zip(task_names(), task_names(), strict=True)
    )
    assert set(TASKS) <= set(task_names())


@pytest.mark.parametrize("name", ["", "gsm9k", "gsm8k/xml", "gsm8k/hash/more", "hash", "/hash"])
def test_an_unknown_task_names_those_that_are_known(name):
    known = "gsm8k, gsm8k/hash, gsm8k/boxed, gsm8k/last-number"
    with pytest.raises(ValueError, match=f"task {name!r} is unknown: expected one of {known}"):
        get_task(name)
