"""Rewards: each thing that public rewards pay wrongly, as an ordering; right always beats wrong."""

import time
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nblib.tasks.formats import HASH
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import (
    HAND_WRITTEN,
    TERMS,
    Rewarded,
    RewardWeights,
    reward_table,
    reward_terms,
    task_judge,
    total_reward,
)
from nblib.tasks.scoring import score
from nblib.tasks.task import Example, for_format

ALL = RewardWeights(correct=1.0, format=0.2, steps=0.1, brevity=0.1, truncated=0.3)


def xml(answer: str, reasoning: str = "2 * 9 = 18") -> str:
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


def reward(
    completion: str,
    reference: str = "18",
    *,
    weights: RewardWeights = ALL,
    truncated: bool = False,
    length_share: float = 0.5,
) -> float:
    judged = score(completion, reference, truncated=truncated)
    return total_reward(reward_terms(judged, completion, length_share=length_share), weights)


def steps(text: str) -> float:
    return reward_terms(score(text, "0"), text, length_share=0.0)["steps"]


def test_terms_and_their_weighted_sum_by_hand():
    completion = xml("18", "2 * 9 = 18 and 1 + 1 = 3")
    terms = reward_terms(score(completion, "18", truncated=True), completion, length_share=0.75)
    assert terms == {"correct": 1, "format": 1, "steps": 0.5, "brevity": 0.25, "truncated": 1}
    assert tuple(terms) == TERMS
    assert total_reward(terms, ALL) == pytest.approx(1.0 + 0.2 + 0.05 + 0.025 - 0.3)
    assert total_reward(terms, RewardWeights()) == pytest.approx(1.2)


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
    for weights in (RewardWeights(), ALL):
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
    assert reward(xml("18"), truncated=True, weights=RewardWeights()) == 1.2


WEIGHT = st.floats(0, 1e6)
RIGHT = (xml("18"), "<answer>18</answer>")


