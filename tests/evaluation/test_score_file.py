"""A file of completions: its rates by hand, the harness' logs, each way to break, its memory."""

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.evaluation.answers import score_answers
from nblib.evaluation.score_file import score_file, score_lines
from nblib.tasks import formats
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.gsm8k import GSM8K

HASH, BOXED, LAST_NUMBER = (GSM8K.variants[name] for name in ("hash", "boxed", "last-number"))


def xml(answer: str) -> str:
    return formats.XML.render("2 * 9 = 18", answer)


def line(completion: str, reference: str = "18", **more: object) -> dict:
    return {"reference": reference, "completion": completion, **more}


def logged(doc_id: int, completion: str, filter_: str = "strict-match", **changes: object) -> dict:
    """Return a line as lm-evaluation-harness logs one of GSM8K."""
    return {
        "doc_id": doc_id,
        "doc": {"question": "How much?", "answer": "2 * 9 = <<2*9=18>>18\n#### 18"},
        "target": "2 * 9 = <<2*9=18>>18\n#### 18",
        "arguments": {"gen_args_0": {"arg_0": "Question: How much?\nAnswer:", "arg_1": {}}},
        "resps": [[completion]],
        "filtered_resps": ["18"],
        "filter": filter_,
        "metrics": ["exact_match"],
        "doc_hash": "5b4d",
        "exact_match": 1.0,
        **changes,
    }


def encoded(*records: object) -> list[bytes]:
    return [json.dumps(record).encode() + b"\n" for record in records]


def scored(*records: object, task=GSM8K, **settings) -> dict:
    return score_lines(encoded(*records), name="a.jsonl", task=task, **settings)


FIVE = (
    line(xml("18"), id="a", truncated=False),
    line("Okay. " + xml("$18.00"), id=2, truncated=False),
    line(xml("19"), "18", truncated=False),
    line(xml("18%"), truncated=False),
    line("<reasoning>2 * 9", truncated=True),
)


def test_the_rates_of_five_lines(tmp_path):
    path = tmp_path / "five.jsonl"
    path.write_bytes(b"".join(encoded(*FIVE)))
    metrics = score_file(path, task=GSM8K)
    names = ("n", *GSM8K.metric_names, "truncation_rate")
    assert {name: metrics[name] for name in names} == {
        "n": 5,
        "format_accuracy": 0.6,
        "tag_order_accuracy": 0.8,
        "answer_extractable": 0.6,
        "answer_accuracy": 0.4,
        "joint_accuracy": 0.2,
        "preamble_rate": 0.2,
        "lenient_accuracy": 0.4,
        "truncation_rate": 0.2,
    }
    assert metrics["joint_accuracy_ci95"] == pytest.approx([0.036, 0.624], abs=5e-4)
    assert metrics["task"] == "gsm8k"
    assert list(metrics["failures"].items()) == [
        ("missing tag", 1),
        ("text outside", 1),
        ("unreadable number", 1),
        ("wrong answer", 1),
    ]
    assert (metrics["right_without_percent_sign"], metrics["skipped_references"]) == (1, 0)
    assert "hint" not in metrics
    assert json.loads(json.dumps(metrics)) == metrics


@given(st.lists(st.sampled_from(FIVE), min_size=1, max_size=40))
def test_a_file_is_counted_as_a_stage_is(records: list[dict]):
    percentages = records.count(FIVE[3])
    records = [{**record, "id": f"{index}"} for index, record in enumerate(records)]
    stage = score_answers("x", records, GSM8K)
    metrics = scored(*records)
    failures = metrics.pop("failures")
    assert metrics.pop("right_without_percent_sign", 0) == percentages
    assert ("hint" in metrics) == (metrics["answer_extractable"] == 0)
    metrics.pop("hint", None)
    assert metrics == {**stage.metrics, "task": "gsm8k", "skipped_references": 0}
    assert failures == {one: sum(r["failure"] == one for r in stage.records) for one in failures}
    assert sum(failures.values()) == sum(not one["joint_accuracy"] for one in stage.records)
    assert list(failures.values()) == sorted(failures.values(), reverse=True)
    assert scored(*stage.records) == scored(*records)  # predictions.jsonl


