import re
from itertools import pairwise

import pytest

from nblib.sources import wordproblems
from nblib.sources.rows import content_sha256
from nblib.sources.wordproblems import DISTRACTORS, LEVELS, PEOPLE, SCENES, word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import check_task

COUNT = 2000
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = \$?<<(.+?)=(\d+)>>(\d+)(?!\d)")
OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
NAMES = re.compile(rf"\b(?:{'|'.join(name for name, _, _ in PEOPLE)})\b")
IN_WORDS = {"half": 2, "third": 3, "quarter": 4, "fifth": 5, "twice": 2, "double": 2}
DISTRACTOR = re.compile(
    "|".join(text.format(bystander=r"[A-Z]\w+", n=r"\d+") for text in DISTRACTORS)
)


@pytest.fixture(scope="module")
def rows():
    return {
        split: word_problems(COUNT, seed=0, split=split, levels=LEVELS)
        for split in ("train", "test")
    }


@pytest.fixture(scope="module")
def all_rows(rows):
    return rows["train"] + rows["test"]


def step_lines(row):
    return row.fields["answer"].split("\n")[:-1]


def steps_of(row):
    """(a, b, result) of each line."""
    found = [STEP.search(line) for line in step_lines(row)]
    return [(int(step[1]), int(step[3]), int(step[6])) for step in found]


def sentences(row):
    return re.split(r"(?<=[.?]) ", row.fields["question"])


def story(row):
    """The question without the sentence that is not needed."""
    return " ".join(s for s in sentences(row) if not DISTRACTOR.fullmatch(s))


def skeleton(row):
    words = [word for scene in SCENES for word in (*scene.things, *scene.places)]
    text = NAMES.sub("X", re.sub(r"\d+", "N", row.fields["question"]))
    text = re.sub(rf"\b(?:{'|'.join(words)})\b", "T", text)
    return re.sub(r"\b(?:he|she|his|her)\b", "they", text, flags=re.IGNORECASE)


def test_every_step_comes_to_what_it_says(all_rows):
    for row in all_rows:
        for line in step_lines(row):
            a, sign, b, inner, inner_result, result = STEP.search(line).groups()
            assert (inner, inner_result) == (f"{a}{sign}{b}", result), row
            assert OPERATIONS[sign](int(a), int(b)) == int(result), row


def test_there_are_as_many_steps_as_the_level_says(all_rows):
    for row in all_rows:
        assert len(step_lines(row)) == row.fields["answer"].count("<<") == int(row.group), row


def test_the_answer_is_the_last_result_and_every_number_is_whole_and_positive(all_rows):
    for row in all_rows:
        assert re.fullmatch(
            rf"#### {steps_of(row)[-1][2]}", row.fields["answer"].split("\n")[-1]
        ), row
        text = re.sub("<<.+?>>", "", row.fields["question"] + row.fields["answer"])
        assert not re.search(r"\d[.,]\d|-\d|\b0", text), row


def test_the_steps_go_on_from_each_other_and_use_just_what_the_story_tells(all_rows):
    for row in all_rows:
        steps = steps_of(row)
        assert all(before[2] == after[0] for before, after in pairwise(steps)), row
        stated = [int(number) for number in re.findall(r"\d+", story(row))]
        in_words = {value for word, value in IN_WORDS.items() if word in row.fields["question"]}
        worked_out = {steps[0][0], *(result for *_, result in steps)}
        others = {b for _, b, _ in steps}
        assert steps[0][0] == stated[0], row
        assert others <= {*stated, *in_words, *worked_out} and {*stated[1:]} <= others, row


def test_only_from_level_3_on_is_there_a_number_that_is_not_needed(all_rows):
    extra = {level: [] for level in LEVELS}
    for row in all_rows:
        extra[int(row.group)].append(sum(bool(DISTRACTOR.fullmatch(s)) for s in sentences(row)))
    assert sum(extra[1]) == sum(extra[2]) == 0
    for level in (3, 4, 5):
        assert set(extra[level]) == {0, 1}
        assert 0.3 < sum(extra[level]) / len(extra[level]) < 0.5


def test_the_question_comes_last_and_asks_once(all_rows):
    for row in all_rows:
        assert row.fields["question"].endswith("?") and row.fields["question"].count("?") == 1, row
        assert not re.search(r"[{}]|  |\$\$", row.fields["question"] + row.fields["answer"]), row
    check_task(GSM8K, GSM8K.examples(all_rows))


def test_levels_come_in_turn_and_ids_count(rows):
    few = word_problems(7, seed=0, split="test", levels=(1, 1, 4))
    assert [int(row.group) for row in few] == [1, 1, 4, 1, 1, 4, 1]
    assert [row.id for row in few[:2]] == ["builtin/test/0", "builtin/test/1"]
    assert [int(row.group) for row in rows["train"][:6]] == [1, 2, 3, 4, 5, 1]


def test_the_same_seed_tells_the_same_and_more_of_it(rows):
    again = word_problems(COUNT, seed=0, split="train")
    assert again == rows["train"]
    assert word_problems(30, seed=0, split="train") == rows["train"][:30]


def test_another_seed_tells_others(rows):
    other = word_problems(COUNT, seed=1, split="train")
    shared = {row.fields["question"] for row in other} & {
        row.fields["question"] for row in rows["train"]
    }
    assert len(shared) < COUNT // 100


def test_the_rows_are_those_that_the_embedded_model_learnt_from():
    # If this changes on purpose, the model in nblib/models/embedded must be trained again (v0).
    train = word_problems(500, seed=0, split="train")
    test = word_problems(500, seed=0, split="test")
    assert content_sha256(train)[:12] == "456eca81aaf8"
    assert content_sha256(test)[:12] == "c91973af9631"


