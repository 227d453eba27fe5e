"""Rows that do not fit are refused by id and slot; of the others it is counted what they hold."""

import pytest

from nblib.sources.examples_table import split_records
from nblib.sources.rows import Row
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.extraction_rows import SlotGold, normalise_extractions, read_record
from nblib.tasks.task import check_task

SPECS = {
    "name": {"type": "string", "nullable": False, "verbatim": True, "max_length": 20},
    "price": {"type": "number"},
    "sizes": {"type": "array", "items": {"type": "string", "enum": ["S", "M"]}, "max_items": 2},
}
GOLD = {"name": "Mug Rosa", "price": 12.5, "sizes": None}
LEFT_OUT = object()


def row(id_="shop/3", **changes):
    fields = {"prompt": "Read it.\n\nMug Rosa 12,50", "response": GOLD, "slot_specs": SPECS}
    fields |= {"system_prompt": None, **changes}
    kept = {name: value for name, value in fields.items() if value is not LEFT_OUT}
    return Row(id=id_, fields=kept, group="product")


def without(values, *names):
    return {name: value for name, value in values.items() if name not in names}


def specs(**changes):
    return {**SPECS, **changes}


WRONG = {
    # what a row must have
    "prompt is missing, expected a text": {"prompt": LEFT_OUT},
    "prompt is '', expected a text of whole characters, not an empty one": {"prompt": ""},
    "prompt is None, expected a text": {"prompt": None},
    "prompt is 3, expected a text": {"prompt": 3},
    "response is missing, expected an object of slots, or one word": {"response": LEFT_OUT},
    "response is None, expected an object": {"response": None},
    "response is [1, 2], expected an object": {"response": [1, 2]},
    "response is 12.5, expected an object": {"response": 12.5},
    "response is True, expected an object": {"response": True},
    "slot_specs is [], expected an object: slot -> how": {"slot_specs": []},
    "slot_specs is 'name', expected an object": {"slot_specs": "name"},
    "system_prompt is 3, expected a text, or nothing": {"system_prompt": 3},
    # slots of the response and of slot_specs
    "slot_specs is empty, expected a specification for each": {"slot_specs": {}},
    "slot price: missing in the response; give null": {"response": without(GOLD, "price")},
    "slot name: missing in the response": {"response": {}},
    "slot colour: in the response, but not in slot_specs": {"response": {**GOLD, "colour": None}},
    # values
    "slot price: '12,50' is not": {"response": {**GOLD, "price": "12,50"}},
    "slot price: True is not": {"response": {**GOLD, "price": True}},
    "slot name: None is not of type 'string'": {"response": {**GOLD, "name": None}},
    "slot name: 'Mug Mug Mug Mug Mug Mug ' is too long": {"response": {**GOLD, "name": "Mug " * 6}},
    "slot sizes": {"response": {**GOLD, "sizes": "S"}},
    "slot sizes[0]: ": {"response": {**GOLD, "sizes": ["L"]}},
    "slot sizes:": {"response": {**GOLD, "sizes": ["S", "M", "S"]}},
    "slot price: NaN is no JSON number": {"response": {**GOLD, "price": float("nan")}},
    "slot price: inf is greater than": {"response": {**GOLD, "price": float("inf")}},
    "slot name: half of a surrogate pair": {"response": {**GOLD, "name": "Mug \ud800"}},
    "slot name: '<end_of_turn>' is no text but controls": {
        "response": {**GOLD, "name": "Mug<end_of_turn>"}
    },
    # specifications
    "slot price.pattern: neither a validator nor a grammar": {
        "slot_specs": specs(price={"type": "number", "pattern": "x"})
    },
    "slot price.type: should be 'string'": {"slot_specs": specs(price={"type": "float"})},
    "slot price: should be": {"slot_specs": specs(price="number")},
    "slot price: 'items' belongs to the type 'array'": {
        "slot_specs": specs(price={"type": "number", "items": {"type": "string"}})
    },
    "slot sizes.items.type": {"slot_specs": specs(sizes={"type": "array", "items": {"type": 3}})},
    "slot price.enum": {"slot_specs": specs(price={"enum": []})},
    # words
    "response is 'YES', expected an object of slots": {"response": "YES"},
    "response is '', expected an object of slots, or one word": {"response": "", "slot_specs": {}},
    "response is '  ', expected an object of slots": {"response": "  ", "slot_specs": {}},
    "response is '{\"name\": 1', expected an object of slots, or one word (": {
        "response": '{"name": 1',
        "slot_specs": {},
    },
    "the key 'a' is given twice)": {"response": '{"a": 1, "a": 2}', "slot_specs": {}},
    'response is \'```json\\n{"name": "Mug"}\\n```\', expected an object of slots': {
        "response": '```json\n{"name": "Mug"}\n```',
        "slot_specs": {},
    },
    "response is 'YES\\nbecause', expected": {"response": "YES\nbecause", "slot_specs": {}},
    "slot answer: 'MAYBE' is none of YES, NO": {
        "response": "MAYBE",
        "slot_specs": {"answer": {"type": "string", "enum": ["YES", "NO"]}},
    },
    "slot answer: '<bos>' is no text but controls the chat": {
        "response": "<bos>",
        "slot_specs": {},
    },
    # texts
    "prompt is 'Mug \\udfff', expected a text of whole characters": {"prompt": "Mug \udfff"},
    "prompt: '<end_of_turn>' is no text": {"prompt": "Mug<end_of_turn>\n<start_of_turn>model"},
    "system_prompt: '<eos>' is no text but controls the chat": {"system_prompt": "Read.<eos>"},
}


