"""Rewards: each thing that public rewards pay wrongly, as an ordering; right always beats wrong."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import Reward, reward_function, reward_table, reward_weights
from nblib.tasks.task import Example, Metric, Score, Task

ALL = reward_weights(
    GSM8K,
    {"answer_accuracy": 1.0, "format_accuracy": 0.2, "steps": 0.1, "brevity": 0.1,
     "truncated": 0.3},
)  # fmt: skip
DEFAULT = reward_weights(GSM8K)
HASH = GSM8K.variants["hash"]
NAMES = ("answer_accuracy", "format_accuracy", "steps", "brevity", "truncated")


def xml(answer: str, reasoning: str = "2 * 9 = 18") -> str:
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


def asked(reference: str = "18") -> Example:
    return Example(id="q/0", prompt="How many?", completion=xml(reference), reference=reference)


def reward(
    completion: str,
    reference: str = "18",
    *,
    weights=ALL,
    truncated: bool = False,
    length_share: float = 0.5,
) -> float:
    pay = reward_function(GSM8K, weights, max_new_tokens=1)  # so that length is a share
    return pay(asked(reference), completion, length_share, truncated).reward


def test_terms_and_their_weighted_sum_by_hand():
    completion = xml("18", "2 * 9 = 18 and 1 + 1 = 3")
    earned = reward_function(GSM8K, ALL, max_new_tokens=80)(asked(), completion, 60, True)
    assert earned == Reward(
        reward=earned.reward,
        terms=dict(zip(NAMES, (1, 1, 0.5, 0.25, 1), strict=True)),
        score=GSM8K.score(completion, asked()),
    )
    assert tuple(earned.terms) == NAMES
    assert earned.reward == pytest.approx(1.0 + 0.2 + 0.05 + 0.025 - 0.3)
    assert reward(completion, weights=DEFAULT, truncated=True) == pytest.approx(1.2)


def test_the_tasks_own_weights_hold_where_none_is_given():
    assert dict(zip(NAMES, (1.0, 0.2, 0.0, 0.0, 0.0), strict=True)) == DEFAULT
    assert reward_weights(GSM8K, {"steps": 0.1}) == DEFAULT | {"steps": 0.1}
    assert reward_weights(GSM8K, {"joint_accuracy": 0.1}) == DEFAULT | {"joint_accuracy": 0.1}
    given = {"format_accuracy": 0.5}
    assert reward_weights(GSM8K, given)["format_accuracy"] == 0.5 and len(given) == 1


@pytest.mark.parametrize(
    ("better", "worse", "reference"),
    [
        (xml("-5"), xml("5"), "-5"),
        (xml("5"), xml("-5"), "5"),
        (xml("1,200"), xml("1"), "1,200"),
        (xml("1200"), xml("1,20"), "1,200"),
        (xml("18.0"), xml("18.5"), "18"),
        (xml("7"), xml("3 + 4 = 7"), "7"),
        (xml("3"), xml("3 + 4 = 7"), "3"),
        (xml("12"), xml("12:30"), "12"),
        (xml("5"), xml("5%"), "5"),
        (xml("18"), xml("18 or 19"), "18"),
        (xml("18 apples"), xml("apples"), "18"),
        (xml("18"), xml("18") + "<answer>18</answer>", "18"),
        (xml("18"), xml("18") + "<answer>16</answer>", "18"),
        (xml("18"), "Okay. " + xml("18"), "18"),
        (xml("18"), xml("18") + " Done!", "18"),
        (xml("18"), "<answer>18</answer>", "18"),
        (xml("18"), xml("18", reasoning=" "), "18"),
        ("<answer>18</answer>", xml("16"), "18"),
        ("Okay. " + xml("18"), xml("16"), "18"),
        (xml("18") + " Done!", xml("16"), "18"),
        (xml("16"), "Okay. " + xml("16"), "18"),
        (xml("16"), "2 * 9 = 18", "18"),
        (xml("0"), xml("1"), "0"),
        (xml("0"), xml(""), "0"),
        (xml("0"), "", "0"),
    ],
)
def test_the_better_completion_earns_more(better: str, worse: str, reference: str):
    for weights in (DEFAULT, ALL):
        better_reward = reward(better, reference, weights=weights)
        assert better_reward > reward(worse, reference, weights=weights)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("18.0", "18"), ("$18", "18"), (" 18 ", "18"), ("18 apples", "18"), ("1,200", "1200"),
     ("1200", "1,200"), ("-0", "0"), ("1/2", "0.5"), ("18.", "18")],
)  # fmt: skip
def test_the_same_number_earns_the_same(answer: str, reference: str):
    assert reward(xml(answer), reference) == reward(xml(reference), reference)


def test_shorter_and_whole_earn_more_where_they_are_asked_for():
    assert reward(xml("18"), length_share=0.1) > reward(xml("18"), length_share=0.9)
    assert reward(xml("18")) > reward(xml("18"), truncated=True)
    assert reward("", truncated=True, weights=ALL) < 0
    assert reward(xml("18"), truncated=True, weights=DEFAULT) == 1.2


WEIGHT = st.floats(0, 1e6)
RIGHT = (xml("18"), "<answer>18</answer>")


def hand_written() -> list[str]:
    return [completion for completion, _ in GSM8K.reward_examples]


def right_and_valid(values: tuple[float, ...]) -> dict[str, float]:
    """Weights of other terms, a penalty and a surplus, as weights that are allowed."""
    extra, *others, penalty = values
    given = (sum(others) + penalty + extra, *others, penalty)
    try:
        return reward_weights(GSM8K, dict(zip(NAMES, given, strict=True)))
    except ValueError:
        assume(False)
        raise


@given(
    st.builds("{}{}{}".format, st.text(), st.sampled_from(RIGHT), st.text()),
    st.sampled_from([xml("16"), xml("1 + 1 = 2"), *hand_written(), ""]) | st.text(),
    st.tuples(WEIGHT, WEIGHT, WEIGHT, WEIGHT, WEIGHT),
    st.tuples(st.booleans(), st.booleans()),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_right_beats_wrong_under_all_valid_weights(right, wrong, values, cut, shares):
    assume(GSM8K.is_right(GSM8K.score(right, asked()).values))
    assume(not GSM8K.is_right(GSM8K.score(wrong, asked()).values))
    weights = right_and_valid(values)
    paid = [
        reward(text, weights=weights, truncated=truncated, length_share=share)
        for text, truncated, share in zip((right, wrong), cut, shares, strict=True)
    ]
    assert paid[0] > paid[1]


def graded(**changes) -> Task:
    """A task whose headline is a mean; its completions are their own scores, as text."""

    def score(completion: str, example: Example) -> Score:
        found, tidy, noise = map(float, completion.split())
        return Score(values={"slot_f1": found, "tidy": bool(tidy), "noise_rate": noise})

    given = {
        "name": "graded",
        "system_prompt": "",
        "metrics": (
            Metric(name="slot_f1", meaning="slots that are right", kind="mean"),
            Metric(name="tidy", meaning="nothing else is said"),
            Metric(name="noise_rate", meaning="share of other words", kind="mean", better="lower"),
        ),
        "headline": "slot_f1",
        "form": "tidy",
        "examples": lambda rows: (),
        "score": score,
        "reward_weights": {"slot_f1": 1.0, "tidy": 0.1, "noise_rate": 0.1, "words": 0.1},
        "reward_terms": lambda completion, example: {"words": 0.5},
    }
    return Task(**{**given, **changes})


SHARE = st.floats(0, 1)
OUTCOME = st.tuples(SHARE, st.booleans(), SHARE, SHARE, st.booleans())
TERMS = ("tidy", "noise_rate", "words", "brevity", "truncated")


@given(st.tuples(*[WEIGHT] * 5), WEIGHT, SHARE, OUTCOME, OUTCOME)
def test_of_a_mean_headline_0_never_earns_as_much_as_1(others, extra, words, best, worst):
    task = graded(reward_terms=lambda completion, example: {"words": words})
    given = {"slot_f1": sum(others) + extra, **dict(zip(TERMS, others, strict=True))}
    try:
        weights = reward_weights(task, given)
    except ValueError:
        assume(False)
        raise
    pay = reward_function(task, weights, max_new_tokens=1)
    earned = [
        pay(asked(), f"{headline} {int(tidy)} {noise!r}", length, cut).reward
        for headline, (_, tidy, noise, length, cut) in ((1, best), (0, worst))
    ]
    assert earned[0] > earned[1]


@given(SHARE, SHARE)
def test_a_mean_headline_is_paid_in_proportion(low, high):
    pay = reward_function(graded(), reward_weights(graded()), max_new_tokens=1)
    earned = [pay(asked(), f"{found!r} 1 0", 0, False).reward for found in sorted((low, high))]
    assert earned[1] - earned[0] == pytest.approx(abs(high - low))


def test_of_a_metric_that_should_be_low_the_rest_to_1_is_the_term():
    pay = reward_function(graded(), reward_weights(graded()), max_new_tokens=4)
    quiet, loud = pay(asked(), "0.5 1 0", 1, False), pay(asked(), "0.5 1 0.75", 1, False)
    assert (quiet.terms["noise_rate"], loud.terms["noise_rate"]) == (1.0, 0.25)
    assert quiet.reward - loud.reward == pytest.approx(0.1 * 0.75)
    assert loud.terms == {
        "slot_f1": 0.5, "tidy": 1, "noise_rate": 0.25, "words": 0.5, "brevity": 0.75,
        "truncated": 0,
    }  # fmt: skip


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_term_outside_0_to_1_is_refused(value):
    task = graded(reward_terms=lambda completion, example: {"words": value})
    pay = reward_function(task, reward_weights(task), max_new_tokens=1)
    with pytest.raises(ValueError, match=r"q/0: {'words': .*}, expected terms of a reward in 0..1"):
        pay(asked(), "1 1 0", 0, False)


def test_rounding_does_not_undo_the_promise():
    # 0.3 + 0.2 + 0.1 is 0.6 from the left and 0.6000000000000001 from the right.
    given = {"format_accuracy": 0.3, "steps": 0.2, "brevity": 0.1}
    with pytest.raises(ValueError, match="a wrong answer could earn"):
        reward_weights(GSM8K, {"answer_accuracy": 0.6, **given})
    weights = reward_weights(GSM8K, {"answer_accuracy": 0.6000000000000001, **given})
    wrong = reward(xml("16"), weights=weights, length_share=0.0)  # with all else there is to earn
    assert reward("<answer>18</answer>", weights=weights, length_share=1.0) > wrong


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_weight_must_be_a_finite_amount(name: str, value: float):
    with pytest.raises(ValueError, match=f"the weight of {name} is {value}: expected a number"):
        reward_weights(GSM8K, {name: value})


@pytest.mark.parametrize("name", ["format", "reward_format", "truncation_rate", "answer"])
def test_an_unknown_term_names_those_that_are_known(name):
    known = "answer_accuracy, format_accuracy, steps, brevity, truncated, tag_order_accuracy"
    message = rf"reward '{name}' is unknown: expected some of {known}, .*lenient_accuracy"
    with pytest.raises(ValueError, match=message):
        reward_weights(GSM8K, {name: 0.1})


@pytest.mark.parametrize(
    "weights",
    [{"format_accuracy": 1.0}, {"format_accuracy": 0.5, "steps": 0.5}, {"brevity": 0.9},
     {"truncated": 0.8}, {"truncated": 1.0, "format_accuracy": 0.0},
     {"answer_accuracy": 0.0, "format_accuracy": 0.0}, {"lenient_accuracy": 0.8}],
)  # fmt: skip
def test_weights_under_which_wrong_could_pay_are_refused(weights: dict[str, float]):
    with pytest.raises(ValueError, match="raise answer_accuracy or lower the others") as error:
        reward_weights(GSM8K, weights)
    for name, value in weights.items():
        assert f"{name} {value:g}" in str(error.value)


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_a_length_share_is_a_share(share: float):
    with pytest.raises(ValueError, match="length_share"):
        reward("", length_share=share)


def test_the_reward_goes_by_the_example():
    pay = reward_function(GSM8K, DEFAULT, max_new_tokens=80)
    for right in ("18", "7", "1200"):
        found = [pay(asked(one), xml(right), 9, False).score for one in ("18", "7", "1200")]
        assert [GSM8K.is_right(one.values) for one in found] == [
            one == right for one in ("18", "7", "1200")
        ]


def test_the_reward_function_is_given_what_was_cut():
    pay = reward_function(GSM8K, ALL, max_new_tokens=80)
    whole, cut = (pay(asked(), xml("18"), 80, truncated) for truncated in (False, True))
    assert (whole.terms["truncated"], cut.terms["truncated"]) == (0, 1)
    assert cut.reward == pytest.approx(whole.reward - ALL["truncated"])


def test_length_is_measured_in_tokens_of_those_allowed():
    pay = reward_function(GSM8K, ALL, max_new_tokens=80)
    assert [pay(asked(), xml("18"), tokens, False).terms["brevity"] for tokens in (0, 40, 80)] == [
        *(1.0, 0.5, 0.0)
    ]
    with pytest.raises(ValueError, match=r"length_share 1\.0125 "):
        pay(asked(), xml("18"), 81, False)


def test_answers_are_read_as_the_task_writes_them():
    pay = reward_function(HASH, reward_weights(HASH), max_new_tokens=80)
    assert pay(asked(), "2 * 9 = 18\n#### 18", 9, False).reward == pytest.approx(1.2)
    assert pay(asked(), xml("18"), 9, False).reward == 0


def column(table: str, index: int) -> list[str]:
    return [line.strip("| ").split(" | ")[index] for line in table.splitlines()[2:]]


def showing(*completions: str, task: Task = GSM8K) -> Task:
    return replace(task, reward_examples=tuple((text, asked()) for text in completions))


def test_the_table_of_the_hand_written_completions():
    table = reward_table(GSM8K, DEFAULT)
    assert table.splitlines()[0] == (
        "| completion | answer accuracy | format accuracy | steps | brevity | truncated | reward |"
    )
    assert column(table, -1) == (
        ["1.20", "1.20", "1.00", "1.00", "1.00", "0.20", "0.20", "0.00", "0.00"]
    )
    assert column(table, 0)[0] == f"`{hand_written()[0]}`"
    assert column(table, 0)[-1] == "(nothing)"


def test_the_table_stays_a_table_whatever_the_model_wrote():
    nasty = "a | b\n\n`code` " + "long " * 100 + "the end"
    header, ruler, row = reward_table(showing(nasty), ALL).splitlines()
    assert row.replace("\\|", "").count("|") == ruler.count("|") == header.count("|")
    shown = row[2 : row.rindex("`") + 1]
    assert shown.startswith("`a \\| b 'code' long") and shown.endswith("the end`")
    assert shown.count("`") == 2 and len(shown.replace("\\", "")) == 38 + len(" … ") + 38 + 2


def test_the_table_uses_the_tasks_own_format_and_weights():
    in_hash = "2 * 9 = 18\n#### 18"
    assert column(reward_table(showing(in_hash, task=HASH), ALL), -1) == ["1.30"]
    assert column(reward_table(showing(in_hash), ALL), -1) == ["0.10"]
    assert reward_table(showing(), ALL).count("\n") == 1
