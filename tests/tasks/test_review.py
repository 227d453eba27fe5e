import csv

import pytest

from nblib.tasks.extraction import EXTRACTION, score
from nblib.tasks.review import ReviewRow, apply_review, read_review, write_review
from nblib.tasks.task import Example

SPECS = {"name": {"type": "string"}, "price": {"type": "number", "accept": [3]}}
GOLD = {"name": "Mug", "price": 2}


def example(id_="a", reference=GOLD, specs=SPECS):
    return Example(id=id_, prompt="", completion="", reference=reference, slot_specs=specs)


def row(slot="name", answer="Cup", mark="", **changes):
    given = {"id": "a", "task": "shop", "gold": "Mug", "why": "wrong"} | changes
    return ReviewRow(slot=slot, answer=answer, mark=mark, **given)


ROWS = [
    row(),
    row("price", 2.5, gold=None),
    row("tags", ["a", "ä;b,c"], gold={"x": 'say "hi"\n'}),
    row("name", "=1+1", id="b"),
    row("stock", True, gold="0123"),
]


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "run" / "review.csv"
    assert write_review(path, ROWS) == tuple(ROWS) == read_review(path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfid,task,slot,gold,answer,why,mark\n")
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [one for line in csv.reader(file) for one in line]
    assert not any(one.startswith(("=", "+", "-", "@")) for one in cells)  # no formula


def test_marks_are_kept_when_it_is_written_again(tmp_path):
    path = tmp_path / "review.csv"
    write_review(path, ROWS)
    text = path.read_text(encoding="utf-8-sig")
    first, *others = text.splitlines(keepends=True)[1:]
    path.write_text(
        "".join(["id,task,slot,gold,answer,why,mark\n", first[:-1], "right\n", *others])
    )
    assert read_review(path)[0].mark == "right"
    again = write_review(path, [row(why="wrong; base had it right"), row("price", 9)])
    assert [one.mark for one in again] == ["right", ""]
    assert write_review(path, [row("price", 9)])[0].mark == ""
    assert [one.mark for one in read_review(path)] == ["", "right"]  # no longer wrong, not lost


def test_a_spreadsheets_own_way_of_writing_it(tmp_path):
    path = tmp_path / "review.csv"
    path.write_text(
        "mark;id;task;slot;gold;answer;why\r\n Right ;a;shop;stock;TRUE;FALSE;wrong\r\n"
        'wrong;a;shop;name;"""Mug""";null;omitted\r\n'
    )
    first, second = read_review(path)
    assert (first.mark, first.gold, first.answer) == ("right", True, False)
    assert (second.mark, second.gold, second.answer) == ("wrong", "Mug", None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a,shop,name,1,2,wrong,yes", r"review\.csv:3: mark is 'yes', expected one of 'right', 'w"),
        ("a,shop,name,1,Cup,wrong,right", r"review\.csv:3: answer is 'Cup', expected JSON"),
        ("a,shop,name", r"review\.csv:3: gold is '', expected JSON"),
    ],
)
def test_a_broken_line_is_named(line, problem, tmp_path):
    path = tmp_path / "review.csv"
    head = "id,task,slot,gold,answer,why,mark\na,shop,name,1,2,wrong,\n"
    path.write_text(f"{head}{line}\n")
    with pytest.raises(ValueError, match=problem):
        read_review(path)
    path.write_text("id,slot\n")
    with pytest.raises(ValueError, match="lacks the columns task, gold, answer, why, mark"):
        write_review(path, ROWS)


def test_right_accepts_the_answer_besides_the_gold():
    found = apply_review([row(mark="right"), row("price", None, mark="right")], [example()])
    (one,) = found.examples
    assert one.slot_specs["name"] == {"type": "string", "accept": ["Cup"]}
    assert one.slot_specs["price"]["accept"] == [3, None]
    assert found.counts["accepted"] == 2 and not found.unknown
    for text in ('{"name": "Cup", "price": null}', '{"name": "Mug", "price": 3}'):
        assert score(text, one).values["perfect_record"]
    assert not score('{"name": "Jug", "price": 2}', one).values["perfect_record"]
    assert EXTRACTION.schema(one) == EXTRACTION.schema(example())


def test_gold_is_wrong_leaves_the_slot_out():
    found = apply_review([row(mark="gold is wrong")], [example(), example("b")])
    one, other = found.examples
    assert other == example("b")
    scored = score('{"name": "Jug", "price": 9}', one)
    assert list(scored.slots) == ["price"] and scored.values["schema_valid"]
    assert score('{"name": "Jug", "price": 2}', one).values["slot_f1"] == 1
    assert list(score("no JSON", one).slots) == ["price"]
    assert found.counts == {"accepted": 0, "slots left out": 1, "rows left out": 0}
    assert EXTRACTION.schema(one) == EXTRACTION.schema(example())  # it is asked all the same


def test_a_row_without_a_right_slot_is_left_out():
    marks = [row(slot, mark="gold is wrong") for slot in SPECS]
    found = apply_review([*marks, row("name", "x", mark="right")], [example(), example("b")])
    assert [one.id for one in found.examples] == ["b"]
    assert found.counts == {"accepted": 0, "slots left out": 0, "rows left out": 1}


def test_words_are_the_slot_answer():
    asked = [example(id_, "YES", {}) for id_ in "ab"]
    listed = example("c", "shop", {"answer": {"enum": ["shop", "news"]}})
    marks = [
        row("answer", "NO", mark="right"),
        row("answer", "NO", mark="gold is wrong", id="b"),
        row("answer", "news", mark="right", id="c"),
    ]
    found = apply_review(marks, [*asked, listed])
    assert [one.id for one in found.examples] == ["a", "c"]
    for one, word in zip(found.examples, ("NO", "news"), strict=True):
        assert score(word, one).values["perfect_record"]
    assert EXTRACTION.schema(found.examples[0]) == ("YES", "NO")


def test_wrong_and_no_mark_change_nothing():
    found = apply_review([row(mark="wrong"), row("price", 9)], [example()])
    assert found.examples == (example(),) and not any(found.counts.values())
    assert str(found) == "no marks of a review change anything"


def test_marks_of_rows_that_are_not_asked_are_named():
    marks = [row(mark="right", id="z"), row("size", mark="right"), row(id="y"), row(mark="right")]
    found = apply_review(marks, [example()])
    assert found.unknown == ("z name", "a size")
    assert str(found).splitlines() == [
        "review: 1 accepted, 0 slots left out, 0 rows left out",
        "2 marks are of no row that is asked: z name, a size",
    ]
