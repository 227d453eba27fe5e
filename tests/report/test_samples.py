import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.evaluation.answers import Stage
from nblib.report.samples import KINDS, outcome, pick_samples, rollout_samples, samples_table
from nblib.tasks.gsm8k import GSM8K


def record(name, completion, right):
    return {
        "id": name,
        "group": "2",
        "question": f"question {name}",
        "prompt": f"<start_of_turn>question {name}",
        "completion": completion,
        "reference": "4",
        "answer_accuracy": right,
    }


def stages(**items):
    """Return base and tuned of items: name -> whether it is right in each of them."""
    return tuple(
        Stage(
            name=name,
            metrics={},
            by_group={},
            records=tuple(record(id_, name, right[place]) for id_, right in items.items()),
        )
        for place, name in enumerate(("base", "tuned"))
    )


SIX = stages(
    a=(False, True),
    b=(False, True),
    c=(True, True),
    d=(True, False),
    e=(False, False),
    f=(False, True),
)


def picked(stages, *, count, seed=0):
    return pick_samples(GSM8K, stages, count=count, seed=seed)


def test_one_of_each_kind_in_turn():
    assert [sample.kind for sample in picked(SIX, count=3)] == list(KINDS)


def test_the_rest_follows_and_no_item_comes_twice():
    samples = picked(SIX, count=99, seed=1)
    assert sorted(sample.id for sample in samples) == list("abcdef")
    assert samples[-1].kind == "newly right"


def test_a_sample_holds_all_stages_in_order():
    (sample,) = picked(stages(c=(True, True)), count=1)
    assert (sample.question, sample.reference, sample.group) == ("question c", "4", "2")
    assert list(sample.records) == ["base", "tuned"]
    assert sample.records["tuned"]["completion"] == "tuned"


def test_a_file_without_questions_shows_its_prompts():
    (base, _) = stages(c=(True, True))
    bare = {**base.records[0], "question": ""}
    (sample,) = picked([Stage(name="file", metrics={}, by_group={}, records=(bare,))], count=1)
    assert sample.question == "<start_of_turn>question c"


def test_the_seed_decides_and_the_order_of_the_records_does_not():
    names = [f"i{index:02}" for index in range(40)]
    many, turned = (
        stages(**dict.fromkeys(order, (False, True))) for order in (names, names[20:] + names[:20])
    )
    first, again, other = (
        [sample.id for sample in picked(given, count=5, seed=seed)]
        for given, seed in ((many, 0), (turned, 0), (many, 1))
    )
    assert first == again != other


def test_items_that_a_stage_did_not_answer_are_left_out():
    (base, _), (_, tuned) = stages(a=(True, True), b=(True, True)), stages(a=(True, True))
    assert [sample.id for sample in picked((base, tuned), count=9)] == ["a"]


def test_a_single_stage_is_first_and_last():
    base, _ = stages(a=(True, True), b=(False, True))
    samples = picked([base], count=2)
    assert [sample.kind for sample in samples] == ["right throughout", "wrong at the end"]


def test_nothing_to_pick():
    assert picked((), count=3) == ()


@pytest.mark.parametrize(
    ("items", "count", "message"),
    [("aa", 1, "'a' repeats in the base stage"), ("a", -1, "0 or more, got -1")],
)
def test_broken_input_is_named(items, count, message):
    records = tuple(record(id_, "text", True) for id_ in items)
    base = Stage(name="base", metrics={}, by_group={}, records=records)
    with pytest.raises(ValueError, match=message):
        picked([base], count=count)


def test_a_mean_is_right_where_it_is_whole_and_says_how_much_it_has(slots, slot_stage):
    base = slot_stage("base", ['{"a": 1}', "none"])
    tuned = slot_stage("tuned", ['{"a": 1, "b": 2}', '{"a": 1}'])
    samples = pick_samples(slots, (base, tuned), count=2, seed=0)
    assert [(one.id, one.kind) for one in samples] == [
        ("s/0", "newly right"),
        ("s/1", "wrong at the end"),
    ]
    assert samples[0].reference == '{"a": 1, "b": 2}'
    outcomes = [outcome(slots, one) for one in samples[0].records.values()]
    assert outcomes == ["✗ slot f1 0.667", "✓ slot f1 1.000"]


def test_the_table_shows_the_last_stages_with_what_became_of_each(word_stage):
    names = ("first", "base", "tuned")
    asked = [word_stage(name, [f"<answer>{n}</answer>"]) for n, name in enumerate(names, 2)]
    table = samples_table(GSM8K, picked(asked, count=1))
    assert table.columns == ("item", "question", "reference", "base", "tuned")
    assert table.verbatim == table.columns[1:]
    assert table.rows == (
        (
            *("t/0\nnewly right", "How many? ", "4"),
            *("✗ wrong\n<answer>3</answer>", "✓ right\n<answer>4</answer>"),
        ),
    )
    assert samples_table(GSM8K, ()).rows == ()


def drawn(steps, *, each=4):
    return [{"step": step, "completion": f"{step}/{n}"} for step in steps for n in range(each)]


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [
        (range(1, 102), 6, [1, 21, 41, 61, 81, 101]),
        (range(1, 102), 2, [1, 101]),
        (range(1, 102), 1, [1]),
        ((2, 5, 9), 3, [2, 5, 9]),
        ((2, 5, 9), 6, [2, 5, 9]),
        ((7,), 6, [7]),
        ((9, 2, 5), 2, [2, 9]),
    ],
)
def test_samples_are_spread_from_the_first_step_to_the_last(steps, count, expected):
    assert [one["step"] for one in rollout_samples(drawn(steps), count=count, seed=0)] == expected


def test_samples_follow_their_seed():
    rollouts = drawn(range(1, 21), each=50)
    first = rollout_samples(rollouts, count=6, seed=0)
    assert rollout_samples(rollouts, count=6, seed=0) == first
    assert rollout_samples(rollouts, count=6, seed=1) != first


def test_samples_are_copies_and_none_of_nothing():
    rollouts = drawn((1,), each=1)
    (one,) = rollout_samples(rollouts, count=3, seed=0)
    one["completion"] = "changed"
    assert rollouts[0]["completion"] == "1/0"
    assert rollout_samples([], count=3, seed=0) == []
    assert rollout_samples(rollouts, count=0, seed=0) == []


@given(st.sets(st.integers(0, 500), min_size=1), st.integers(1, 30), st.integers(0, 9))
def test_samples_of_any_training(steps, count, seed):
    rollouts = drawn(steps, each=2)
    found = rollout_samples(rollouts, count=count, seed=seed)
    assert all(one in rollouts for one in found)
    shown = [one["step"] for one in found]
    assert shown == sorted(set(shown)) and len(shown) == min(count, len(steps))
    assert shown[0] == min(steps) and (count == 1 or shown[-1] == max(steps))