@given(
    st.builds("{}{}{}".format, st.text(), st.sampled_from(RIGHT), st.text()),
    st.sampled_from([xml("16"), xml("1 + 1 = 2"), *HAND_WRITTEN, ""]) | st.text(),
    st.tuples(WEIGHT, WEIGHT, WEIGHT, WEIGHT, WEIGHT),
    st.tuples(st.booleans(), st.booleans()),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_right_beats_wrong_under_all_valid_weights(right, wrong, values, cut, shares):
    assume(score(right, "18").correct and not score(wrong, "18").correct)
    extra, *others, penalty = values
    correct = sum(others) + penalty + extra
    try:
        weights = RewardWeights(**dict(zip(TERMS, (correct, *others, penalty), strict=True)))
    except ValueError:
        assume(False)
    paid = [
        reward(text, weights=weights, truncated=truncated, length_share=share)
        for text, truncated, share in zip((right, wrong), cut, shares, strict=True)
    ]
    assert paid[0] > paid[1]


def test_rounding_does_not_undo_the_promise():
    # 0.3 + 0.2 + 0.1 is 0.6 from the left and 0.6000000000000001 from the right.
    with pytest.raises(ValueError, match="a wrong answer could earn"):
        RewardWeights(correct=0.6, format=0.3, steps=0.2, brevity=0.1)
    weights = RewardWeights(correct=0.6000000000000001, format=0.3, steps=0.2, brevity=0.1)
    wrong = reward(xml("16"), weights=weights, length_share=0.0)  # with all else there is to earn
    assert reward("<answer>18</answer>", weights=weights, length_share=1.0) > wrong


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_weight_must_be_a_finite_amount(name: str, value: float):
    with pytest.raises(ValueError, match=f"{name} {value}"):
        RewardWeights(**{name: value})


def test_a_right_answer_must_be_worth_something():
    with pytest.raises(ValueError, match=r"correct 0.0 must be above 0"):
        RewardWeights(correct=0.0, format=0.0)


@pytest.mark.parametrize(
    "weights",
    [{"format": 1.0}, {"format": 0.5, "steps": 0.5}, {"brevity": 0.9}, {"truncated": 0.8},
     {"truncated": 1.0, "format": 0.0}],
)  # fmt: skip
def test_weights_under_which_wrong_could_pay_are_refused(weights: dict[str, float]):
    with pytest.raises(ValueError, match=r"raise correct or lower the others") as error:
        RewardWeights(**weights)
    for name, value in weights.items():
        assert f"{name} {value}" in str(error.value)


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_a_length_share_is_a_share(share: float):
    with pytest.raises(ValueError, match="length_share"):
        reward_terms(score("", "18"), "", length_share=share)


def test_terms_must_be_the_known_ones():
    terms = reward_terms(score("", "18"), "", length_share=0.0)
    for wrong in ({**terms, "style": 1.0}, {"correct": 1.0}):
        with pytest.raises(ValueError, match="must be exactly"):
            total_reward(wrong, RewardWeights())


@pytest.mark.parametrize(
    "text",
    [
        "2 + 3 = 5",
        "2+3=5",
        "5 - 8 = -3",
        "5 - -3 = 8",
        "-5 + 2 = -3",
        "16 \N{MINUS SIGN} 3 = 13",
        "16 – 3 = 13",
        "2 * 9 = 18",
        "2 x 9 = 18",
        "2x9=18",
        "2 × 9 = 18",
        "48 / 2 = 24",
        "48 ÷ 2 = 24",
        "$1,200.50 - $0.50 = $1,200",
        "1 / 4 = .25",
        "She sells 9 * 2 = $18.",
        "That leaves 13 - 9 = 4 chairs.",
        "Step 1: 3 + 4 = 7",
        "2 + 3 = 5, 5 + 1 = 6. Then 6 + 1 = 7.",
        "2 + 3 = 5\n5 * 2 = 10",
        "4 eggs (2 * 2 = 4)",
        "box 3 + 4 = 7",
        "2 + 3 + 4 = 9",
        "2 + 3 * 4 = 14",
        "16 - 3 - 4 = 9",
        "12 / 3 / 2 * 5 = 10",
        "47 + 38 = 47 + 30 + 8 = 77 + 8 = $85.",
        "2 + 3 = 5 = 5",
        "<reasoning>2 * 9 = 18</reasoning><answer>18</answer>",
    ],
)
def test_right_sums(text: str):
    assert steps(text) == 1.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("2 + 3 = 6", 0.0),
        ("5 - 8 = 3", 0.0),
        ("5 / 0 = 0", 0.0),
        ("1 + 5 / 0 = 1", 0.0),
        ("1,20 + 1 = 121", 0.0),
        ("10 / 3 = 3.33", 0.0),
        ("2 + 3 * 4 = 20", 0.0),
        ("2 + 2 = 4 and 2 + 2 = 5", 0.5),
        ("47 + 38 = 47 + 30 + 8 = 77 + 8 = 86", 2 / 3),
        ("2 + 3 = 5 + 1 = 6", 0.5),  # what is written first is not so
        ("1 + 1 = 2\n1 + 1 = 2\n1 + 1 = 3\n1 / 0 = 1", 0.5),
    ],
)
def test_wrong_sums(text: str, share: float):
    assert steps(text) == share


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 18",
        "18 = 18",
        "2 + 3 = 4 + 1",
        "(2 + 2) * 3 = 12",
        "2 * (3 + 4) = 14",
        "(1 + 1) + 2 + 2 = 6",
        "20% * 50 = 10",
        "2^3 + 1 = 9",
        "2**3 + 1 = 9",
        "y + 3 + 4 = 9",
        "y+3+4=9",
        "y = 3 + 4 = 7",
        "3x+7=22",
        "3x - 8 = 40",
        "2 apples + 3 apples = 5 apples",
        "2 + 3",
        "+ ".join(["1 "] * 40) + "= 40",
    ],
)
def test_what_cannot_be_read_surely_is_not_counted(text: str):
    assert steps(text) == 0.0
    assert steps(text + "\n1 + 1 = 2") == 1.0


@given(st.integers(-9999, 9999), st.sampled_from("+-*"), st.integers(-9999, 9999), st.booleans())
def test_any_sum_is_judged_as_python_judges_it(first: int, operator: str, second: int, right: bool):
    result = {"+": first + second, "-": first - second, "*": first * second}[operator]
    shown = result if right else result + 1
    assert steps(f"So {first:,} {operator} ${second:,} = {shown:,}.") == right


@given(st.text() | st.text("0123456789+-*/x=.,$()% "))
def test_any_text_has_a_share_of_right_sums(text: str):
    assert 0 <= steps(text) <= 1