FORMS = (formats.XML, formats.HASH, formats.BOXED, formats.LAST_NUMBER)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_task_is_a_parameter(form):
    completion = form.render("2 * 9 = 18", "18")
    for other, task in {"xml": GSM8K, **GSM8K.variants}.items():
        metrics = scored(line(completion), task=task)
        assert metrics["task"] == task.name
        assert metrics["joint_accuracy"] == float(other in (form.name, "last-number"))


def test_another_task_has_references_and_details_of_its_own(slots):
    records = [
        line('{"x": 1, "y": 2}', {"x": 1}),
        line("{}", {"x": 1}),
        line("x is 1", {"x": 1}),
        line("{}", "18"),
    ]
    with pytest.raises(ValueError, match=r"a.jsonl:4: unreadable reference '18': expected an obje"):
        scored(*records, task=slots)
    metrics = scored(*records, task=slots, skip_unreadable_references=True)
    assert (metrics["n"], metrics["skipped_references"]) == (3, 1)
    assert metrics["slot_f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert metrics["slot_f1_ci95"][0] == 0 and metrics["schema_valid"] == pytest.approx(2 / 3)
    assert metrics["failures"] == {"wrong slots": 2, "no object": 1}
    assert metrics["empty"] == 1  # a yes or no; the number `right` is not counted
    assert "right" not in metrics
    assert "read as slots in 0: choose" in scored(records[2], task=slots)["hint"]


def test_a_log_of_the_harness_counts_each_document_once():
    base, right = "2 * 9 = 20\n#### 20", "2 * 9 = 18\n#### 18"
    records = [
        logged(doc_id, completion, filter_)
        for filter_ in ("strict-match", "flexible-extract")
        for doc_id, completion in enumerate((right, right, base))
    ]
    metrics = scored(*records, task=HASH)
    assert (metrics["n"], metrics["joint_accuracy"]) == (3, 2 / 3)
    assert metrics["failures"] == {"wrong answer": 1}
    for record in records:
        del record["filter"]  # earlier versions do not write it
    assert scored(*records, task=HASH) == metrics


def test_of_a_log_the_number_of_the_target_counts_read_as_a_completion_is():
    records = [
        logged(0, "so 1,200", target="steps\n#### 1,200"),
        logged(1, "so -3", target="-3"),
        logged(2, "so 40,000", target=r"40,\!000"),
        logged(3, "so 40,000", target="steps\n#### 40 000"),
        logged(4, "so 18", target=r"18\text{ units}"),
    ]
    metrics = scored(*records, task=LAST_NUMBER)
    assert (metrics["n"], metrics["answer_accuracy"]) == (5, 1.0)
    with pytest.raises(ValueError, match=r"unreadable reference 'steps\\n#### 1,20'"):
        scored(logged(0, "so 120", target="steps\n#### 1,20"))


@pytest.mark.parametrize("resps", [[["so 18", "so 18"]], [["so 18"], ["so 18"]]])
def test_a_log_of_several_responses_to_one_document_is_refused(resps: list):
    with pytest.raises(ValueError, match=r"a.jsonl:1: .*holds 2 responses .*: expected one"):
        scored(logged(0, "", resps=resps))


@pytest.mark.parametrize("truncated", [{}, {"truncated": None}])
def test_truncation_that_a_line_does_not_say_is_unknown(truncated: dict):
    for records in ([logged(0, "18")], [*FIVE, line(xml("18"), **truncated)]):
        metrics = scored(*records)
        assert (metrics["truncation_rate"], metrics["truncation_rate_ci95"]) == (None, None)
        assert metrics["preamble_rate"] is not None


def test_the_percent_rule_says_how_many_it_decides():
    records = [
        line(r"steps \boxed{18\%}"),
        line(r"steps \boxed{18\,\%}."),
        line(r"steps \boxed{18 percent}"),
        line(r"100% sure: \boxed{18}"),
        line(r"steps \boxed{19\%}"),
        line(r"steps \boxed{-18\%}"),
    ]
    metrics = scored(*records, task=BOXED)
    assert metrics["right_without_percent_sign"] == 3
    assert metrics["answer_accuracy"] == pytest.approx(1 / 6)
    assert scored(line("it is 18 %"), task=LAST_NUMBER)["right_without_percent_sign"] == 1


MATH = [
    logged(0, r"so \boxed{18}", target="18"),
    logged(1, r"so \boxed{18}", target=r"\frac{10}{11}"),
    logged(2, r"so \boxed{18}", target=r"46^\circ"),
    logged(3, r"so \boxed{18}", target="6x"),
    logged(1, r"so \boxed{18}", "flexible-extract", target=r"\frac{10}{11}"),
]


def test_references_that_are_no_numbers_are_an_error_or_counted():
    message = r"a.jsonl:2: unreadable reference .*; --skip-unreadable-references counts such"
    with pytest.raises(ValueError, match=message):
        scored(*MATH, task=BOXED)
    metrics = scored(*MATH, task=BOXED, skip_unreadable_references=True)
    assert (metrics["n"], metrics["skipped_references"]) == (2, 2)
    assert metrics["answer_accuracy"] == 0.5
    with pytest.raises(ValueError, match="no line to score: 1 have an unreadable reference"):
        scored(MATH[1], skip_unreadable_references=True)
    with pytest.raises(ValueError, match=r'a\.jsonl:1: "completion" is 5'):
        scored(line(5), skip_unreadable_references=True)


def test_where_no_answer_can_be_read_the_tasks_that_fit_are_named():
    records = [line("2 * 9 = 18\n#### 18"), line("2 * 9 = 18\n#### 18"), line("so 18")]
    assert scored(*records)["hint"] == (
        "no answer can be read as gsm8k; of 3 completions, answers can be read as gsm8k in 0, "
        "gsm8k/hash in 2, gsm8k/boxed in 0, gsm8k/last-number in 3: choose one with --task"
    )
    assert "hint" not in scored(*records, line(xml("18")))
    assert "hint" not in scored(line(xml("19")), *records)
    assert "hint" not in scored(*records, task=HASH)
    assert "gsm8k in 1, gsm8k/hash in 0" in scored(line(xml("18")), task=HASH)["hint"]


EXPECTED = 'expected an object with "reference" and "completion", or one of a sample log'


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"{", f"no JSON .*: {EXPECTED}"),
        (b'{"reference": "18", "completion": "\xff"}', f"no JSON .*utf-8.*: {EXPECTED}"),
        (b"[" * 100_000, f"no JSON .*: {EXPECTED}"),
        (b"9" * 5000, f"no JSON .*: {EXPECTED}"),
        (b'["18", "18"]', rf"\['18', '18'\]: {EXPECTED}"),
        (
            b'{"reference": "1", "completion": "1", "completion": "2"}',
            "no JSON .*'completion' is giv",
        ),
        (b"null", f"None: {EXPECTED}"),
        (b"{}", rf'no "reference" among \[\]: {EXPECTED}'),
        (b'{"completion": "18"}', r"""no "reference" among \['completion'\]"""),
        (b'{"reference": "18", "id": 1}', 'no "completion" among'),
        (b'{"reference": 18, "completion": "18"}', "unreadable reference 18: expected one number"),
        (b'{"reference": "18", "completion": null}', '"completion" is None: expected text'),
        (b'{"reference": "5%", "completion": "18"}', "unreadable reference '5%'"),
        (
            b'{"reference": "1", "completion": "1", "id": [1]}',
            r'"id" is \[1\]: expected text or a whole number',
        ),
        (b'{"reference": "1", "completion": "1", "id": true}', '"id" is True: expected text'),
        (
            b'{"reference": "1", "completion": "1", "truncated": "no"}',
            "\"truncated\" is 'no': expected true or false",
        ),
        (json.dumps(logged(1, "18", resps=["18"])).encode(), r"\"resps\" is \['18'\]: expected a"),
        (json.dumps(logged(1, "18", resps=[["18"], 3])).encode(), '"resps" holds 2 responses'),
        (json.dumps(logged(1, "18", resps=[])).encode(), r"\"resps\" is \[\]: expected a list"),
        (
            json.dumps(logged(1, "18", resps=[[[-0.5, True]]])).encode(),
            r"\"resps\" is \[\[\[-0.5, True\]\]\]: .* generates text",
        ),
        (json.dumps(logged(1, "18", target="so 18")).encode(), "unreadable reference 'so 18'"),
        (json.dumps(logged(1, "18", target=18)).encode(), "unreadable reference 18: expected one"),
        (json.dumps(logged(1.5, "18")).encode(), '"doc_id" is 1.5: expected text or a whole'),
        (b'{"target": "18", "resps": [["18"]]}', 'no "doc_id" among'),
    ],
)
def test_a_broken_line_is_named_with_what_came_and_what_was_expected(broken: bytes, message: str):
    with pytest.raises(ValueError, match=f"^a.jsonl:3: {message}"):
        score_lines([*encoded(FIVE[0]), b" \n", broken], name="a.jsonl", task=GSM8K)