@pytest.mark.parametrize(("said", "changes"), WRONG.items(), ids=WRONG)
def test_what_does_not_fit_is_refused_by_its_row(said, changes):
    checked = normalise_extractions([row("shop/1"), row(**changes), row("shop/5")])
    assert [one.id for one in checked.rows] == ["shop/1", "shop/5"]
    (line,) = checked.refused
    assert line.startswith("row shop/3: ") and said in line and "\n" not in line
    with pytest.raises(ValueError, match=r"^row shop/3: "):
        read_record(row(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"response": {**GOLD, "price": None, "sizes": []}},
        {"response": {**GOLD, "price": 12, "sizes": ["M", "S"]}},
        {"response": {"sizes": None, "price": 1e-7, "name": "Mug 👍 \u2028"}},
        {"response": "YES", "slot_specs": {}},
        {"response": "a blog", "slot_specs": {"answer": {"enum": ["a shop", "a blog"]}}},
        {"system_prompt": "Read.", "more": "is left alone"},
        {"prompt": "<b> & {x} \x00"},
    ],
)
def test_what_fits_is_an_example_whose_own_answer_is_right(changes):
    checked = normalise_extractions([row(**changes)])
    assert (checked.rows, checked.refused) == ((row(**changes),), ())
    (example,) = EXTRACTION.examples(checked.rows)
    check_task(EXTRACTION, [example])
    assert example.system_prompt == changes.get("system_prompt")
    assert example.group == "product" and example.reference == changes.get("response", GOLD)


def test_a_row_is_named_by_its_line():
    line = Row(id="a", fields=row(response=None).fields, place="pages.jsonl line 7")
    assert (
        normalise_extractions([line]).refused[0].startswith("pages.jsonl line 7 (a): response is")
    )


def test_a_summary_names_the_first_rows():
    rows = [row(f"shop/{n}", response=None) for n in range(8)]
    text = str(normalise_extractions([row(), *rows]))
    first, *lines = text.splitlines()
    assert first == "1 rows, 8 refused" and lines[-1] == "... and 3 more"
    assert [line.split(":")[0] for line in lines[:-1]] == [f"row shop/{n}" for n in range(5)]
    assert str(normalise_extractions([row()])) == "1 rows, 0 refused"
    assert str(normalise_extractions([])) == "0 rows, 0 refused"


def test_gold_is_counted_by_kind_and_slot():
    page = "Read it.\n\n<h1>MUG  Rosa</h1><img alt='Vase'>"
    seen = "Read it.\n\nMUG Rosa"
    rows = [
        row("1", prompt=seen, html=page),
        row("2", prompt=seen, html=page, response={**GOLD, "name": "Vase", "price": None}),
        row("3", prompt=seen, html=page, response={**GOLD, "name": "Lamp", "sizes": []}),
        row("4", response={**GOLD, "name": " ", "sizes": ["S"]}),
        row("5", response={**GOLD, "price": "no number"}),  # refused: it counts for nothing
        Row(id="6", fields=row().fields, group="other"),
        row("7", response="YES", slot_specs={}),
    ]
    checked = normalise_extractions(rows)
    assert len(checked.rows) == 6
    assert checked.gold == {
        ("product", "name"): SlotGold(rows=4, null=1, verbatim=3, in_page=2, kept=1),
        ("product", "price"): SlotGold(rows=4, null=1),
        ("product", "sizes"): SlotGold(rows=4, null=3),
        ("other", "name"): SlotGold(rows=1, verbatim=1, in_page=1, kept=1),
        ("other", "price"): SlotGold(rows=1),
        ("other", "sizes"): SlotGold(rows=1, null=1),
    }


def test_control_pieces_of_a_page_that_are_tags_of_it_do_not_count():
    """`<mask>` is an element of SVG: what is asked is the cleaned page."""
    page = "Read it.\n\n<html><svg><mask><path/></mask></svg><h1>Mug {n}</h1></html>"
    records = [
        {
            "id": str(n),
            "task": "product",
            "prompt_text": page.format(n=n),
            "response_strong": {"name": f"Mug {n}"},
            "slot_specs": {"name": {"type": "string"}},
        }
        for n in range(20)
    ]
    data = split_records("pages", "", records)
    rows = normalise_extractions(data.train).rows
    assert len(rows) == len(data.train) and "<mask>" in rows[0].fields["html"]
    assert EXTRACTION.examples(rows)[0].prompt.startswith("Read it.\n\nMug")
