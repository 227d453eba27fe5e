"""A task is a value that proves itself: its names, its examples, its variants."""

from dataclasses import FrozenInstanceError, replace

import pytest

from nblib.sources.rows import Row
from nblib.sources.wordproblems import word_problems
from nblib.tasks.formats import XML
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import Reward
from nblib.tasks.task import (
    Example,
    Metric,
    OutsideCheck,
    Score,
    Target,
    Task,
    check_task,
    choose_examples,
    example_of,
)

IN_HASH = "2 * 9 = 18\n#### 18"
IN_XML = "<reasoning>2 * 9 = 18</reasoning><answer>18</answer>"
EIGHTEEN = Example(id="q/0", prompt="How many?", completion=IN_XML, reference="18")
ROW = Row(id="spell/train/0", fields={"word": "cat"}, place="words.txt line 1")


def spelled(completion, example):
    """Score letters: the mean of those that are right, and whether all are capital letters."""
    pairs = zip(completion.lower(), example.reference, strict=False)
    right = sum(one == other for one, other in pairs) / len(example.reference)
    return Score(
        values={"letters": right, "capitals": completion.isupper(), "noise": "!" in completion}
    )


def spelling_examples(rows):
    return tuple(
        example_of(
            row,
            prompt=f"Spell {row.fields['word']}",
            completion=row.fields["word"].upper(),
            reference=row.fields["word"],
            group=row.fields["word"][0],
        )
        for row in rows
    )


def spelling(**changes):
    """A task with a mean as its headline, a rate as its form, and one metric that should fall."""
    given = {
        "name": "spelling",
        "system_prompt": "",
        "metrics": (
            Metric(name="letters", meaning="share of the right letters", kind="mean"),
            Metric(name="capitals", meaning="capital letters alone"),
            Metric(name="noise", meaning="an exclamation mark", better="lower"),
        ),
        "headline": "letters",
        "form": "capitals",
        "grouped_by": "first letter",
        "examples": spelling_examples,
        "score": spelled,
        "reward_weights": {"letters": 1.0, "capitals": 0.2},
    }
    return Task(**{**given, **changes})


def words(*given):
    return tuple(
        Row(id=f"spell/train/{i}", fields={"word": word}, place=f"words.txt line {i + 1}")
        for i, word in enumerate(given)
    )


def test_a_variant_scores_in_its_own_form_and_leaves_the_task_alone():
    hashed = GSM8K.variants["hash"]
    assert (GSM8K.name, hashed.name, hashed.system_prompt) == ("gsm8k", "gsm8k/hash", "")
    for task, whole, broken in ((GSM8K, IN_XML, IN_HASH), (hashed, IN_HASH, IN_XML)):
        assert task.score(whole, EIGHTEEN).values["joint_accuracy"]
        assert not task.score(broken, EIGHTEEN).values["joint_accuracy"]


def test_names_of_the_metrics_to_look_at():
    assert GSM8K.main == ("format_accuracy", "answer_accuracy", "lenient_accuracy")
    assert GSM8K.lenient == "lenient_accuracy"
    assert spelling().main == ("capitals", "letters")
    assert spelling().lenient == "letters"  # no fallback: the headline
    assert spelling().metric_names == ("letters", "capitals", "noise")
    assert spelling().metric("noise").better == "lower"
    assert spelling().metric("truncation_rate").better == "lower"
    with pytest.raises(KeyError):
        spelling().metric("speed")


def test_right_is_the_whole_of_a_metric():
    task = spelling()
    assert not task.is_right({"letters": 0.9, "capitals": True})
    assert task.is_right({"letters": 1.0, "capitals": False})
    assert task.is_right({"letters": 0.9, "capitals": True}, "capitals")


TWICE = (*spelling().metrics, Metric(name="noise", meaning="once more"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"headline": "speed"}, "'speed' is no metric, expected one of letters, capitals, noise"),
        ({"form": ""}, "'' is no metric"),
        ({"fallback": "speed"}, "'speed' is no metric"),
        ({"targets": (Target(metric="speed", limit=1, advice=""),)}, "'speed' is no metric"),
        ({"metrics": TWICE}, "metric 'noise' repeats"),
        *(
            ({"metrics": (*spelling().metrics, Metric(name=name, meaning=""))}, f"metric '{name}'")
            for name in ("answer", "n", "truncation_rate", "reward")
        ),
        ({"headline": "noise", "reward_weights": {"noise": 1.0}}, "'noise' is better when lower"),
        ({"form": "noise"}, "'noise' is better when lower"),
        ({"fallback": "noise"}, "'noise' is better when lower"),
        ({"reward_weights": {"capitals": 1.0}}, "reward_weights must hold 'letters'"),
        ({"reward_weights": {"letters": 0.0}}, "reward_weights must hold 'letters'"),
    ],
)
def test_a_task_whose_names_do_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"task spelling: {message}"):
        spelling(**changes)


