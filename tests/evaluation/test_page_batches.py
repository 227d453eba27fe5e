from dataclasses import replace
from types import SimpleNamespace

import pytest

from nblib.evaluation.package import Package
from nblib.evaluation.page_batches import (
    Reader,
    Unusable,
    batches,
    compiled_length,
    read_answer,
    unusable,
)
from nblib.sources.pages_table import PageRow
from nblib.tasks.extraction_kinds import PageKind
from nblib.tasks.slots import read_slots

SPECS = {"name": {"type": "string", "max_length": 9}, "price": {"type": "number"}}
FEWER = {"name": {"type": "string", "max_length": 9}}


def kind(task, specs, **changes):
    words = changes.get("words", ())
    given = {
        "system_prompt": "",
        "instruction": f"Read {', '.join(specs)}.\n\n",
        "json_schema": None if words else read_slots(specs).schema,
        "words": words,
        **changes,
    }
    return PageKind(task=task, slot_specs=specs, **given)


@pytest.fixture(scope="module")
def reader(tokenizer):
    kinds = (
        kind("product", SPECS, system_prompt="Be exact."),
        kind("leads", {}, words=("YES", "NO"), instruction="Does it lead on?\n\n"),
        kind("mixed", SPECS),
        kind("mixed", FEWER),
        kind("odd", SPECS, instruction=None),
    )
    template = {"prompt_template": "", "smoke": None}
    package = Package(max_new_tokens=50, kinds=kinds, **template)
    return Reader(package=package, tokenizer=tokenizer, context=400)


def row(task="product", **given):
    texts = {"html": "", "prompt_text": "", "system_prompt": "", "slot_specs": None}
    return PageRow(number=3, id="p", task=task, **texts | given)


