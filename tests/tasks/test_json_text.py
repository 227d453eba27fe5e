"""JSON among other text: what is found by hand, round trips, and time linear in the text."""

import json
import math
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.sources.travel import travel_requests
from nblib.tasks.envelope import score
from nblib.tasks.json_text import DEEPEST, read_json_text, write_json_text
from nblib.tasks.task import Example


@pytest.mark.parametrize(
    ("text", "value", "count", "alone", "cut", "holds_object"),
    [
        ('Sure! ```json {"a": 1} ```', {"a": 1}, 1, False, False, True),
        ('[1] {"a": 1} {"b": 2}', {"a": 1}, 2, False, False, True),
        ('{"a": {"b": 1}', None, 0, False, True, False),
        ('{"a" 1, "c": {"b": 1}}', None, 0, False, False, False),
        ('{"a" 1, "c": {"b": "}"}, "d": "\\"{"} {"e": 1}', {"e": 1}, 1, False, False, True),
        ('{"a" 1, {"b": 1}', None, 0, False, False, False),  # the first is never closed
        ('{"a": ["b"]], "c": [{"d": 1}, {"e": 2}]}', None, 0, False, False, False),  # all a wreck
        ('{"a": 1} {"b": ', {"a": 1}, 1, False, True, True),
        ("[1] or [2, 3]", None, 0, False, False, False),  # notes, or boxes to tick
        ('or [2, {"a": 1}]', [2, {"a": 1}], 1, False, False, True),
        ('{"a": 1, "a": 2}', {"a": 2}, 1, True, False, True),
        ('{"a": 1e999}', {"a": math.inf}, 1, True, False, True),
        ('{"a": "x\ny"}', {"a": "x\ny"}, 1, True, False, True),
        ('{"\\ud800": "\\udc00\\ud83d\\ude00"}', {"\ufffd": "\ufffd😀"}, 1, True, False, True),
        ("Well. [the plan] {of the trip}", None, 0, False, False, False),
        ("5 {", None, 0, False, True, False),
        ("\u00a0[]", [], 1, True, False, False),
        # Words and numbers that end where the text goes on are no cut.
        ('{"a": n' + " " * 20 + "x}", None, 0, False, False, False),
        ('{"a": 1' + "\u00a0" * 20 + "}", None, 0, False, False, False),
        ('{"a": "\\u12' + " " * 20 + '"}', None, 0, False, False, False),
        ('{"a": nil', None, 0, False, False, False),
    ],
)
def test_what_is_found_in_a_text_that_is_not_strict(text, value, count, alone, cut, holds_object):
    one = read_json_text(text)
    assert not one.strict and one.problem
    assert one.value == value
    assert (one.count, one.alone, one.cut) == (count, alone, cut)
    assert one.holds_object == holds_object


@pytest.mark.parametrize(
    ("text", "value", "holds_object"),
    [("5", 5, False), ("null", None, False), (' "a"\n', "a", False), ("[[{}]]", [[{}]], True)],
)
def test_a_strict_text_is_its_value(text, value, holds_object):
    one = read_json_text(text)
    assert (one.strict, one.value, one.problem, one.count) == (True, value, None, 1)
    assert (one.alone, one.cut, one.holds_object) == (True, False, holds_object)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("[NaN]", "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("[-1e999]", "-1e999 is no JSON number"),
        ("1" * 4301, "11111111111111111111... is no JSON number"),
        (r'["\ud800"]', "half of a surrogate pair"),
        ('["\ud83d\ude00"]', "half of a surrogate pair"),  # two halves as they are, no escapes
        ("\ufeff1", "Expecting value: line 1 column 1"),
        ('["a\nb"]', "Invalid control character at"),
        ("1 2", "Extra data"),
        ("01", "Extra data"),
    ],
)
def test_a_text_that_is_not_strict_has_a_problem(text, problem):
    one = read_json_text(text)
    assert not one.strict and one.problem.startswith(problem)


def test_a_number_that_python_can_hold_is_strict():
    for text in ("1" * 4300, "-0", "1e308", "1E-999", "0.1e1"):
        assert read_json_text(text).strict, text


@pytest.mark.parametrize("inside", ["", "1", "{}"])
def test_brackets_nested_so_deep_are_strict_and_no_deeper(inside):
    allowed = DEEPEST - (inside == "{}")
    for levels, strict in ((allowed, True), (allowed + 1, False), (300, False), (5000, False)):
        one = read_json_text("[" * levels + inside + "]" * levels)
        assert (one.strict, one.count, one.alone, one.cut) == (strict, 1, True, False), levels
        assert strict or one.problem == "brackets are nested over 64 levels"


