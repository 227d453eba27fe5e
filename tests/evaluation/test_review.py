from dataclasses import replace

from nblib.evaluation.answers import score_answers
from nblib.evaluation.review import changed_answers, keep_review, regressions
from nblib.runs import start_run
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.review import apply_review, read_review
from nblib.tasks.task import Example

SPECS = {"name": {"type": "string"}, "price": {"type": "number"}}
GOLD = {"a": {"name": "Mug", "price": 2}, "b": {"name": None, "price": 3}, "c": "YES"}
BEFORE = {"a": '{"name": "Mug", "price": 2}', "b": '{"name": null, "price": 4}', "c": "YES"}
AFTER = {"a": '{"name": "Cup", "price": 2}', "b": '{"name": "Jug", "price": 5}', "c": "NO"}


def stage(name, completions, examples=None):
    known = {one.id: one for one in examples or ()}
    answers = [
        {
            "id": id_,
            "group": "shop",
            "question": "",
            "prompt": "",
            "completion": completion,
            "reference": GOLD[id_],
            "truncated": False,
            "tokens": 3,
            "max_new_tokens": 9,
            **({"slot_specs": SPECS} if id_ != "c" else {}),
            **({"slot_specs": known[id_].slot_specs} if id_ in known else {}),
        }
        for id_, completion in completions.items()
        if not examples or id_ in known
    ]
    return score_answers(name, answers, EXTRACTION)


def test_what_got_worse_slot_by_slot():
    found = [
        (one.id, one.task, one.slot, one.gold, one.answer, one.why)
        for one in regressions([stage("base", BEFORE), stage("tuned", AFTER)])
    ]
    assert found == [
        ("a", "shop", "name", "Mug", "Cup", "wrong; base had it right"),
        ("b", "shop", "name", None, "Jug", "invented; base had it right"),
        ("c", "shop", "answer", "YES", "NO", "wrong; base had it right"),
    ]
    assert not list(regressions([stage("base", AFTER), stage("tuned", BEFORE)]))
    unread = stage("tuned", {**AFTER, "a": "Cup"})
    assert [one.id for one in regressions([stage("base", BEFORE), unread])] == ["b", "c"]
    assert not list(regressions([])) and not list(regressions([stage("base", BEFORE)]))


def test_a_marked_file_corrects_the_next_evaluation(tmp_path):
    run = start_run("extraction", {}, root=tmp_path)
    stages = [stage("base", BEFORE), stage("tuned", AFTER)]
    unsure = [{"id": "b", "slot": "price", "gold": 3, "answer": 5}]
    said = keep_review(run, stages, unsure=unsure)
    path = run.path / "review.csv"
    assert said.startswith(f"4 values to look at in {path}: mark them right, wrong or gold")
    rows = read_review(path)
    assert (rows[-1].slot, rows[-1].task, rows[-1].why) == ("price", "shop", "judge unsure")
    marks = ("right", "gold is wrong", "gold is wrong", "wrong")
    marked = [replace(one, mark=mark) for one, mark in zip(rows, marks, strict=True)]
    examples = [
        Example(
            id=id_,
            prompt="",
            completion="",
            reference=gold,
            slot_specs=SPECS if id_ != "c" else {},
        )
        for id_, gold in GOLD.items()
    ]
    reviewed = apply_review(marked, examples)
    again = stage("tuned", AFTER, reviewed.examples)
    assert [one["id"] for one in again.records] == ["a", "b"]
    assert [one["perfect_record"] for one in again.records] == [True, False]
    # Right are a's name and price; b's price is wrong, its name not counted, c is left out.
    assert again.metrics["slot_f1"] == 2 * 2 / (3 + 3)
    assert reviewed.counts == {"accepted": 1, "slots left out": 1, "rows left out": 1}


def test_nothing_to_look_at_writes_nothing(tmp_path):
    run = start_run("extraction", {}, root=tmp_path)
    assert keep_review(run, [stage("base", BEFORE), stage("tuned", BEFORE)]) == "nothing got worse"
    assert not (run.path / "review.csv").exists()


def test_two_tables_of_answers_are_compared_slot_by_slot():
    before = [
        {"id": "a", "task": "shop", "answer": {"name": "Mug", "price": 2}},
        {"id": "b", "task": "leads", "answer": "YES"},
        {"id": "c", "task": "shop", "answer": None},
    ]
    after = [
        {"id": "a", "task": "shop", "answer": {"name": "Cup", "price": 2}},
        {"id": "b", "task": "leads", "answer": "NO"},
        {"id": "c", "task": "shop", "answer": {"name": "Mug"}},
        {"id": "d", "task": "shop", "answer": {"name": "Mug"}},
    ]
    found = [(one.id, one.slot, one.gold, one.answer) for one in changed_answers(before, after)]
    assert found == [("a", "name", "Mug", "Cup"), ("b", "answer", "YES", "NO")]
