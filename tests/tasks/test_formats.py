"""Both formats: what is strict, which rule breaks first, and linear time."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.formats import HASH, SYSTEM_PROMPT, XML, Parsed

GOOD = "<reasoning>\n2 * 9 = 18\n</reasoning>\n<answer>18</answer>"
STRICT = Parsed(
    strict=True,
    tags_in_order=True,
    reasoning="2 * 9 = 18",
    answer="18",
    preamble=False,
    failure=None,
)


def broken(failure: str, **changes: object) -> Parsed:
    return replace(STRICT, strict=False, failure=failure, **changes)


def test_xml_renders_the_form_it_asks_for():
    assert XML.render("2 * 9 = 18", "18") == GOOD
    assert XML.system_prompt == SYSTEM_PROMPT
    assert all(tag in SYSTEM_PROMPT for tag in ("<reasoning></reasoning>", "<answer></answer>"))


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f" \n{GOOD}\n\n",
        GOOD.replace("\n", ""),
        "<reasoning>2 * 9 = 18</reasoning> \n\n <answer>18</answer>",
    ],
)
def test_strict_xml(text: str):
    assert XML.parse(text) == STRICT


def test_the_answer_is_kept_raw():
    assert XML.parse(GOOD.replace("18</", "\n $18 </")).answer == "\n $18 "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Okay, let's see. " + GOOD, broken("text outside", preamble=True)),
        (GOOD + " Done.", broken("text outside")),
        (GOOD.replace("\n<answer>", " so <answer>"), broken("text outside")),
        (GOOD + "<answer>19</answer>", broken("repeated tag", answer=None)),
        (GOOD + GOOD, broken("repeated tag", answer=None, reasoning=None)),
        (GOOD + "</answer>", broken("repeated tag", answer=None)),
        ("<reasoning>" + GOOD, broken("repeated tag", reasoning=None)),
        ("<reasoning> \n</reasoning><answer>18</answer>", broken("empty reasoning", reasoning="")),
        (
            "<answer>18</answer><reasoning>2 * 9 = 18</reasoning>",
            broken("order", tags_in_order=False, preamble=True),
        ),
        (
            "<reasoning>2 <answer>18</answer></reasoning>",
            broken("order", tags_in_order=False, reasoning="2 <answer>18</answer>"),
        ),
        (
            "</reasoning>2 * 9<reasoning><answer>18</answer>",
            broken("order", tags_in_order=False, reasoning=None, preamble=True),
        ),
        (
            "<reasoning>2 * 9 = 18</reasoning><answer>18",
            broken("missing tag", tags_in_order=False, answer=None),
        ),
        (
            "<reasoning>2 * 9 = 18",
            broken("missing tag", tags_in_order=False, answer=None, reasoning=None),
        ),
        (
            "The answer is 18.",
            broken("missing tag", tags_in_order=False, answer=None, reasoning=None, preamble=True),
        ),
        ("", broken("missing tag", tags_in_order=False, answer=None, reasoning=None)),
    ],
)
def test_broken_xml_names_the_first_rule_broken(text: str, expected: Parsed):
    assert XML.parse(text) == expected


def test_an_answer_before_the_reasoning_is_out_of_order_even_with_one_after_it():
    assert not XML.parse("<answer>1</answer>" + GOOD).tags_in_order
    assert XML.parse(GOOD + "<answer>1</answer>").tags_in_order


def test_hash_renders_the_base_form_and_asks_for_nothing():
    assert HASH.render("2 * 9 = 18", "18") == "2 * 9 = 18\n#### 18"
    assert HASH.system_prompt == ""


@pytest.mark.parametrize("text", ["2 * 9 = 18\n#### 18", "\n2 * 9 = 18\n\n#### 18\n \n"])
def test_strict_hash(text: str):
    assert HASH.parse(text) == replace(STRICT, answer=" 18")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * 9 = 18\n#### 18\nNext", broken("text outside", answer=" 18")),
        ("2 * 9 = 18\n#### 18\n#### 19", broken("repeated tag", answer=None, reasoning=None)),
        ("2 * 9 = 18 #### 18", broken("tag inside a line", answer=" 18", tags_in_order=False)),
        (
            "\n#### 18",
            broken("empty reasoning", answer=" 18", reasoning="", tags_in_order=False),
        ),
        ("2 * 9 = 18", broken("missing tag", answer=None, reasoning=None, tags_in_order=False)),
        ("", broken("missing tag", answer=None, reasoning=None, tags_in_order=False)),
    ],
)
def test_broken_hash_names_the_first_rule_broken(text: str, expected: Parsed):
    assert HASH.parse(text) == expected


PIECES = ["<answer>", "</answer>", "<reasoning>", "####", "\n#### ", "<", " ", "\n", "a"]


@pytest.mark.parametrize("answer_format", [XML, HASH], ids=lambda one: one.name)
@pytest.mark.parametrize("piece", PIECES)
def test_a_megabyte_is_parsed_in_linear_time(answer_format, piece: str):
    text = piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    for hostile in (text, GOOD + text, "<reasoning>" + text, "steps\n#### 1" + text):
        answer_format.parse(hostile)
    assert time.perf_counter() - started < 2.0


PLAIN = st.text(st.characters(exclude_characters="<#")).filter(str.strip)


@pytest.mark.parametrize("answer_format", [XML, HASH], ids=lambda one: one.name)
@given(reasoning=PLAIN, answer=PLAIN.map(lambda text: text.replace("\n", "")))
def test_what_is_rendered_is_strict_and_reads_back(answer_format, reasoning: str, answer: str):
    parsed = answer_format.parse(answer_format.render(reasoning, answer))
    assert parsed.strict
    assert parsed.failure is None
    assert parsed.reasoning == reasoning.strip()
    assert parsed.answer.strip() == answer.strip()


FRAGMENTS = st.lists(
    st.sampled_from([*PIECES, "</reasoning>", "18"]) | st.text(max_size=5), max_size=12
).map("".join)


@pytest.mark.parametrize("answer_format", [XML, HASH], ids=lambda one: one.name)
@given(text=FRAGMENTS)
def test_any_text_parses_and_only_strict_has_no_failure(answer_format, text: str):
    parsed = answer_format.parse(text)
    assert parsed.strict == (parsed.failure is None)
    if parsed.strict:
        assert parsed.tags_in_order
        assert not parsed.preamble
        assert parsed.reasoning
        rendered = answer_format.render(parsed.reasoning, parsed.answer)
        again = answer_format.parse(rendered)
        assert again.strict
        assert again.reasoning == parsed.reasoning
