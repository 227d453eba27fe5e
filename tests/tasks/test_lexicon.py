"""The baseline that knows the training values by heart."""

import json

import pytest

from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.lexicon import Lexicon
from nblib.tasks.task import Example

SPECS = {
    "name": {"type": "string", "verbatim": True},
    "stock": {"type": "boolean"},
    "price": {"type": "number"},
}


def example(page, reference, *, group="product", specs=SPECS, id_="1"):
    given = {} if isinstance(reference, str) else specs
    prompt = f"Read the name.\n\n{page}" if page is not None else ""
    return Example(
        id=id_, prompt=prompt, completion="", reference=reference, group=group, slot_specs=given
    )


def product(name, stock=None, price=None):
    return {"name": name, "stock": stock, "price": price}


LEARNT = [
    example("", product("Mug", True, 3)),
    example("", product("Mug Rosa", True, 4.5)),
    example("", product("MUG ROSA", None, None)),
    example("", product("Mug Rosa", False, None)),
    example("", product("a.b (c)+", True, None)),
    example("", product(None, True, 3)),
    example("", product(" ", None, None)),
    example("", product("Ted"), group="author"),
    example("", "YES", group="page"),
    example("", "NO", group="page"),
    example("", "NO", group="page"),
]
LEXICON = Lexicon(LEARNT)


def name_in(page, **fields):
    return json.loads(LEXICON(example(page, product(None), **fields)))["name"]


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("The mug\n ROSA is here", "Mug Rosa"),  # the longest, as it is written most often
        ("Rosa's mug", "Mug"),
        ("(mug), now", "Mug"),
        ("mugs and smug", None),
        ("mug_", None),
        ("a.b (c)+", "a.b (c)+"),
        ("axb (c)+", None),
        ("Ted", None),  # of another kind of page
        ("", None),
        ("name", None),  # which stands in what is asked, too
    ],
)
def test_a_verbatim_slot_gets_the_longest_known_value_that_stands_in_the_page(page, name):
    assert name_in(page) == name


def test_what_is_asked_is_not_read_and_a_text_without_it_is():
    asked = Example(
        id="1", prompt="Read the Mug.\n\nVase", completion="", reference={}, group="product",
        slot_specs=SPECS,
    )  # fmt: skip
    bare = Example(
        id="1", prompt="a mug", completion="", reference={}, group="product", slot_specs=SPECS
    )
    assert [json.loads(LEXICON(one))["name"] for one in (asked, bare)] == [None, "Mug"]


def test_other_slots_get_their_commonest_value_null_too():
    assert json.loads(LEXICON(example("x", product("Mug")))) == product(None, True, None)


def test_a_kind_that_was_never_seen_has_nulls_in_the_order_of_its_slots():
    specs = {"b": {"type": "string"}, "a": {"type": "string", "verbatim": True}}
    other = example("mug", {"b": 1}, group="news", specs=specs)
    assert LEXICON(other) == '{"b": null, "a": null}'


def test_an_answer_of_one_word_is_the_commonest_of_its_kind():
    assert LEXICON(example("x", "YES", group="page")) == "NO"
    assert LEXICON(example("x", "YES", group="news")) == ""
    assert Lexicon([])(example("x", "YES", group="page")) == ""


def test_what_is_right_is_not_looked_at():
    one, other = (LEXICON(example("a mug", product(name, False, 9))) for name in ("Vase", "Mug"))
    assert one == other


def test_a_page_of_known_values_is_read_rightly():
    asked = example("a mug rosa", product("Mug Rosa", True))
    score = EXTRACTION.score(LEXICON(asked), asked)
    assert score.values["perfect_record"] and score.values["schema_valid"]
