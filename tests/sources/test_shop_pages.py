"""The built-in shop pages: one draw by seed, no name in both splits, and what stands in a page."""

import re
from collections import Counter
from decimal import Decimal
from itertools import islice

import pytest

from nblib.sources.datasets import get_dataset
from nblib.sources.html_text import visible_text
from nblib.sources.shop_pages import (
    NAVIGATION,
    PRODUCT,
    SLOT_SPECS,
    _words,
    filler_lines,
    shop_pages,
)
from nblib.tasks.comparators import normalized, number_readings
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.extraction_rows import normalise_extractions
from nblib.tasks.task import check_task

COUNT = 1000
LOCALES = _words()["locales"]


@pytest.fixture(scope="module")
def pages():
    return {split: shop_pages(COUNT, seed=0, split=split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def products(pages):
    """(the cleaned page without what is asked, its slots) of all products."""
    found = [one for drawn in pages.values() for one in drawn if one["task"] == PRODUCT]
    return [(page_of(one), one["response_strong"]) for one in found]


def page_of(record):
    return visible_text(record["prompt_text"]).partition("\n\n")[2]


def names_of(record):
    """The made-up names in a record: the shop's, the product's and the brand's."""
    shop = record["metadata"]["domain"].removesuffix(".example").capitalize()
    slots = record["response_strong"] if record["task"] == PRODUCT else {}
    return {shop, *(slots[name].split()[0] for name in ("name", "brand") if slots.get(name))}


def prices_of(page, locale):
    """The lines with a price, as the prices in each."""
    begin, end = (re.escape(part) for part in locale["price"].split("{n}"))
    price = re.compile(rf"{begin}(\d[\d.,']*(?: \d{{3}})*(?:,\d\d)?){end}")
    return [found for line in page.splitlines() if (found := price.findall(line))]


def test_the_same_seed_gives_the_same_and_more_of_it(pages):
    for split, drawn in pages.items():
        assert shop_pages(COUNT, seed=0, split=split) == drawn
        assert shop_pages(30, seed=0, split=split) == drawn[:30]
    assert shop_pages(0, seed=0, split="train") == ()


def test_another_seed_gives_other_pages_to_train_on_and_the_same_test(pages):
    train, test = (shop_pages(COUNT, seed=1, split=split) for split in ("train", "test"))
    assert test == pages["test"]
    same = sum(
        one["prompt_text"] == other["prompt_text"]
        for one, other in zip(train, pages["train"], strict=True)
    )
    assert same < COUNT // 20


def test_both_kinds_come_in_turn_and_ids_count(pages):
    for split, drawn in pages.items():
        assert [one["task"] for one in drawn] == [PRODUCT, NAVIGATION] * (COUNT // 2)
        assert [one["id"] for one in drawn] == [f"shop/{split}/{n}" for n in range(COUNT)]
        assert {one["metadata"]["split"] for one in drawn} == {split}


def test_train_and_test_share_no_name(pages):
    train, test = (set().union(*map(names_of, drawn)) for drawn in pages.values())
    assert len(train) > 1000 and len(test) > 700
    assert not train & test
    more = shop_pages(COUNT, seed=7, split="train")
    assert not set().union(*map(names_of, more)) & test


def test_no_name_can_be_spelled_with_other_syllables():
    """Else a name of the one split could be one of the other: none begins with another."""
    syllables = _words()["syllables"]
    assert len({*syllables}) == len(syllables)
    assert not [(a, b) for a in syllables for b in syllables if a != b and b.startswith(a)]


def test_a_name_of_the_other_split_is_nowhere_in_a_page(pages):
    test = set().union(*map(names_of, pages["test"]))
    for record in pages["train"]:
        assert not test & {*re.findall(r"\w+", record["prompt_text"])}, record["id"]


def test_each_locale_is_there(products):
    currencies = Counter(slots["currency"] for _, slots in products if slots["price"])
    assert {*currencies} == {locale["currency"] for locale in LOCALES.values()}
    assert currencies["EUR"] > 1.5 * currencies["USD"]  # two locales
    shown = " ".join(page for page, _ in products)
    for name, locale in LOCALES.items():
        colour = locale["colour"].format(c="")
        assert shown.count(colour) > 40, name
        assert {slots["colour"] for _, slots in products} & {*locale["colours"]}


def test_about_half_of_the_slots_are_absent(products):
    absent = {
        slot: sum(slots[slot] is None for _, slots in products) / len(products)
        for slot in SLOT_SPECS
    }
    assert absent.pop("name") == 0
    assert absent.pop("price") == absent.pop("currency") == pytest.approx(0.2, abs=0.05)
    assert all(0.35 < share < 0.65 for share in absent.values()), absent


def test_no_page_says_what_is_absent(products):
    colours = {colour for locale in LOCALES.values() for colour in locale["colours"]}
    stock = {locale[word] for locale in LOCALES.values() for word in ("there", "gone")}
    for page, slots in products:
        lines, words = page.splitlines(), {*re.findall(r"\w+", page)}
        if slots["colour"] is None:
            assert not colours & words, page
        if slots["in_stock"] is None:
            assert not stock & {*lines}, page
        if slots["sizes"] is None:
            assert not {"S", "M", "L", "XL"} & words, page


def test_old_prices_and_shipping_stand_beside_the_right_price(products):
    beside = alone = without = 0
    for locale in LOCALES.values():
        shipping = locale["shipping"].split(" {p}")[0]
        for page, slots in products:
            if slots["currency"] not in (None, locale["currency"]):
                continue
            lines = prices_of(page, locale)
            beside += any(len(line) == 2 for line in lines)
            alone += [*map(len, lines)] == [1]
            without += slots["price"] is None and any(
                line.startswith(shipping) for line in page.splitlines()
            )
    assert beside > 200 and alone > 100
    assert without > 20  # a price that is none of the product


def test_the_price_can_be_read_in_its_page_as_its_locale_writes_it(products):
    priced = 0
    for page, slots in products:
        if slots["price"] is None:
            continue
        locales = [one for one in LOCALES.values() if one["currency"] == slots["currency"]]
        lines = [line for locale in locales for line in prices_of(page, locale)]
        readings = [number_readings(price) for line in lines for price in line]
        assert any(Decimal(str(slots["price"])) in found for found in readings), page
        priced += 1
    assert priced > 700


def test_prices_as_they_are_written(products):
    shown = " ".join(page for page, _ in products)
    for written in (
        *(r"\$\d,\d{3}\.\d\d", r"£\d,\d{3}(?!\.)", r"\d\.\d{3},\d\d €", r"\d \d{3},\d\d €"),
        *(r"CHF \d'\d{3}", r"R\$ \d\.\d{3}", r"\d+ €", r"\$\d+\.50"),
    ):
        assert re.search(written, shown), written


def test_what_should_stand_in_a_page_word_for_word_does(products):
    verbatim = [name for name, spec in SLOT_SPECS.items() if spec.get("verbatim")]
    assert verbatim == ["name", "brand", "colour"]
    for page, slots in products:
        for name in verbatim:
            if slots[name] is not None:
                assert normalized(slots[name]) in normalized(page), (name, page)


def test_every_record_is_an_example_of_the_task(pages):
    for seed in (0, 1):
        data = get_dataset("builtin", task="extraction", num_train=300, num_test=300, seed=seed)
        for rows in (data.train, data.test):
            checked = normalise_extractions(rows)
            assert checked.refused == () and checked.rows == rows
            check_task(EXTRACTION, EXTRACTION.examples(rows))
        kept = [gold for gold in checked.gold.values() if gold.verbatim]
        assert len(kept) == 3 and all(one.kept == one.in_page == one.verbatim for one in kept)


def test_the_dataset_has_the_same_test_for_every_seed_and_no_page_twice():
    one, other = (
        get_dataset("builtin", task="extraction", num_train=400, num_test=100, seed=seed)
        for seed in (0, 1)
    )
    assert one.test == other.test and len(one.test) == 100
    prompts = [{row.fields["prompt"] for row in rows} for rows in (one.train, one.test)]
    assert not prompts[0] & prompts[1] and len(one.train) > 340


def test_a_page_is_a_page_of_a_crawler_and_no_placeholder_is_left(pages):
    for drawn in pages.values():
        for record in drawn:
            asked, _, html = record["prompt_text"].partition("\n\n")
            assert html.startswith("<html><head><title>") and html.endswith("</body></html>")
            page = page_of(record)
            assert page and not re.search("[{}<]|&[a-z#]", page), page
            assert "{" not in asked


def test_answers_of_one_word_are_both_common(pages):
    words = Counter(one["response_strong"] for one in pages["train"] if one["task"] == NAVIGATION)
    assert {*words} == {"YES", "NO"} and min(words.values()) > 0.4 * words.total()


@pytest.mark.parametrize("split", ["validation", "", "Train"])
def test_an_unknown_split_is_named(split):
    with pytest.raises(ValueError, match=rf"split is {split!r}, expected 'train' or 'test'"):
        shop_pages(1, seed=0, split=split)


def test_filler_says_nothing_of_a_product_and_has_no_end():
    lines = [*islice(filler_lines("a"), 2000)]
    assert lines == [*islice(filler_lines("a"), 2000)] != [*islice(filler_lines("b"), 2000)]
    colours = {colour for locale in LOCALES.values() for colour in locale["colours"]}
    for line in set(lines):
        words = {word.strip(".,").casefold() for word in line.split()}
        assert not words & colours and not re.search(r"[$€£]|R\$|CHF|[Bb]rand|price|[Ss]tock", line)