def test_examples_of_rows_whose_completion_is_whole_pass():
    check_task(spelling(), spelling_examples(words("cat", "dog")))
    for task in (GSM8K, *GSM8K.variants.values()):
        check_task(task, task.examples(word_problems(20, seed=0, split="train", long_hand=0.5)))


def scored(**values):
    return lambda completion, example: Score(values=values, failure="why not")


WHOLE = {"letters": 1.0, "capitals": True, "noise": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": scored(**WHOLE | {"letters": 0.5})}, r"letters 0.5, expected 1 \(why not\): 'C"),
        ({"score": scored(**WHOLE | {"capitals": False})}, "capitals 0, expected 1"),
        ({"score": scored(letters=1.0, capitals=True)}, r"scores \['capitals', 'letters'\], expec"),
        ({"score": scored(**WHOLE, speed=1.0)}, "expected its metrics"),
        ({"score": scored(**WHOLE | {"letters": 1.5})}, r"{'letters': 1.5}, expected values in 0"),
        ({"score": scored(**WHOLE | {"noise": float("nan")})}, "expected values in 0..1"),
        ({"reward_terms": lambda *_: {"length": 2.0}}, r"{'length': 2.0}, expected values in 0"),
        ({"reward_weights": {"letters": 1.0, "length": 0.1}}, "weighs length in its rewards, exp"),
    ],
)
def test_an_example_that_its_own_task_would_not_reward_is_named(changes, message):
    with pytest.raises(ValueError, match=rf"^spell/train/0: .*{message}"):
        check_task(spelling(**changes), spelling_examples([ROW]))


def test_a_row_becomes_an_example():
    assert example_of(ROW, prompt="Spell", completion="CAT", reference=["c"], group="c") == Example(
        id="spell/train/0", prompt="Spell", completion="CAT", reference=["c"], group="c"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"completion": ""}, "the completion is empty"),
        ({"prompt": "a<end_of_turn>"}, "'<end_of_turn>' in its prompt is no text but controls"),
        ({"completion": "<bos>"}, "'<bos>' in its completion"),
        ({"row": replace(ROW, fields={"word": "<eos>", "size": 3})}, "'<eos>' in its word"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named_by_its_place(changes, reason):
    given = {"row": ROW, "prompt": "Spell", "completion": "CAT", "reference": "cat", "group": ""}
    with pytest.raises(ValueError, match=r"^words.txt line 1 \(spell/train/0\): ") as raised:
        example_of(**{**given, **changes})
    assert reason in str(raised.value)


def test_chosen_examples_keep_their_order_and_the_left_out_are_counted():
    rows = words("cat", "dog", "cow", "ant")
    assert choose_examples(spelling(), rows, -1, seed=0) == (spelling_examples(rows), 0)
    found, left_out = choose_examples(spelling(), rows, -1, groups=["c", "a"], seed=0)
    assert ([one.reference for one in found], left_out) == (["cat", "cow", "ant"], 1)
    levels = word_problems(10, seed=0, split="train")
    assert choose_examples(GSM8K, levels, -1, groups=(1, 2), seed=0) == (  # groups are texts
        GSM8K.examples([row for row in levels if row.group in ("1", "2")]), 6,
    )  # fmt: skip


def test_the_draw_is_of_the_groups_asked_for_and_fixed_by_its_seed():
    rows = word_problems(60, seed=0, split="train")
    drawn = [choose_examples(GSM8K, rows, 8, groups=(2, 3), seed=seed)[0] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {one.group for one in drawn[0]} == {"2", "3"} and len(drawn[0]) == 8


def test_a_group_that_no_row_has_is_refused_only_where_nothing_is_left():
    rows = words("cat", "dog")
    assert choose_examples(spelling(), rows, -1, groups="cx", seed=0)[1] == 1
    with pytest.raises(ValueError, match=r"^first letter x, y: expected some of c, d$"):
        choose_examples(spelling(), rows, -1, groups=("y", "x"), seed=0)


@pytest.mark.parametrize(
    "value",
    [
        EIGHTEEN,
        GSM8K,
        GSM8K.metrics[0],
        GSM8K.targets[0],
        OutsideCheck(name="svamp", task=GSM8K, examples=()),
        XML,
        XML.parse(IN_XML),
        GSM8K.score(IN_XML, EIGHTEEN),
        Reward(reward=1.0, terms={}, score=GSM8K.score(IN_XML, EIGHTEEN)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_cannot_be_changed_and_are_made_by_name(value):
    (name, *_) = vars(value)
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
    with pytest.raises(TypeError, match="positional"):
        type(value)(*vars(value).values())
