from dataclasses import FrozenInstanceError

import pytest

from nblib.sources.rows import (
    Dataset,
    Row,
    content_sha256,
    control_piece,
    sample_rows,
    split_validation,
)


def row(question="How many?", answer="2+3 = <<2+3=5>>5\n#### 5", *, index=0, place=""):
    fields = {"question": question, "answer": answer}
    return Row(id=f"gsm8k/train/{index}", fields=fields, place=place)


TEN = tuple(row(f"Question {index}?", index=index) for index in range(10))


def test_a_row_is_named_by_its_place_and_id():
    assert row(place="train.jsonl line 1").named == "train.jsonl line 1 (gsm8k/train/0)"
    assert row().named == "row gsm8k/train/0"


@pytest.mark.parametrize(
    "value",
    [
        row(),
        Dataset(name="gsm8k", origin="here", train=(), test=(), sha256={}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_source_hands_on_cannot_be_changed(value):
    (name, *_) = vars(value)
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)


def test_the_first_piece_that_controls_a_chat_is_found():
    assert control_piece("2 + 2?<end_of_turn>\n<bos>") == "<end_of_turn>"
    assert control_piece("a <table> of [image] and <unused>") is None


def test_content_hash_ignores_order_and_ids_but_no_character():
    one, two = row("a", "#### 1", index=1), row("b", "#### 2", index=2)
    assert content_sha256([one, two]) == content_sha256([row("b", "#### 2"), row("a", "#### 1")])
    assert content_sha256([one, two]) != content_sha256([one, row("b", "#### 2 ")])
    assert content_sha256([one]) != content_sha256([one, one])
    # printf '["a", "#### 1"]\n["b", "#### 2"]\n' | sha256sum
    assert content_sha256([two, one]) == (
        "1223b1b58efe5664413624d54fac23d036291a39d606666561d6d8edea3f2857"
    )


def test_content_is_what_the_fields_hold_whatever_json_it_is():
    slots = Row(id="x/0", fields={"text": "a", "slots": {"b": [1, None], "a": 2}})
    turned = Row(id="x/1", fields={"text": "a", "slots": {"a": 2, "b": [1, None]}}, group="other")
    assert content_sha256([slots]) == content_sha256([turned])
    other = Row(id="x/0", fields={"text": "a", "slots": {"b": [1, 0], "a": 2}})
    assert content_sha256([slots]) != content_sha256([other])


@pytest.mark.parametrize("count", [0, None, 10, 11])
def test_sample_of_all_keeps_the_order(count):
    assert sample_rows(TEN, count, seed=1) == TEN


def test_sample_is_fixed_by_its_seed_and_nested():
    four = sample_rows(TEN, 4, seed=1)
    assert len({one.id for one in four}) == 4
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
    data = Dataset.of("gsm8k", "here", tuple(train), tuple(test))
    assert data.notes == (
        "train: 2 of 4 questions are repeated",
        "overlap: 1 questions are in both train and test",
    )
    assert data.sha256 == {"train": content_sha256(train), "test": content_sha256(test)}
    assert Dataset.of("gsm8k", "here", TEN, tuple(test)).notes == ()