def test_an_error_does_not_repeat_a_whole_megabyte():
    with pytest.raises(ValueError, match="expected text") as error:
        scored(line(["x" * 1_000_000]))
    assert len(str(error.value)) < 400


def test_an_id_that_repeats_is_an_error():
    with pytest.raises(ValueError, match=r"a.jsonl:2: id 'a' repeats: expected one line"):
        scored(FIVE[0], FIVE[0])
    assert scored(line(xml("18"), id=1), line(xml("18"), id="1"))["n"] == 2
    assert scored(line(xml("18")), line(xml("18")))["n"] == 2


@pytest.mark.parametrize("changes", [{"resps": [["another"]]}, {"target": "#### 19"}])
def test_two_logs_in_one_file_are_an_error(changes: dict):
    with pytest.raises(ValueError, match=r"a.jsonl:2: doc_id 0 repeats with another"):
        scored(logged(0, "18"), logged(0, "18", "flexible-extract", **changes))


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_an_error(content: bytes, tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: no line to score: {EXPECTED}"):
        score_file(path, task=GSM8K)


def test_what_other_programs_write_is_read(tmp_path):
    path = tmp_path / "windows.jsonl"
    lines = [json.dumps(line(xml("18 Äpfel\u2028")), ensure_ascii=False), json.dumps(FIVE[0]), ""]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert score_file(path, task=GSM8K)["n"] == 2
    assert scored(line("\ud800", id="\ud800"), logged(1, "\ud800"))["n"] == 2


def test_a_packed_file_is_scored_as_it_is_unpacked(tmp_path):
    paths = [tmp_path / "five.jsonl", tmp_path / "five.jsonl.gz"]
    paths[0].write_bytes(b"".join(encoded(*FIVE)))
    paths[1].write_bytes(gzip.compress(paths[0].read_bytes()))
    assert score_file(paths[0], task=GSM8K) == score_file(paths[1], task=GSM8K)
    paths[1].write_bytes(paths[0].read_bytes())
    with pytest.raises(ValueError, match=r"five\.jsonl\.gz is no whole gzip file"):
        score_file(paths[1], task=GSM8K)


def peak_bytes(count: int, record: Callable[[int], dict]) -> int:
    lines = (encoded(record(index))[0] for index in range(count))
    tracemalloc.start()
    try:
        assert score_lines(lines, name="long", task=GSM8K)["n"] == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LONG = "x" * 10_000


@pytest.mark.parametrize(
    "record",
    [lambda index: line(LONG, id=f"{LONG}{index}"), lambda index: logged(index, LONG)],
    ids=["lines", "log"],
)
def test_of_a_line_no_more_than_hashes_are_kept(record: Callable[[int], dict]):
    few, many = (peak_bytes(count, record) for count in (50, 200))
    assert many - few < 150 * 400


def test_ten_thousand_lines_take_well_under_five_seconds():
    lines = encoded(*(line("2 + 2 = 4. " * 40 + xml("18"), id=index) for index in range(10_000)))
    started = time.thread_time()
    score_lines(lines, name="many", task=GSM8K)
    assert time.thread_time() - started < 5  # 0.2 s on one idle core


# Slots and their specifications.


def slot_line(completion: object, reference: object, **more: object) -> dict:
    text = completion if isinstance(completion, str) else json.dumps(completion)
    return {"reference": reference, "completion": text, **more}


def slots_scored(*records: object, **settings) -> dict:
    return scored(*records, task=EXTRACTION, **settings)


def test_slot_specs_say_how_a_lines_slots_are_compared():
    answer, reference = {"price": "1.299,00 €"}, {"price": 1299}
    alone = slots_scored(slot_line(answer, reference))
    assert (alone["slot_f1"], alone["failures"]) == (0, {"wrong type": 1})
    specs = {"price": {"compare": "number"}}
    both = slots_scored(
        slot_line(answer, reference, slot_specs=specs), slot_line(answer, reference)
    )
    assert (both["slot_f1"], both["schema_valid"], both["perfect_record"]) == (0.5, 0.5, 0.5)
    assert both["slots"]["price"]["n"] == 2
    assert both["failures"] == {"wrong type": 1}


@pytest.mark.parametrize("specs", [None, {}])
def test_slot_specs_may_be_missing(specs):
    line = slot_line({"a": "X"}, {"a": "x"})
    assert slots_scored(line | {"slot_specs": specs}) == slots_scored(line)
    assert slots_scored(line)["slot_f1"] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slot_specs": {"a": {"compare": "alike"}}}, "slot a.compare: should be"),
        ({"slot_specs": {"a": {"pattern": "x"}}}, "slot a.pattern: neither"),
        ({"slot_specs": "a"}, "slot_specs is .*, expected an object"),
        ({"slot_specs": ["a"]}, "slot_specs is .*, expected an object"),
        ({"slot_specs": []}, "slot_specs is .*, expected an object"),
        ({"slot_specs": ""}, "slot_specs is .*, expected an object"),
        ({"slot_specs": False}, "slot_specs is .*, expected an object"),
        ({"reference": 5}, "the reference is '5', expected an object or a text"),
        ({"reference": None}, "the reference is 'None', expected an object or a text"),
    ],
)
def test_a_line_whose_slots_cannot_be_read_is_named(changes, said):
    line = slot_line({"a": "x"}, {"a": "x"})
    with pytest.raises(ValueError, match=rf"^a\.jsonl:2: {said}"):
        slots_scored(line, line | changes)