def test_of_a_value_nested_too_deep_the_rest_is_kept():
    one = read_json_text('{"a": 1, "b": ' + "[" * 80 + "]" * 80 + "}")
    assert (one.value["a"], one.holds_object) == (1, True)
    inner, levels = one.value["b"], 1  # the object is a level too
    while inner:
        (inner,), levels = inner, levels + 1
    assert (inner, levels) == (None, DEEPEST)


@pytest.mark.parametrize("start", ['{"a": ', '{"a": {"b": 1}, "c": ', '["b", ', '[{"a": ['])
def test_a_text_that_ends_inside_a_value_is_cut(start):
    for end in ("", " \n", '"', '"x', '"\\', '"\\u', '"\\ud8', '"x"', *"t{[-", "tru", "1.", "1E-"):
        one = read_json_text(start + end)
        assert (one.cut, one.value, one.holds_object) == (True, None, False), end
    for end in (",", ":", "\\", "trie", "1..", "x", ")"):  # broken before it ends
        assert not read_json_text(start + end).cut, end


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_that_is_written_is_read_again(value):
    text = write_json_text(value)
    assert "\n" not in text
    one = read_json_text(text)
    assert (one.strict, one.value, one.problem) == (True, value, None)
    assert json.dumps(one.value) == json.dumps(value)  # 1.0 is 1.0, and true is not 1


@given(
    st.dictionaries(st.text(), VALUES) | st.lists(st.dictionaries(st.text(), VALUES), min_size=1)
)
def test_a_value_with_prose_around_is_found_the_same(value):
    one = read_json_text(f"Sure: ```{write_json_text(value)}```!")
    assert (one.strict, one.cut, one.count, one.alone) == (False, False, 1, False)
    assert one.value == value


@given(st.dictionaries(st.text(), VALUES, min_size=1) | st.lists(VALUES, min_size=1), st.data())
def test_the_beginning_of_a_value_is_cut_and_holds_nothing(value, data):
    text = write_json_text(value)
    one = read_json_text(text[: data.draw(st.integers(1, len(text) - 1))])
    assert (one.strict, one.value, one.cut) == (False, None, True)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_is_no_json_number_is_not_written(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_text(value)


def envelope_with(field: str, value: str) -> str:
    """Return a valid envelope, one of whose fields is replaced by a JSON text."""
    (row,) = travel_requests(1, seed=0, split="train")
    return json.dumps({**row.fields["response"], field: "HERE"}).replace('"HERE"', value)


def repeated(piece: str) -> Callable[[int], str]:
    return lambda size: piece * (size // len(piece))


# Each makes a text of about so many characters.
TEXTS: dict[str, Callable[[int], str]] = {
    "{": repeated("{"),
    "[": repeated("["),
    '{"a":': repeated('{"a":'),
    '{"a" ': repeated('{"a" '),
    '{"a" 1}': repeated('{"a" 1}'),
    "[{": repeated("[{"),
    "[t": repeated("[t"),
    '{"a":1}': repeated('{"a":1}'),
    "[1] ": repeated("[1] "),
    "deep, closed": repeated("[" * 2000 + "]" * 2000),
    "deep, then broken": repeated("[" * 2000 + "]" * 2000 + '{"a" '),
    "broken, then quotes": lambda size: '{"a" x"' + '\\"' * (size // 2),
    "{ and blanks": repeated("{" + " " * 1000),
    "a key twice": lambda size: "{" + "".join(f'"{n}": 1, ' for n in range(size // 11)) + '"0": 1}',
    "extra keys": lambda size: envelope_with(
        "summary", '"", ' + ", ".join(f'"{n}": 1' for n in range(size // 11))
    ),
    "a long text": lambda size: envelope_with("summary", f'"{"x" * size}"'),
    r"\ud800": lambda size: envelope_with("summary", '"' + r"\ud800" * (size // 6) + '"'),
    "a long note": lambda size: envelope_with("uncertainty_notes", f'"{"not est " * (size // 8)}"'),
    "a long list": lambda size: envelope_with("assumptions", f"[{'1, ' * (size // 3)}1]"),
    "a long type": lambda size: envelope_with("payload_type", f"[{'1, ' * (size // 3)}1]"),
    "many days": lambda size: envelope_with(
        "payload", f'{{"title": "", "trip_days": [{"{}, " * (size // 4)}{{}}]}}'
    ),
    "digits": lambda size: f"[{'1' * size}, 0.{'1' * size}, 1e{'9' * size}]",
}


@pytest.mark.parametrize("make", TEXTS.values(), ids=TEXTS)
def test_a_score_takes_time_linear_in_the_text(make):
    example = Example(id="1", prompt="", completion="", reference={"payload_type": "itinerary"})

    def seconds(size: int) -> float:
        text, runs = make(size), []
        for _ in range(2):
            started = time.process_time()
            score(text, example)
            runs.append(time.process_time() - started)
        return min(runs)

    assert seconds(1_000_000) < 40 * max(seconds(50_000), 0.001)  # the text is 20 times as long
