"""The travel requests: one draw by seed, splits apart, and nothing said that was not asked."""

import json
import re

import pytest

from nblib.sources.travel import _words, travel_requests
from nblib.tasks.envelope import ENVELOPE, PAYLOAD_TYPES
from nblib.tasks.task import check_task

COUNT = 400
CITIES, MONTHS = ("|".join(_words()[name]) for name in ("cities", "months"))


@pytest.fixture(scope="module")
def rows():
    return {split: travel_requests(COUNT, seed=0, split=split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def all_rows(rows):
    return rows["train"] + rows["test"]


def said(row) -> str:
    return json.dumps(row.fields["response"])


def said_of(pattern: str, text: str) -> set[str]:
    return set(re.findall(rf"\b(?:{pattern})\b", text))


def place(row) -> tuple[str, str]:
    (city,) = said_of(CITIES, row.fields["prompt"])
    return city, row.fields["payload_type"]


def test_the_same_seed_gives_the_same_and_more_of_it(rows):
    for split, drawn in rows.items():
        assert travel_requests(COUNT, seed=0, split=split) == drawn
        assert travel_requests(30, seed=0, split=split) == drawn[:30]
    assert travel_requests(0, seed=0, split="train") == ()


def test_another_seed_gives_other_rows_to_train_on_and_the_same_test(rows):
    train, test = (travel_requests(COUNT, seed=1, split=split) for split in ("train", "test"))
    assert test == rows["test"]
    same = sum(one.fields == other.fields for one, other in zip(train, rows["train"], strict=True))
    assert same < COUNT // 20


def test_train_and_test_share_no_city_and_type(rows):
    train, test = ({place(row) for row in rows[split]} for split in ("train", "test"))
    assert not train & test
    assert 60 < len(test) <= 96  # 24 of 120 cities for each of the types
    assert len({city for city, _ in train}) > 100


def test_the_types_come_in_turn_and_ids_count(rows):
    for split, drawn in rows.items():
        assert tuple(row.group for row in drawn) == PAYLOAD_TYPES * (COUNT // 4)
        for index, row in enumerate(drawn):
            fields = row.fields
            assert row.id == f"travel/{split}/{index}"
            assert row.group == fields["payload_type"] == fields["response"]["payload_type"]


def test_every_response_is_a_valid_envelope(all_rows):
    check_task(ENVELOPE, ENVELOPE.examples(all_rows))


def test_an_envelope_says_no_city_month_or_budget_that_the_prompt_does_not(all_rows):
    for row in all_rows:
        for pattern in (CITIES, MONTHS, r"\d+ euros"):
            assert said_of(pattern, said(row)) <= said_of(pattern, row.fields["prompt"]), row
    budgets = [row for row in all_rows if "euros" in said(row)]
    assert len(budgets) > 50  # else nothing was checked


def test_an_itinerary_has_the_days_and_the_interests_that_were_asked_for(all_rows):
    wishes = "|".join(_words()["interests"])
    for row in all_rows:
        if row.group == "itinerary":
            days = row.fields["response"]["payload"]["trip_days"]
            (asked,) = re.findall(r"(\d) days", row.fields["prompt"])
            assert [day["day"] for day in days] == [*range(1, int(asked) + 1)], row
            likes = {day["summary"] for day in days}
            wanted = said_of(wishes, row.fields["prompt"])
            assert likes == {f"A day of {wish}." for wish in wanted}, row


def test_no_placeholder_is_left(all_rows):
    for row in all_rows:
        texts = [row.fields["prompt"], *re.findall(r'"((?:[^"\\]|\\.)*)"', said(row))]
        assert not any(re.search("[{}]", text) for text in texts), row


def test_no_prompt_is_in_both_splits(rows):
    train, test = ({row.fields["prompt"] for row in rows[split]} for split in ("train", "test"))
    assert not train & test


@pytest.mark.parametrize("split", ["validation", "", "Train"])
def test_an_unknown_split_is_named(split):
    with pytest.raises(ValueError, match=rf"split is {split!r}, expected 'train' or 'test'"):
        travel_requests(1, seed=0, split=split)
