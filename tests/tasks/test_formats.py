"""XML and HASH in detail; every format: round trips, hostile texts, linear time."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.formats import BOXED, HASH, LAST_NUMBER, SYSTEM_PROMPT, XML, Parsed
from nblib.tasks.scoring import score

FORMATS = (XML, HASH, BOXED, LAST_NUMBER)
EVERY = pytest.mark.parametrize("answer_format", FORMATS, ids=lambda one: one.name)
GOOD = "<reasoning>\n2 * 9 = 18\n</reasoning>\n<answer>18</answer>"
STRICT = Parsed(
    tags_in_order=True,
    answers=("18",),
    preamble=False,
    failure=None,
)


def broken(failure: str, **changes: object) -> Parsed:
    return replace(STRICT, failure=failure, **changes)


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
    assert XML.parse(GOOD.replace("18</", "\n $18 </")).answers == ("\n $18 ",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Okay, let's see. " + GOOD, broken("text outside", preamble=True)),
        (GOOD + " Done.", broken("text outside")),
        (GOOD.replace("\n<answer>", " so <answer>"), broken("text outside")),
        (GOOD + "<answer>19</answer>", broken("repeated tag", answers=("18", "19"))),
        (GOOD + GOOD, broken("repeated tag", answers=("18", "18"))),
        (GOOD + "<answer><answer>18</answer>", broken("repeated tag", answers=())),
        (
            "</answer>" + GOOD,
            broken("repeated tag", answers=(), preamble=True, tags_in_order=False),
        ),
        (GOOD.replace("18</", "</"), broken("empty answer", answers=("",))),
        (GOOD.replace("18</", " \n</"), broken("empty answer", answers=(" \n",))),
        (GOOD + "</answer>", broken("repeated tag", answers=())),
        ("<reasoning>" + GOOD, broken("repeated tag")),
        ("<reasoning> \n</reasoning><answer>18</answer>", broken("empty reasoning")),
        (
            "<answer>18</answer><reasoning>2 * 9 = 18</reasoning>",
            broken("order", tags_in_order=False, preamble=True),
        ),
        (
            "<reasoning>2 <answer>18</answer></reasoning>",
            broken("order", tags_in_order=False),
        ),
        (
            "</reasoning>2 * 9<reasoning><answer>18</answer>",
            broken("order", tags_in_order=False, preamble=True),
        ),
        (
            "<reasoning>2 * 9 = 18</reasoning><answer>18",
            broken("missing tag", tags_in_order=False, answers=()),
        ),
        (
            "<reasoning>2 * 9 = 18",
            broken("missing tag", tags_in_order=False, answers=()),
        ),
        (
            "The answer is 18.",
            broken("missing tag", tags_in_order=False, answers=(), preamble=True),
        ),
        ("", broken("missing tag", tags_in_order=False, answers=())),
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


@pytest.mark.parametrize(
    "text",
    ["2 * 9 = 18\n#### 18", "\n2 * 9 = 18\n\n#### 18\n \n", "2 * 9 = 18\n \t#### 18"],
)
def test_strict_hash(text: str):
    assert HASH.parse(text) == replace(STRICT, answers=(" 18",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * 9 = 18\n#### 18\nNext", broken("text outside", answers=(" 18",))),
        (
            "2 * 9 = 18\n#### 18\n#### 19",
            broken("repeated tag", answers=(" 18", " 19")),
        ),
        (
            "2 * 9 = 18\n#### Final answer: #### 18",
            broken("repeated tag", answers=(" 18",)),
        ),
        ("2 * 9 = 18\n####", broken("empty answer", answers=("",))),
        ("2 * 9 = 18\n#### \n", broken("empty answer", answers=(" ",))),
        ("2 * 9 = 18 #### 18", broken("tag inside a line", answers=(" 18",), tags_in_order=False)),
        (
            "\n#### 18",
            broken("empty reasoning", answers=(" 18",), tags_in_order=False),
        ),
        ("2 * 9 = 18", broken("missing tag", answers=(), tags_in_order=False)),
        ("", broken("missing tag", answers=(), tags_in_order=False)),
    ],
)
def test_broken_hash_names_the_first_rule_broken(text: str, expected: Parsed):
    assert HASH.parse(text) == expected


PLAIN = st.text(st.characters(exclude_characters="<#\\{}")).filter(str.strip)
NUMBERS = st.sampled_from(["{:d}", "{:,d}", "${:,d}", "{:d}.50"]).flatmap(
    lambda form: st.integers(-(10**9), 10**9).map(form.format)
)


@EVERY
@given(reasoning=PLAIN, answer=NUMBERS)
def test_what_is_rendered_is_strict_and_reads_back(answer_format, reasoning: str, answer: str):
    parsed = answer_format.parse(answer_format.render(reasoning, answer))
    assert parsed.strict
    assert parsed.failure is None
    assert parsed.answers[0].strip() == answer


@pytest.mark.parametrize("answer_format", [XML, HASH, BOXED], ids=lambda one: one.name)
@given(reasoning=PLAIN, answer=PLAIN.map(lambda text: text.replace("\n", "")).filter(str.strip))
def test_where_marks_say_so_any_text_is_an_answer(answer_format, reasoning: str, answer: str):
    parsed = answer_format.parse(answer_format.render(reasoning, answer))
    assert parsed.strict
    assert parsed.answers[0].strip() == answer.strip()


PIECES = [
    *("<answer>", "</answer>", "<reasoning>", "####", "\n#### ", "\\boxed{", "\\boxed", "{", "}"),
    *("\\", "$", "\\]", "{,}", "\\text{", "<", " ", "\n", "a", "1", "1 ", "1/", "1 1/", "1,", "1."),
    *("1 000 ", "\\,", "1\\,", "\\text{1}", "^\\circ", "#### 1", "<answer>1</answer>", "$ "),
    *("-", "^", "9^{", "1e", ":1", "1%", "\0", "\u202e", "\u0663", "<script>1</script>", "NaN "),
]
FRAGMENTS = st.lists(
    st.sampled_from([*PIECES, "</reasoning>", "18"]) | st.text(max_size=5), max_size=12
).map("".join)


@EVERY
@given(text=FRAGMENTS)
def test_any_text_parses_and_only_strict_has_no_failure(answer_format, text: str):
    parsed = answer_format.parse(text)
    assert parsed.strict == (parsed.failure is None)
    if parsed.strict:
        assert parsed.tags_in_order
        assert not parsed.preamble
        again = answer_format.parse(answer_format.render("steps", parsed.answers[0]))
        assert again.strict
        assert [one.strip() for one in again.answers] == [one.strip() for one in parsed.answers]


def seconds_to_score(answer_format, piece: str, size: int) -> float:
    """Seconds of this thread alone: by the wall clock, a busy machine would fail the test."""
    text = piece * (size // len(piece))
    started = time.thread_time()
    for hostile in (
        text,
        answer_format.render("steps", text),
        GOOD + text,
        "<reasoning>" + text,
    ):
        score(hostile, "18", answer_format=answer_format)
    return time.thread_time() - started


@EVERY
@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear(answer_format, piece: str):
    first = min(seconds_to_score(answer_format, piece, 20_000) for _ in range(2))
    # Were it quadratic, 256 times as long. The constant and the tries: caches have other users.
    limit = 2 * 16 * first + 0.05
    assert any(seconds_to_score(answer_format, piece, 16 * 20_000) < limit for _ in range(3))


NEVER_18 = [
    "NaN",
    "inf",
    "-Infinity",
    "1e400",
    "10^400",
    "1" + "0" * 400,
    "18e400",
    "18" * 500_000,
    "18\0",
    "\x0718",
    "1\x088",
    "\u200f18",
    "18\u200e",
    "\u202e81\u202c",
    "1\u200b8",
    "\u0661\u0668",  # 18 in Arabic-Indic digits
    "\uff11\uff18",  # 18 in fullwidth digits
    "18\u0660",
    "\N{CIRCLED NUMBER EIGHTEEN}",
    "<script>alert(1)</script>",
    "&#49;&#56;",
    *(mark * 50_000 for mark in ("<answer>", "</answer>", "####", "\\boxed{", "\\boxed{19}")),
    "<answer><answer>1</answer></answer>",
    "\\boxed{\\boxed{1}}",
]


@EVERY
@pytest.mark.parametrize("hostile", NEVER_18, ids=lambda text: ascii(text[:20]))
def test_a_hostile_completion_never_scores_as_right(answer_format, hostile: str):
    for text in (hostile, answer_format.render("steps", hostile)):
        assert not score(text, "18", answer_format=answer_format).values["answer_accuracy"]


@pytest.mark.parametrize("answer_format", [XML, HASH, BOXED], ids=lambda one: one.name)
@pytest.mark.parametrize("hostile", ["<b>18</b>", "<script>18</script>", "18<!-- -->", "&nbsp;18"])
def test_where_marks_say_so_markup_is_no_number(answer_format, hostile: str):
    one = score(answer_format.render("steps", hostile), "18", answer_format=answer_format)
    names = ("format_accuracy", "answer_extractable", "answer_accuracy")
    assert [one.values[name] for name in names] == [True, False, False]
