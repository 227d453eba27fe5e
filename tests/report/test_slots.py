"""Tables of slots: hand-made stages, pages with signs, numbers as countries write them."""

import re

import pytest

from nblib.evaluation.answers import Stage, score_answers
from nblib.report.slots import (
    confusion_table,
    gold_table,
    grounding_table,
    marked_in,
    needle_table,
    slots_table,
)
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.extraction_rows import CheckedRows, SlotGold

SPECS = {
    "name": {"type": "string", "verbatim": True},
    "price": {"type": "number", "compare": "number"},
}
PAGE = "Read name and price.\n\nMug Rosa\nnow 12,50 EUR"
GOLD = {"name": "Mug Rosa", "price": 12.5}
RIGHT = '{"name": "Mug Rosa", "price": 12.5}'
WRONG = '{"name": "Vase", "price": null}'


def answer(n, completion, reference=GOLD, *, group="product", question=PAGE):
    return {
        "id": f"shop/{n}",
        "group": group,
        "question": question,
        "completion": completion,
        "reference": reference,
        "slot_specs": SPECS if isinstance(reference, dict) else {},
        "truncated": False,
    }


def stage(name, *answers):
    return score_answers(name, answers, EXTRACTION)


def figures(f1=0.5, n=4, **counts):
    kinds = dict.fromkeys(("correct", "wrong", "omitted", "invented", "true_null"), 0)
    interval = None if f1 is None else [f1 - 0.25, f1 + 0.25]
    return {"n": n, "f1": f1, "f1_ci95": interval, "precision": f1, "recall": f1, **kinds, **counts}


def made(name, by_group, metrics=None):
    return Stage(name=name, metrics=metrics or {}, by_group=by_group, records=())


# ----------------------------------------------------------------- slots


def test_a_row_a_slot_of_each_group_with_the_f1_of_each_stage():
    before = made("base_grammar", {"news": {"slots": {"title": figures(0.25)}}})
    after = made(
        "tuned",
        {
            "news": {"slots": {"title": figures(0.75, correct=3, omitted=1)}},
            "product": {"slots": {"title": figures(None, n=0, true_null=1200)}},
        },
    )
    table = slots_table([before, after])
    assert table.columns == (
        *("slot", "n", "base grammar", "tuned"),
        *("correct", "wrong", "omitted", "invented", "true null"),
    )
    assert table.rows == (
        (
            *("title\nnews", "4", "0.250\n[0.000, 0.500]", "0.750\n[0.500, 1.000]"),
            *("3", "0", "1", "0", "0"),
        ),
        ("title\nproduct", "0", "–", "–", "0", "0", "0", "0", "1,200"),
    )
    assert table.note.endswith("n: values to find; the other columns count the values of tuned")


def test_a_group_or_a_stage_may_have_no_slots():
    """So it is where nothing could be read, and nothing was to be found."""
    null = {"name": None, "price": None}
    base = stage("base", answer(1, "no JSON", null), answer(2, "YES", "YES", group="page"))
    assert "slots" not in base.by_group["product"]
    tuned = stage("tuned", answer(1, '{"name": null, "price": null}', null))
    assert [row[:4] for row in slots_table([base, tuned]).rows] == [
        ("name\nproduct", "0", "–", "–"),
        ("price\nproduct", "0", "–", "–"),
    ]
    assert [row[:2] for row in slots_table([tuned, base]).rows] == [("answer\npage", "1")]
    bare = stage("bare", answer(1, "no JSON", null))
    assert slots_table([bare]).rows == () and slots_table([bare])._repr_markdown_()


def test_items_without_a_group_are_one():
    one = stage("tuned", answer(1, RIGHT, group=""), answer(2, WRONG, group=""))
    rows = slots_table([one]).rows
    assert [row[:2] for row in rows] == [("name", "2"), ("price", "2")]
    assert [row[3:] for row in rows] == [("1", "1", "0", "0", "0"), ("1", "0", "1", "0", "0")]


def test_without_stages_there_is_no_table():
    assert slots_table([]).rows == () and "None." in slots_table([])._repr_markdown_()


def test_names_with_signs_stay_in_their_cells():
    odd = made("a|b", {"x|y": {"slots": {"<b>|`n`": figures()}}})
    lines = slots_table([odd]).markdown().splitlines()
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(lines) == 3 and cells == {9}


# ----------------------------------------------------------------- gold


def test_gold_says_how_often_a_slot_is_null_and_what_cleaning_left():
    gold = {
        ("product", "name"): SlotGold(rows=2000, null=500, verbatim=1500, in_page=1500, kept=1350),
        ("product", "price"): SlotGold(rows=2000, null=2000),
    }
    table = gold_table(CheckedRows(rows=(), refused=(), gold=gold))
    assert table.rows == (
        ("product", "name", "2,000", "25.0%", "100.0%", "90.0%"),
        ("product", "price", "2,000", "100.0%", "–", "–"),
    )
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert gold_table(CheckedRows(rows=(), refused=(), gold={})).rows == ()


# ----------------------------------------------------------------- words


def test_words_that_were_right_and_answered():
    confused = {"NO": {"NO": 7, "something else": 2}, "YES": {"NO": 1}}
    table = confusion_table(confused, stage="tuned_grammar")
    assert table.title == "Answers of one word, tuned grammar"
    assert table.columns == ("right", "answered NO", "answered YES", "answered something else")
    assert table.rows == (("NO", "7", "0", "2"), ("YES", "1", "0", "0"))
    assert confusion_table({}, stage="tuned").rows == ()


# ----------------------------------------------------------------- values in their pages