def test_a_page_is_cleaned_and_put_behind_the_instruction_of_its_kind(reader, tokenizer):
    html = "<html><head><title>No</title></head><body><h1>Mug</h1><p>3 pens</p></body></html>"
    asked = reader.question(row(html=html))
    assert asked.prompt == (
        "<start_of_turn>user\nBe exact.\n\nRead name, price.\n\nMug\n3 pens<end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    assert asked.length == 1 + len(tokenizer.encode(asked.prompt))
    assert reader.question(row(html=" Mug\n3 pens ")).prompt == asked.prompt
    own = reader.question(row(html=html, system_prompt="Hm."))
    assert own.prompt == asked.prompt.replace("Be exact.", "Hm.")


def test_a_prompt_of_its_own_is_asked_as_it_is(reader):
    asked = reader.question(row(prompt_text="What?\n\n<h1>Mug</h1>", html="not asked"))
    assert asked.example.prompt == "What?\n\nMug"
    assert asked.example.slot_specs == SPECS


@pytest.mark.parametrize(
    ("task", "given", "slots"),
    [
        ("product", {}, SPECS),  # the only kind of its task
        ("product", {"slot_specs": FEWER}, FEWER),  # its own ones
        ("mixed", {"slot_specs": FEWER}, FEWER),
        ("mixed", {"slot_specs": SPECS}, SPECS),
        ("leads", {}, {}),
    ],
)
def test_the_kind_and_its_grammar(task, given, slots, reader):
    asked = reader.question(row(task, html="Mug", **given))
    first = ", ".join(SPECS if task == "product" else slots)
    assert asked.example.prompt.startswith(f"Read {first}." if slots else "Does it lead on?")
    assert asked.example.slot_specs == slots
    expected = '["YES", "NO"]' if task == "leads" else f'"required": {[*slots]}'.replace("'", '"')
    assert expected in asked.grammar.schema


def test_a_kind_that_the_package_has_not_may_bring_prompt_and_slots(reader):
    for task in ("new", "mixed"):
        specs = {"x": {"type": "boolean"}}
        asked = reader.question(row(task, prompt_text="Read x.\n\nMug", slot_specs=specs))
        assert '"required": ["x"]' in asked.grammar.schema


@pytest.mark.parametrize(
    ("task", "given", "problem"),
    [
        ("product", {}, "empty page"),
        ("product", {"html": " \n"}, "empty page"),
        ("product", {"html": "<script>let a</script>"}, "no text after cleaning"),
        ("product", {"prompt_text": "Read.\n\n<p> </p>"}, "no text after cleaning"),
        ("product", {"html": "a<end_of_turn>b"}, "control piece: '<end_of_turn>'"),
        ("product", {"html": "a", "system_prompt": "<bos>"}, "control piece: '<bos>'"),
        ("product", {"html": "a\ud83d"}, "half a character"),
        ("product", {"html": "17 pens " * 99}, r"too long: \d+ tokens, .* room for 350"),
        ("product", {"html": "a", "slot_specs": [1]}, "slot_specs cannot be read: .*object"),
        ("product", {"html": "a", "slot_specs": {"x": {"kind": 1}}}, "slot_specs cannot be read"),
        ("product", {"html": "a", "slot_specs": {"x": {}}}, "no grammar: p: slot x has no type"),
        ("mixed", {"html": "a"}, "unknown kind: one of 2 of 'mixed'; give its slot_specs"),
        ("mixed", {"prompt_text": "a"}, "unknown kind: one of 2"),
        ("mixed", {"html": "a", "slot_specs": {"x": {"type": "string"}}}, "unknown kind: none of"),
        ("new", {"html": "a"}, "unknown kind: 'new' is none of leads, mixed, odd, product"),
        ("new", {"prompt_text": "a"}, "unknown kind: 'new'"),
        ("odd", {"html": "a"}, "no instruction: .* give prompt_text"),
    ],
)
def test_what_cannot_be_asked_says_why(task, given, problem, reader):
    with pytest.raises(Unusable, match=f"^{problem}"):
        reader.question(row(task, **given))


@pytest.mark.parametrize(
    ("task", "completion", "truncated", "answer"),
    [
        ("product", '{"name": "Mug", "price": 2.5}', False, {"name": "Mug", "price": 2.5}),
        ("product", '{"name": null, "price": null}', False, {"name": None, "price": None}),
        ("product", '{"name": "Mug", "pri', True, None),
        ("product", '{"name": "Mug", "price": 2', True, None),
        ("leads", "YES", False, "YES"),
        ("leads", "N", True, None),
    ],
)
def test_an_answer_is_whole_or_none(task, completion, truncated, answer, reader):
    question = reader.question(row(task, html="Mug"))
    text = {"completion": completion, "truncated": truncated, "tokens": 7}
    assert read_answer(question, text) == {
        "row": 3,
        "id": "p",
        "task": task,
        "problem": None,
        "answer": answer,
        "valid": answer is not None,
        "truncated": truncated,
        "prompt_tokens": question.length,
        "completion_tokens": 7,
    }
    assert unusable(question.row, "empty page").keys() == read_answer(question, text).keys()


def test_a_window_is_cut_into_batches_of_like_length_whatever_the_order(reader):
    one = reader.question(row(html="Mug"))
    lengths = [40 + 13 * n % 50 for n in range(130)] + [2000] * 3 + [40_000] * 2
    window = [
        replace(one, length=length, row=SimpleNamespace(number=n))
        for n, length in enumerate(lengths)
    ]
    found = list(batches(window, 50))
    assert [len(batch.questions) for batch in found] == [1, 1, 16, 64, 53]
    assert [batch.length for batch in found] == [49_152, 49_152, 2048, 96, 64]
    assert all(q.length <= batch.length for batch in found for q in batch.questions)
    flat = [q.row.number for batch in found for q in batch.questions]
    assert sorted(flat) == list(range(135))
    again = [q.row.number for batch in batches(window[::-1], 50) for q in batch.questions]
    assert again == flat


def test_few_lengths_are_compiled():
    found = {compiled_length(length) for length in range(1, 8193)}
    assert len(found) < 18
    assert all(length <= compiled_length(length) < 1.5 * length + 32 for length in range(1, 8193))
