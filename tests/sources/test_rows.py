from dataclasses import FrozenInstanceError

import pytest

from nblib.sources.gsm8k import Gsm8k
from nblib.sources.rows import (
    Dataset,
    Row,
    check_rows,
    content_sha256,
    duplicate_notes,
    filter_levels,
    level_of,
    sample_rows,
    split_validation,
)


def row(question="How many?", answer="2+3 = <<2+3=5>>5\n#### 5", *, index=0, level=None):
    return Row(id=f"gsm8k/train/{index}", question=question, answer=answer, level=level)


def line(index):
    return f"train.jsonl line {index + 1}"


TEN = tuple(row(f"Question {index}?", index=index) for index in range(10))


@pytest.mark.parametrize(
    "number", ["18", "-5", "+5", "1,250", "$70", "-$7", "0.5", ".5", "1,250.75"]
)
def test_published_number_forms_are_readable(number):
    check_rows([row(answer=f"#### {number}")], where=line)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (row(question=" \n"), "the question is empty"),
        (row(answer="the answer is 5"), "has no '####'"),
        (row(answer="#### five"), "unreadable number 'five'"),
        (row(answer="#### "), "unreadable number ''"),
        (row(answer="#### -"), "unreadable number '-'"),
        (row(answer="#### 5."), "unreadable number '5.'"),
        (row(answer="#### 1,25"), "unreadable number '1,25'"),
        (row(answer="#### 5 apples"), "unreadable number '5 apples'"),
        (row(answer="#### 1/2"), "unreadable number '1/2'"),
        (row(answer="#### \u0665"), "unreadable number '\u0665'"),
    ],
)
def test_a_broken_row_is_named_by_file_line_and_id(broken, reason):
    with pytest.raises(ValueError, match=r"^train.jsonl line 2 \(gsm8k/train/0\): ") as raised:
        check_rows([row(), broken], where=line)
    assert reason in str(raised.value)


def test_of_a_long_answer_the_error_shows_the_last_60_characters():
    with pytest.raises(ValueError, match=f"got '{'b' * 60}'; correct or remove"):
        check_rows([row(answer="a" + "b" * 60)], where=line)


@pytest.mark.parametrize(
    "value",
    [
        row(),
        Dataset(name="gsm8k", origin="here", train=(), test=(), sha256={}),
        Gsm8k(origin="here", train=(), test=()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_source_hands_on_cannot_be_changed(value):
    (name, *_) = vars(value)
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)


CONTROL = [
    *("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<unused7>", "[multimodal]"),
]


@pytest.mark.parametrize("piece", CONTROL)
def test_a_row_cannot_forge_a_turn_of_the_chat(piece):
    forged = f"2 + 2?{piece}\n4"
    for broken in (
        row(question=forged),
        row(answer=f"{forged}\n#### 5"),
        row(answer=f"{piece[:3]}<<1+1=2>>{piece[3:]}\n#### 5"),  # whole without its annotation
    ):
        with pytest.raises(ValueError, match=r"^train.jsonl line 2 .*controls the chat") as raised:
            check_rows([row(), broken], where=line)
        assert repr(piece) in str(raised.value)


def test_markup_that_controls_nothing_is_text():
    for text in ("a <table> of 2 < 3 > 1", "<answer>", "[image]", "the <end_of_turns>", "<unused>"):
        check_rows([row(question=text, answer=f"{text}\n#### 5")], where=line)


def test_every_piece_that_a_tokenizer_reads_as_a_mark_is_known(tokenizer):
    pieces = [tokenizer.id_to_piece(id) for id in range(len(tokenizer))]
    marks = [p for p in pieces if p[0] == "<" and p[-1] == ">" and len(tokenizer.encode(p)) == 1]
    assert marks == ["<start_of_turn>", "<end_of_turn>"]  # no text becomes <unk>, <s> or <pad>
    for piece in marks:
        with pytest.raises(ValueError, match="controls the chat"):
            check_rows([row(question=piece)], where=line)


def test_the_last_mark_counts():
    check_rows([row(answer="#### is the mark\n#### 7")], where=line)
    with pytest.raises(ValueError, match="unreadable number 'none'"):
        check_rows([row(answer="#### 7\n#### none")], where=line)


def test_content_hash_ignores_order_and_ids_but_no_character():
    one, two = row("a", "#### 1", index=1), row("b", "#### 2", index=2)
    assert content_sha256([one, two]) == content_sha256([row("b", "#### 2"), row("a", "#### 1")])
    assert content_sha256([one, two]) != content_sha256([one, row("b", "#### 2 ")])
    assert content_sha256([one]) != content_sha256([one, one])
    # printf '["a", "#### 1"]\n["b", "#### 2"]\n' | sha256sum
    assert content_sha256([two, one]) == (
        "1223b1b58efe5664413624d54fac23d036291a39d606666561d6d8edea3f2857"
    )


def test_level_is_the_sources_or_the_number_of_annotations():
    assert level_of(row(level=4)) == 4
    assert level_of(row(answer="<<1+1=2>>2\n<<2*3=6>>6\n#### 6")) == 2
    assert level_of(row(answer="So five.\n#### 5")) == 1


def test_filter_levels_keeps_order_and_counts_the_dropped():
    rows = tuple(row(level=level) for level in (1, 5, 2, 1))
    assert filter_levels(rows, [1, 2]) == ((rows[0], rows[2], rows[3]), 1)
    assert filter_levels(rows, []) == (rows, 0)


@pytest.mark.parametrize("count", [0, None, 10, 11])
def test_sample_of_all_keeps_the_order(count):
    assert sample_rows(TEN, count, seed=1) == TEN


def test_sample_is_fixed_by_its_seed_and_nested():
    four = sample_rows(TEN, 4, seed=1)
    assert len(set(four)) == 4
    assert sample_rows(TEN, 6, seed=1)[:4] == four
    assert sample_rows(TEN, 4, seed=2) != four


def test_sample_does_not_depend_on_the_sources_order():
    assert sample_rows(TEN[::-1], 4, seed=1) == sample_rows(TEN, 4, seed=1)


def test_negative_sample_is_refused():
    with pytest.raises(ValueError, match="count is -2, expected -1"):
        sample_rows(TEN, -2, seed=0)


@pytest.mark.parametrize(
    ("count", "held"), [(2, 1), (25, 1), (29, 1), (30, 2), (49, 2), (1990, 100), (2100, 100)]
)
def test_the_last_twentieth_is_held_back_rounded_and_at_least_1_and_at_most_100(count, held):
    rows = tuple(row(index=index) for index in range(count))
    assert split_validation(rows) == (rows[: count - held], rows[count - held :])


def test_the_share_and_the_most_to_hold_back_can_be_given():
    assert split_validation(TEN, share=0.26) == (TEN[:7], TEN[7:])
    assert split_validation(TEN, share=0.9, most=2) == (TEN[:8], TEN[8:])


def test_one_row_cannot_be_split():
    with pytest.raises(ValueError, match="1 training rows: expected at least 2"):
        split_validation(TEN[:1])


def test_duplicates_and_overlap_are_counted_without_case_and_white_space():
    train = [row("How many  eggs?"), row("how many eggs?\n"), row("HOW MANY EGGS?"), row("Else?")]
    test = [row("New?"), row("how MANY eggs?")]
    assert duplicate_notes(train, test) == (
        "train: 2 of 4 questions are repeated",
        "overlap: 1 questions are in both train and test",
    )
    assert duplicate_notes(TEN, test) == ()
