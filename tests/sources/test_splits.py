"""Splits of rows: publishers' and ours, and that nothing to be asked was learnt by heart."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from string import ascii_lowercase

import pytest

from nblib.sources.rows import Row
from nblib.sources.splits import HELD_OUT, TRAIN, Page, repeats, split_pages, words_of

WORDS = [one + other for one in ("ba", "ko", "li", "mu", "ra", "se") for other in "bdfgklmnprst"]


def page(id_, text=None, *, task="product", **fields):
    text = prose(id_) if text is None else text
    return Page(row=Row(id=str(id_), fields={}, group=task), text=text, **fields)


def prose(seed, count=60):
    """A text of made-up words that has no line with another in common."""
    rng = random.Random(f"prose {seed}")
    lines = [" ".join(rng.choice(WORDS) for _ in range(8)) for _ in range(max(1, count // 8))]
    return "\n".join(lines)


def ids(rows):
    return {row.id for row in rows}


def left_out(train, test):
    """What is left out of train, as text -> how, of a train and a test split of texts."""
    pages = [page(f"train/{n}", text, split="train") for n, text in enumerate(train)]
    pages += [page(f"test/{n}", text, split="test") for n, text in enumerate(test)]
    found = repeats(pages[: len(train)], pages[len(train) :])
    return {train[index]: how for index, (_, how) in found.items()}


# ----------------------------------------------------------------- publishers' splits


def test_a_publishers_split_is_kept():
    pages = [page(f"{name}/{n}", split=name) for name in (*TRAIN, *HELD_OUT) for n in range(3)]
    train, test, notes = split_pages(pages)
    assert {one.id.split("/")[0] for one in train} == {*TRAIN} and len(train) == 3 * len(TRAIN)
    assert {one.id.split("/")[0] for one in test} == {*HELD_OUT} and notes == ()
    assert {"validate", "validation", "dev", "test"} <= {*HELD_OUT}


def test_the_case_of_a_publishers_split_does_not_count():
    train, test, _ = split_pages([page(1, split="Train "), page(2, split="TEST")])
    assert (ids(train), ids(test)) == ({"1"}, {"2"})


def test_an_unknown_split_is_refused_by_its_row():
    with pytest.raises(ValueError, match=r"row a/7: split is 'fold 3', expected one of train, "):
        split_pages([page(1, split="train"), page("a/7", split="fold 3")])


def test_rows_without_a_split_are_split_beside_those_that_have_one():
    pages = [page(f"a/{n}", split="train") for n in range(20)]
    pages += [page(f"b/{n}", task="news") for n in range(20)]
    train, test, _ = split_pages(pages)
    assert Counter(one.id[0] for one in test) == {"b": 2}
    assert len(train) == 38


# ----------------------------------------------------------------- our own


def test_whole_domains_are_held_out():
    pages = [page(f"{n % 25}/{n}", domain=f"shop{n % 25}.example") for n in range(200)]
    train, test, _ = split_pages(pages)
    shops = [{one.split("/")[0] for one in ids(rows)} for rows in (train, test)]
    assert not shops[0] & shops[1] and len(train) + len(test) == 200
    assert 20 <= len(test) <= 28  # a tenth, rounded up to whole domains of eight


def test_a_domain_is_one_whatever_its_case():
    pages = [page(n, domain=("a.example", "A.Example ", "b.example")[n % 3]) for n in range(30)]
    train, test, _ = split_pages(pages)
    assert {int(one) % 3 == 2 for one in ids(train)} != {int(one) % 3 == 2 for one in ids(test)}


def test_each_task_has_its_share():
    sizes = {"product": 200, "news": 40, "rare": 10}
    pages = [
        page(f"{task}/{n}", task=task, domain=f"{task}{n // 2}.example")
        for task, count in sizes.items()
        for n in range(count)
    ]
    _, test, _ = split_pages(pages)
    assert Counter(one.group for one in test) == {"product": 20, "news": 4, "rare": 2}


@pytest.mark.parametrize("domain", ["a.example", ""])
def test_one_domain_or_none_is_parted_by_pages(domain):
    train, test, _ = split_pages([page(n, domain=domain) for n in range(50)])
    assert (len(train), len(test)) == (45, 5)


def test_a_large_domain_is_not_held_out_where_a_small_one_will_do():
    for seed in range(10):
        names = [f"large{seed}"] * 90 + [f"small{seed}"] * 10
        train, test, _ = split_pages([page(n, domain=name) for n, name in enumerate(names)])
        assert (len(train), len(test)) == (90, 10)


def test_the_same_text_without_a_domain_is_not_parted():
    pages = [page(n, prose(n // 2)) for n in range(60)]
    train, test, notes = split_pages(pages)
    assert len(train) + len(test) == 60 and notes == ()


def test_a_single_page_is_learnt():
    train, test, _ = split_pages([page(1), *(page(n, task="news") for n in range(2, 12))])
    assert "1" in ids(train) and len(test) == 1
    assert split_pages([]) == ((), (), ())


# ----------------------------------------------------------------- repeats

LONG = prose("long", 600)


def test_planted_repeats_are_left_out_and_named():
    tests = [*(prose(n) for n in range(20)), LONG]
    typo = tests[3].replace("k", "kk", 1)
    planted = {
        "case": tests[0].upper(),
        "marks": tests[1].replace(" ", ", ") + "!",
        "space": tests[2].replace("\n", " \n\n ").replace(" ", " \u00a0"),
        "typo": typo,
        "word": LONG.replace("\n", "\nnow ", 1),
    }
    pages = [page(f"own/{n}", split="train") for n in range(100, 120)]
    pages += [page(name, text, split="train") for name, text in planted.items()]
    pages += [page(f"test/{n}", text, split="test") for n, text in enumerate(tests)]
    train, test, notes = split_pages(pages)
    assert ids(train) == {f"own/{n}" for n in range(100, 120)} and len(test) == 21
    assert notes == (
        "train: 3 rows left out that repeat a test row exactly, such as case (test row test/0)",
        "train: 2 rows left out that repeat a test row nearly, such as typo (test row test/3)",
    )


def test_long_pages_with_many_typos_are_found():
    """One letter in 60 is another: 97 % of the text is as it was, but hardly a line."""
    rng, tests = random.Random(0), [prose(n, 400) for n in range(30)]
    typed = [
        "".join(rng.choice(ascii_lowercase) if rng.random() < 1 / 60 else sign for sign in text)
        for text in tests
    ]
    assert left_out([*typed, prose("own", 400)], tests) == dict.fromkeys(typed, "nearly")


def test_other_numbers_and_other_names_are_no_repeats():
    test = [
        "I would like to book a table for 4 people tomorrow at seven o'clock in the evening",
        "My name is Edie Can and I need to cancel lunch on Friday, December the 28th. Thank you",
        "I would like to see the new film at the Rialto with two friends of mine this evening",
    ]
    other = [
        test[0].replace("4", "5"),
        test[1].replace("Edie Can", "Bert Franc"),
        test[2].replace("Rialto", "Capitol"),
        test[1].replace("28", "27"),
    ]
    slips = [test[0].replace("people", "poeple"), test[2].replace("the new", "the very new")]
    assert left_out([*other, *slips], test) == dict.fromkeys(slips, "nearly")


@pytest.mark.parametrize("count", [6, 400])
def test_texts_of_one_template_are_no_repeats_but_planted_ones_are(count):
    """Few of a template are compared, many share its shingles: then only others count."""
    rng = random.Random(0)
    names = ["".join(rng.choices(ascii_lowercase, k=8)) for _ in range(count)]
    texts = [f"Please cancel the table that {name} booked for Friday evening." for name in names]
    test, train = texts[: count // 2], texts[count // 2 :]
    slip = test[1].replace("evening", "evenning")
    found = left_out([*train, slip, test[2].upper()], test)
    assert found == {slip: "nearly", test[2].upper(): "exactly"}


def test_the_line_that_asks_and_the_menu_do_not_make_pages_alike():
    asked = f"Read the product as JSON. {'Null is what is not said. ' * 20}"
    menu = "\n".join(f"{word} for your home and garden" for word in WORDS[:40])
    texts = [f"{asked}\n\n{menu}\n{prose(n, 8)}" for n in range(40)]
    assert left_out(texts[:30], texts[30:]) == {}
    slip = texts[35].replace("l", "ll", 5)
    assert left_out([*texts[:30], slip.replace(asked.replace("l", "ll", 5), asked)], texts[30:])


def test_a_long_head_does_not_make_pages_alike():
    """What pages differ in may come after thousands of characters that two of them share."""
    head = prose("head", 1200)
    assert len(head) > 4000
    one, other = f"{head}\n{prose(1, 300)}", f"{head}\n{prose(2, 300)}"
    assert left_out([one], [other]) == {}


def test_of_a_long_page_another_date_counts_where_its_answer_is_another():
    one, other = f"{LONG}\n3 left, 12 May", f"{LONG}\n2 left, 30 June"
    train = [page("same", one, answer={"n": 1}), page("other", one, answer={"n": 2})]
    assert repeats(train, [page("test", other, answer={"n": 1})]) == {0: (0, "nearly")}


def test_signs_that_are_no_punctuation_count():
    assert left_out(["Price: $12"], ["price £12"]) == {}
    assert left_out(["C++"], ["C"]) == {}
    assert left_out(["Price: $12!"], ["price - $12"]) == {"Price: $12!": "exactly"}


def test_words_of_every_script():
    assert words_of("Caf\u00e9, NOIR") == words_of("cafe\u0301\tnoir!")
    assert words_of("\u0915\u093f") != words_of("\u0915\u093e")  # vowel signs are no punctuation
    assert words_of("日本、東京") == "日本 東京"
    assert words_of("a\x00b\u200bc") == "a b c" and words_of("...") == ""


def test_texts_without_words_and_half_characters_do_not_end_it():
    found = left_out(["", "!", "x", "\ud800" * 20, "👍"], ["?", "👍👍", "\ud801 y"])
    assert found == dict.fromkeys(["", "!", "\ud800" * 20], "exactly")
    assert split_pages([page(n, domain=f"\ud800{n}") for n in range(20)])[2] == ()


# ----------------------------------------------------------------- what it must not depend on


def many_pages():
    pages = [page(f"p/{n}", domain=f"d{n % 30}") for n in range(150)]
    pages += [page(f"q/{n}", prose(f"p/{n}") + " more", task="news") for n in range(0, 150, 5)]
    pages += [page(f"r/{n}", prose(n % 40), task="half", domain=f"e{n % 2}") for n in range(80)]
    return pages


def test_the_order_of_the_rows_does_not_count():
    pages = many_pages()
    train, test, _ = split_pages(pages)
    assert len(train) < 200 and len(test) > 20  # repeats there were
    for seed in range(3):
        random.Random(seed).shuffle(pages)
        again = split_pages(pages)
        assert (ids(again[0]), ids(again[1])) == (ids(train), ids(test))


def test_rows_keep_their_order():
    pages = many_pages()
    place = {one.row.id: n for n, one in enumerate(pages)}
    for rows in split_pages(pages)[:2]:
        assert [place[row.id] for row in rows] == sorted(place[row.id] for row in rows)


def test_the_seed_of_pythons_hashes_does_not_count():
    script = "from tests.sources.test_splits import *; print(split_pages(many_pages()))"
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("0", "1", "42")
    }
    assert len(found) == 1 and "r/" in found.pop()
