import pytest
from pydantic import ValidationError

from nblib.sources.examples_table import split_records
from nblib.tasks.extraction import EXTRACTION, answer_schema
from nblib.tasks.extraction_kinds import PageKind, page_kinds

SPECS = {"name": {"type": "string"}, "price": {"type": "number"}}
ASKED = "Read it as JSON.\n\n"


def record(n, prompt, **changes):
    return {
        "id": str(n),
        "task": "product",
        "prompt_text": prompt,
        "response_strong": {"name": "Mug", "price": None},
        "slot_specs": SPECS,
        "metadata": {"split": "train"},
        **changes,
    }


def kinds(*records):
    held_out = record(99, "Held out?", metadata={"split": "test"})
    rows = split_records("pages", "made here", [*records, held_out]).train
    return page_kinds(EXTRACTION.examples(rows), rows)


def instruction(*prompts, **changes):
    (only,) = kinds(*(record(n, one, **changes) for n, one in enumerate(prompts))).kinds
    return only.instruction


def test_a_kind_has_the_schema_of_its_examples():
    (only,) = kinds(record(1, f"{ASKED}Mug"), record(2, f"{ASKED}Cup")).kinds
    assert (only.task, only.slot_specs, only.words) == ("product", SPECS, ())
    assert answer_schema(only.question("3", "Jug")) == only.json_schema
    assert list(only.json_schema["properties"]) == ["name", "price"]


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ((f"{ASKED}Mug", f"{ASKED}Cup"), ASKED),
        ((f"{ASKED}Mug", f"{ASKED}Mug 2", f"{ASKED}Must"), ASKED),  # no part of the page
        ((f"{ASKED}Text: Mug", f"{ASKED}Text: Must"), f"{ASKED}Text: "),
        ((f"{ASKED}<h1>Price: 1</h1>", f"{ASKED}<h1>Price: 12</h1>"), ASKED),  # a page of its own
        ((f"{ASKED}<h1>Mug</h1>",), ASKED),  # one of HTML shows it, one text does not
        ((f"{ASKED}Mug",), None),
        (("Asked for a.\n\nMug", "Asked for b.\n\nMug"), None),
        (("Read <h1>Mug</h1>", "Say <h1>Mug</h1>"), None),
        (("Mug", "Mug 2"), None),
    ],
)
def test_an_instruction_is_what_prompts_begin_with_alike(prompts, expected):
    assert instruction(*prompts) == expected


def test_pages_with_other_system_prompts_have_no_instruction_in_common():
    first = record(1, f"{ASKED}Mug", system_prompt="Be brief.")
    (only,) = kinds(first, record(2, f"{ASKED}Cup", system_prompt="Be brief.")).kinds
    assert (only.system_prompt, only.instruction) == ("Be brief.", ASKED)
    (only,) = kinds(first, record(2, f"{ASKED}Cup")).kinds
    assert (only.system_prompt, only.instruction) == ("", None)


def test_other_slots_are_another_kind_and_words_too():
    fewer = {"response_strong": {"name": "Mug"}, "slot_specs": {"name": {"type": "string"}}}
    word = {"response_strong": "NO", "slot_specs": {}}
    listed = {"response_strong": "shop", "slot_specs": {"answer": {"enum": ["shop", "news"]}}}
    found = kinds(
        record(1, "a"), record(2, "b", **fewer), record(3, "c", **word), record(4, "d", **listed)
    )
    words = {one.words for one in found.kinds}
    assert len(found.kinds) == 4 and words == {(), ("YES", "NO"), ("shop", "news")}
    for one in found.kinds:
        form = answer_schema(one.question("9", "e"))
        assert form == (one.words or one.json_schema)


def test_a_kind_that_no_grammar_can_answer_is_left_out_and_named():
    found = kinds(
        record(1, "a"),
        record(2, "b", task="open", slot_specs={"name": {}, "price": {"type": "number"}}),
        record(3, "c", task="any", response_strong="perhaps", slot_specs={}),
    )
    assert [one.task for one in found.kinds] == ["product"]
    assert sorted(one.partition(":")[0] for one in found.left_out) == ["any", "open"]
    assert "slot name has no type" in str(found) and "name its words" in str(found)


def test_a_kind_has_one_form_of_answer():
    given = {"task": "t", "slot_specs": {}, "system_prompt": "", "instruction": None}
    for wrong in ({"json_schema": None, "words": ()}, {"json_schema": {}, "words": ("a",)}):
        with pytest.raises(ValidationError, match="either a json_schema or words"):
            PageKind(**given, **wrong)