def test_values_are_shown_with_their_places_and_errors_first():
    items = [answer(n, RIGHT) for n in range(4)] + [answer(9, WRONG), answer(8, "YES", "YES")]
    table = grounding_table(stage("tuned", *items), count=2)
    assert table.rows == (
        ("shop/9", "name", "Mug Rosa", "Vase", "wrong", ""),
        ("shop/9", "price", "12.5", "none", "omitted", "name and price.  Mug Rosa now ⟦12,50⟧ EUR"),
        ("shop/3", "name", "Mug Rosa", "Mug Rosa", "correct", marked_in(PAGE, "Mug Rosa")),
        ("shop/3", "price", "12.5", "12.5", "correct", marked_in(PAGE, 12.5)),
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, []),
        (1, ["9"]),
        (2, ["9", "3"]),
        (3, ["9", "0", "3"]),
        (5, ["9", "0", "1", "2", "3"]),
        (50, ["9", "0", "1", "2", "3"]),
    ],
)
def test_as_many_items_are_shown_as_were_asked_for_and_none_twice(count, shown):
    items = [answer(n, RIGHT) for n in range(4)] + [answer(9, WRONG)]
    rows = grounding_table(stage("tuned", *items), count=count).rows
    assert [*dict.fromkeys(row[0] for row in rows)] == [f"shop/{n}" for n in shown]
    assert len({row[:2] for row in rows}) == len(rows)


def test_answers_that_are_none_and_slots_that_nobody_asked_for():
    odd = '{"name": null, "price": null, "more": {"a": [1]}}'
    null = {"name": None, "price": None}
    one = stage("base", answer(1, "no JSON"), answer(2, odd), answer(3, "no JSON", null))
    rows = grounding_table(one, count=6).rows
    assert ("shop/1", "name", "Mug Rosa", "none", "omitted", marked_in(PAGE, "Mug Rosa")) in rows
    assert not [row for row in rows if row[0] == "shop/3"]
    assert grounding_table(stage("words", answer(1, "YES", "YES")), count=3).rows == ()


MARKED = [
    ("Mug, now 12,50 EUR", 12.5, "Mug, now ⟦12,50⟧ EUR"),
    ("a $1,299.50 b", 1299.5, "a $⟦1,299.50⟧ b"),
    ("a 1.299,50 € b", 1299.5, "a ⟦1.299,50⟧ € b"),
    ("a CHF 1'299 b", 1299, "a CHF ⟦1'299⟧ b"),
    ("a CHF 1’299.50", 1299.5, "a CHF ⟦1’299.50⟧"),
    ("a 1\u202f299,50 €", 1299.5, "a ⟦1\u202f299,50⟧ €"),
    ("a 1 299,50 €", 1299.5, "a ⟦1 299,50⟧ €"),
    ("12,50 14,90 EUR", 14.9, "12,50 ⟦14,90⟧ EUR"),
    ("12,50 14,90 EUR", 12.5, "⟦12,50⟧ 14,90 EUR"),
    ("Mug 2, 12 pieces", 12, "Mug 2, ⟦12⟧ pieces"),
    ("for 12.", 12, "for ⟦12⟧."),
    ("-5 degrees", -5, "-⟦5⟧ degrees"),
    ("Read 2 slots. 2 mugs", 2, "Read 2 slots. ⟦2⟧ mugs"),
    ("112 1299", 12, ""),
    ("no number", 12, ""),
    ("nothing", float("inf"), ""),
    ("MUG\n Rosa", "mug rosa", "⟦MUG  Rosa⟧"),
    ("Mug: a mug", "Mug", "Mug: a ⟦mug⟧"),
    ("a.b (c)+ [d] \\e $", "a.b (c)+ [d] \\e $", "⟦a.b (c)+ [d] \\e $⟧"),
    ("axb", "a.b", ""),
    ("<b>Mug</b>", "<b>", "⟦<b>⟧Mug</b>"),
    ("S, M, L", ["XL", "M", "S"], "S, ⟦M⟧, L"),
    ("Mug", [], ""),
    ("Mug", "", ""),
    ("Mug", "  ", ""),
    ("Mug", None, ""),
    ("True", True, ""),
    ("", "Mug", ""),
    ("{'a': 1}", {"a": 2}, ""),
]


@pytest.mark.parametrize(("page", "value", "shown"), MARKED)
def test_a_value_is_marked_where_it_stands(page, value, shown):
    assert marked_in(page, value) == shown


def test_only_what_stands_around_a_value_is_shown():
    assert marked_in("x" * 100 + " Mug " + "y" * 100, "Mug") == f"{'x' * 29} ⟦Mug⟧ {'y' * 29}"


def test_a_long_page_of_numbers_is_read_through_once():
    assert marked_in("1 " * 100_000 + "1'" * 100_000 + "1." * 100_000, 7) == ""
    assert marked_in("a " * 200_000, "a a a a b") == ""


def test_needles_have_a_row_a_length_and_a_column_a_depth():
    def cell(f1):
        return {"n": 4, "slot_f1": f1, "slot_f1_ci95": [f1 - 0.1, f1 + 0.1]}

    near = made("256_tokens", {"0%": cell(0.5), "100%": cell(0.75)})
    far = made("2048_tokens", {"0%": cell(0.25), "100%": cell(0.5)})
    table = needle_table(EXTRACTION, (near, far), window=256)
    assert table.columns == ("length", "0%", "100%")
    assert table.rows == (
        ("256 tokens", "0.500\n[0.400, 0.600] (n=4)", "0.750\n[0.650, 0.850] (n=4)"),
        ("2048 tokens", "0.250\n[0.150, 0.350] (n=4)", "0.500\n[0.400, 0.600] (n=4)"),
    )
    assert "only the global layers see further than 256 tokens" in table.note
    assert needle_table(EXTRACTION, (), window=256).rows == ()
