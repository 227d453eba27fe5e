import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.evaluation.answers import Stage
from nblib.report.samples import KINDS, outcome, pick_samples, rollout_table, samples_table
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
    return [
        {"step": step, "id": f"t/{n}", "completion": f"{step}/{n}", "truncated": n > 0}
        | {"reward": 1.2, "advantage": -0.456}
        for step in steps
        for n in range(each)
    ]


def shown(rollouts, *, count, seed=0):
    return rollout_table(rollouts, count=count, seed=seed).rows


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
def test_rollouts_are_spread_from_the_first_step_to_the_last(steps, count, expected):
    assert [int(row[0].split()[0]) for row in shown(drawn(steps), count=count)] == expected


def test_rollouts_follow_their_seed():
    rollouts = drawn(range(1, 21), each=50)
    first = shown(rollouts, count=6)
    assert shown(rollouts, count=6) == first != shown(rollouts, count=6, seed=1)


def test_a_rollout_says_where_it_is_from_and_what_it_earned():
    whole, cut = drawn((17,), each=2)
    assert shown([whole], count=3) == (("17\nt/0", "1.20", "-0.46", "17/0"),)
    assert shown([cut], count=3)[0][0] == "17\nt/1, cut at the token limit"
    nothing = rollout_table([], count=3, seed=0)
    assert (nothing.rows, nothing.note) == ((), "")
    assert shown([whole], count=0) == ()


@given(st.sets(st.integers(0, 500), min_size=1), st.integers(1, 30), st.integers(0, 9))
def test_rollouts_of_any_training(steps, count, seed):
    rows = shown(drawn(steps, each=2), count=count, seed=seed)
    found = [int(row[0].split()[0]) for row in rows]
    assert all(row[3] in {f"{step}/0", f"{step}/1"} for step, row in zip(found, rows, strict=True))
    assert found == sorted(set(found)) and len(found) == min(count, len(steps))
    assert found[0] == min(steps) and (count == 1 or found[-1] == max(steps))