def test_no_question_is_told_twice_or_in_both_splits(rows):
    train, test = ({row.fields["question"] for row in rows[split]} for split in ("train", "test"))
    assert len(train) == len(test) == COUNT
    assert not train & test


def test_train_and_test_share_no_template_with_the_same_numbers(monkeypatch):
    pairs = {"train": set(), "test": set()}
    make, split_of, last = wordproblems._problem, wordproblems._split_of, []

    def remembered(story):
        last[:] = [*story.template, *story.numbers]
        return split_of(story)

    def recorded(rng, level, split, **choices):
        row = make(rng, level, split, **choices)
        if row is not None:
            pairs[split].add(tuple(last))
        return row

    monkeypatch.setattr(wordproblems, "_split_of", remembered)
    monkeypatch.setattr(wordproblems, "_problem", recorded)
    for split in pairs:  # one step: there the pairs are few, and would soon meet
        word_problems(COUNT, seed=3, split=split, levels=(1,))
    assert min(map(len, pairs.values())) > 400
    assert not pairs["train"] & pairs["test"]


def test_nobody_is_given_two_amounts(monkeypatch):
    compare = next(scene for scene in SCENES if scene.name == "compare")
    monkeypatch.setattr(wordproblems, "SCENES", (compare,))
    for row in word_problems(500, seed=0, split="train", levels=(3, 4, 5)):
        seen: set[str] = set()
        for sentence in sentences(row)[:-1]:
            names = set(NAMES.findall(sentence))
            if DISTRACTOR.fullmatch(sentence):
                assert not names & seen, row
            else:
                assert len(names - seen) == 1, row  # each sentence tells of one new person
                seen |= names


def test_wording_varies(rows):
    of_level = {level: [r for r in rows["train"] if int(r.group) == level] for level in LEVELS}
    distinct = {level: len({skeleton(r) for r in of_level[level]}) for level in LEVELS}
    assert distinct[1] > 150 and distinct[2] > 300 and distinct[3] > 380, distinct
    spoken_of = {name for row in rows["train"] for name in NAMES.findall(row.fields["question"])}
    assert spoken_of == {name for name, _, _ in PEOPLE}


@pytest.mark.parametrize("split", ["validation", "", "Train"])
def test_an_unknown_split_is_named(split):
    with pytest.raises(
        ValueError, match=rf"split {split!r} is unknown: expected 'train' or 'test'"
    ):
        word_problems(1, seed=0, split=split)


@pytest.mark.parametrize("levels", [(), (0,), (1, 6)])
def test_an_unknown_level_is_named(levels):
    with pytest.raises(ValueError, match=re.escape(f"levels {levels} must be some of")):
        word_problems(1, seed=0, split="train", levels=levels)


def test_more_problems_than_there_are_is_an_error_not_an_endless_loop(monkeypatch):
    (only,) = word_problems(1, seed=0, split="train", levels=(2,))
    monkeypatch.setattr(wordproblems, "_problem", lambda *_, **__: only)
    with pytest.raises(ValueError, match=r"levels \(2,\) hold fewer than 2 problems"):
        word_problems(2, seed=0, split="train", levels=(2,))


def value_of(part):
    """Sums and differences of numbers and products, left to right, worked out without eval."""
    total = 0
    for sign, product in re.findall(r"([-+]?) ?(\d+(?: \* \d+)?)", part):
        factors = [int(factor) for factor in product.split(" * ")]
        value = factors[0] * (factors[1] if len(factors) > 1 else 1)
        total += -value if sign == "-" else value
    return total


def test_in_long_hand_every_part_of_a_sum_is_worth_its_result():
    rows = word_problems(400, seed=3, split="train", levels=LEVELS, long_hand=1.0)
    parts = 0
    for line in (line for row in rows for line in step_lines(row)):
        found = re.search(r"(\d[-+*/ 0-9=]* = )\$?<<.+?=(\d+)>>", line)
        chain = found[1].removesuffix(" = ").split(" = ")
        if "/" in chain[0]:
            assert len(chain) == 1
            continue
        assert [value_of(part) for part in chain] == [int(found[2])] * len(chain), line
        parts += len(chain) - 1
    assert parts > 1000


def test_long_hand_is_a_share_of_the_solutions_and_by_default_none():
    def long(rows):
        return sum(any(" = " in line.split("<<")[0][:-3] for line in step_lines(r)) for r in rows)

    given = {"seed": 3, "split": "train", "levels": (3, 4)}
    assert long(word_problems(400, **given)) == 0
    assert 60 < long(word_problems(400, long_hand=0.25, **given)) < 140
    assert [int(row.group) for row in word_problems(6, long_hand=0.5, **given)] == [3, 4] * 3
    with pytest.raises(ValueError, match=r"long_hand 1.5 must be a share"):
        word_problems(1, long_hand=1.5, **given)


@pytest.mark.parametrize(
    ("kind", "a", "b", "parts"),
    [
        ("add", 47, 138, ["47 + 100 + 30 + 8", "147 + 30 + 8", "177 + 8"]),
        ("sub", 85, 38, ["85 - 30 - 8", "55 - 8"]),
        ("mul", 508, 4, ["500 * 4 + 8 * 4", "2000 + 32"]),
        ("add", 47, 8, []),
        ("sub", 47, 30, []),
        ("mul", 7, 4, []),
        ("mul", 30, 4, []),
        ("div", 84, 12, []),
    ],
)
def test_a_sum_of_one_place_is_done_in_one_go(kind, a, b, parts):
    assert wordproblems._by_place_value(kind, a, b) == parts