def test_figures_are_pooled_over_leaves_and_do_not_depend_on_the_order():
    long = {"tags": [*"abcdefghij"]}
    lines = [slot_line(long, long), slot_line({"tags": ["x"]}, {"tags": ["y"]})]
    metrics = slots_scored(*lines)
    assert metrics["slot_f1"] == pytest.approx(10 / 11)  # not (1 + 0) / 2
    assert metrics["perfect_record"] == 0.5
    assert slots_scored(*lines[::-1]) == metrics


def test_where_nothing_is_there_to_find_figures_are_none_and_rates_are_not():
    metrics = slots_scored(slot_line({"a": None}, {"a": None}), slot_line("oops", {"a": None}))
    for name in ("slot_f1", "slot_precision", "slot_recall", "list_recall", "grounded"):
        assert (metrics[name], metrics[f"{name}_ci95"]) == (None, None)
    assert (metrics["schema_valid"], metrics["perfect_record"]) == (0.5, 0.5)
    assert metrics["slots"]["a"] == {
        **{"n": 0, "precision": None, "recall": None, "f1": None},
        **{"precision_ci95": None, "recall_ci95": None, "f1_ci95": None},
        **{"correct": 0, "wrong": 0, "omitted": 0, "invented": 0, "true_null": 1},
    }


def test_an_answer_that_cannot_be_read_is_counted_apart_and_has_no_precision():
    metrics = slots_scored(slot_line("oops", {"a": 1, "b": [2, 3]}))
    assert (metrics["slot_precision"], metrics["slot_recall"]) == (None, 0)
    assert (metrics["parse_strict"], metrics["failures"]) == (0, {"no JSON": 1})
    assert metrics["slots"]["b"]["omitted"] == 2
    assert "hint" in metrics