@pytest.mark.parametrize("piece", ["9", "9,", "1+", "1 + ", "+", "=", "x", " ", "1=", "(", "9.9*"])
def test_time_is_linear(piece: str):
    started = time.perf_counter()
    steps(piece * (300_000 // len(piece)))
    steps(piece * (300_000 // len(piece)) + "= 1")
    assert time.perf_counter() - started < 3.0


QUESTIONS = tuple(
    Example(id=f"q/{answer}", question="How many?", reasoning="", answer=answer, level=None)
    for answer in ("18", "7", "1200")
)


def test_the_judge_gives_the_weighted_terms_and_the_score_behind_them():
    judge = task_judge(GSM8K, QUESTIONS, ALL, max_new_tokens=80)
    completion = xml("18", "2 * 9 = 18 and 1 + 1 = 3")
    judged = judge(0, completion, 20, False)
    assert judged == Rewarded(
        reward=judged.reward,
        terms={"correct": 1, "format": 1, "steps": 0.5, "brevity": 0.75, "truncated": 0},
        score=score(completion, "18"),
    )
    assert judged.reward == pytest.approx(1.0 + 0.2 + 0.05 + 0.075)
    with pytest.raises(FrozenInstanceError):
        judged.reward = 2.0


def test_the_judge_goes_by_the_example_of_the_index():
    judge = task_judge(GSM8K, QUESTIONS, RewardWeights(), max_new_tokens=80)
    for right, example in enumerate(QUESTIONS):
        found = [judge(index, xml(example.answer), 9, False).score.correct for index in range(3)]
        assert found == [index == right for index in range(3)]
    with pytest.raises(IndexError):
        judge(3, xml("18"), 9, False)


def test_the_judge_is_told_what_was_cut():
    judge = task_judge(GSM8K, QUESTIONS, ALL, max_new_tokens=80)
    whole, cut = (judge(0, xml("18"), 80, truncated) for truncated in (False, True))
    assert (whole.score.truncated, cut.score.truncated) == (False, True)
    assert (whole.terms["truncated"], cut.terms["truncated"]) == (0, 1)
    assert cut.reward == pytest.approx(whole.reward - ALL.truncated)


def test_the_judge_measures_length_in_tokens_of_those_allowed():
    judge = task_judge(GSM8K, QUESTIONS, ALL, max_new_tokens=80)
    assert [judge(0, xml("18"), tokens, False).terms["brevity"] for tokens in (0, 40, 80)] == [
        *(1.0, 0.5, 0.0)
    ]
    with pytest.raises(ValueError, match=r"length_share 1\.0125 "):
        judge(0, xml("18"), 81, False)


def test_the_judge_reads_answers_as_the_task_writes_them():
    judge = task_judge(for_format(GSM8K, HASH), QUESTIONS, RewardWeights(), max_new_tokens=80)
    assert judge(0, "2 * 9 = 18\n#### 18", 9, False).reward == pytest.approx(1.2)
    assert judge(0, xml("18"), 9, False).reward == 0


def column(table: str, index: int) -> list[str]:
    return [line.strip("| ").split(" | ")[index] for line in table.splitlines()[2:]]


def test_the_table_of_the_hand_written_completions():
    table = reward_table(HAND_WRITTEN, "18", GSM8K, RewardWeights())
    assert table.splitlines()[0] == (
        "| completion | correct | format | steps | brevity | truncated | reward |"
    )
    assert column(table, -1) == (
        ["1.20", "1.20", "1.00", "1.00", "1.00", "0.20", "0.20", "0.00", "0.00"]
    )
    assert column(table, 0)[0] == f"`{HAND_WRITTEN[0]}`"
    assert column(table, 0)[-1] == "(nothing)"


def test_the_table_stays_a_table_whatever_the_model_wrote():
    nasty = "a | b\n\n`code` " + "long " * 100 + "the end"
    header, ruler, row = reward_table([nasty], "18", GSM8K, ALL).splitlines()
    assert row.replace("\\|", "").count("|") == ruler.count("|") == header.count("|")
    shown = row[2 : row.rindex("`") + 1]
    assert shown.startswith("`a \\| b 'code' long") and shown.endswith("the end`")
    assert shown.count("`") == 2 and len(shown.replace("\\", "")) == 38 + len(" … ") + 38 + 2


def test_the_table_uses_the_tasks_own_format_and_weights():
    in_hash = "2 * 9 = 18\n#### 18"
    assert column(reward_table([in_hash], "18", for_format(GSM8K, HASH), ALL), -1) == ["1.30"]
    assert column(reward_table([in_hash], "18", GSM8K, ALL), -1) == ["0.10"]
    assert reward_table([], "18", GSM8K, ALL).count("\n") == 1
