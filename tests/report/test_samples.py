import pytest

from nblib.report.samples import KINDS, pick_samples


def item(name: str, base: bool, tuned: bool) -> list[dict]:
    return [
        {
            "id": name,
            "stage": stage,
            "prompt": f"question {name}",
            "completion": stage,
            "reference": "4",
            "answer": "4",
            "correct": correct,
            "format": True,
            "failure": None,
            "truncated": False,
            "level": 2,
        }
        for stage, correct in (("base", base), ("tuned", tuned))
    ]


PREDICTIONS = [
    *item("a", False, True),
    *item("b", False, True),
    *item("c", True, True),
    *item("d", True, False),
    *item("e", False, False),
    *item("f", False, True),
]


def test_one_of_each_kind_in_turn():
    kinds = [sample["kind"] for sample in pick_samples(PREDICTIONS, count=3, seed=0)]
    assert kinds == list(KINDS)


def test_the_rest_follows_and_no_item_comes_twice():
    samples = pick_samples(PREDICTIONS, count=99, seed=1)
    assert sorted(sample["id"] for sample in samples) == list("abcdef")
    assert [sample["kind"] for sample in samples[-1:]] == ["newly right"]


def test_a_sample_holds_all_stages_in_order():
    (sample,) = pick_samples(item("c", True, True), count=1, seed=0)
    assert (sample["question"], sample["reference"], sample["level"]) == ("question c", "4", 2)
    assert list(sample["stages"]) == ["base", "tuned"]
    assert sample["stages"]["tuned"]["completion"] == "tuned"


def test_the_seed_decides_and_the_order_of_the_file_does_not():
    many = [record for index in range(40) for record in item(f"{index:02}", False, True)]
    first, again, other = (
        [sample["id"] for sample in pick_samples(records, count=5, seed=seed)]
        for records, seed in ((many, 0), (many[40:] + many[:40], 0), (many, 1))
    )
    assert first == again != other


def test_items_that_a_stage_did_not_answer_are_left_out():
    assert [
        sample["id"]
        for sample in pick_samples(
            [*item("a", True, True), *item("b", True, True)[:1]], count=9, seed=0
        )
    ] == ["a"]


def test_a_single_stage_is_first_and_last():
    samples = pick_samples([item("a", True, True)[0], item("b", False, True)[0]], count=2, seed=0)
    assert [sample["kind"] for sample in samples] == ["right throughout", "wrong at the end"]


def test_nothing_to_pick():
    assert pick_samples([], count=3, seed=0) == []


@pytest.mark.parametrize(
    ("predictions", "count", "message"),
    [
        (PREDICTIONS + PREDICTIONS[:1], 1, "two predictions for stage 'base'"),
        ([{"id": "a", "stage": "base"}], 1, "'a' lacks .*'completion'"),
        ([], -1, "0 or more, got -1"),
    ],
)
def test_broken_input_is_named(predictions, count, message):
    with pytest.raises(ValueError, match=message):
        pick_samples(predictions, count=count, seed=0)
