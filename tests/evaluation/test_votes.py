"""pass@k and the majority, by hand and with a model."""

from dataclasses import replace
from functools import partial

import pytest

from nblib.evaluation.candidates import Candidate, parse_candidate
from nblib.evaluation.generate import Decoding
from nblib.evaluation.votes import majority, vote_all
from nblib.evaluation.votes import vote_metrics as metrics_of
from nblib.files import read_jsonl
from nblib.models.gemma3 import save_model
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example

vote_metrics = partial(metrics_of, task=GSM8K)


def answers(id_, *texts, right="4"):
    return [{"id": id_, "answer": text, "answer_accuracy": text == right} for text in texts]


def test_pass_at_k_and_majority_by_hand():
    records = [*answers("a", "4", "5", "4", "6"), *answers("b", "4", "5", "5", "5")]
    metrics = vote_metrics(records)
    assert (metrics["n"], metrics["k"]) == (2, 4)
    assert metrics["pass@1"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    # Two of four: 1 - C(2,2)/C(4,2) for a, 1 - C(3,2)/C(4,2) for b.
    assert metrics["pass@2"] == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert metrics["pass@4"] == 1.0
    assert metrics["maj@4"] == 0.5  # a elects 4, b elects 5
    for rate in ("pass@1", "pass@2", "pass@4", "maj@4"):
        low, high = metrics[f"{rate}_ci95"]
        assert 0 <= low <= metrics[rate] <= high <= 1
    assert "answer_accuracy" not in metrics


def test_few_questions_leave_a_rate_uncertain_however_they_went():
    """Wilson's interval of two questions: 2 of 2 right is 0.342 to 1, 1 of 2 is 0.095 to 0.905."""
    both = vote_metrics([*answers("a", "4", "4"), *answers("b", "4", "4")])
    assert both["pass@1_ci95"] == both["pass@2_ci95"] == pytest.approx([0.342, 1], abs=5e-4)
    halves = vote_metrics([*answers("a", "4", "5"), *answers("b", "5", "4")])
    assert halves["pass@1_ci95"] == pytest.approx([0.095, 0.905], abs=5e-4)


def test_k_itself_is_among_the_ks():
    names = [name for name in vote_metrics(answers("a", "4", "4", "4")) if name[-1].isdigit()]
    assert [name for name in names if "ci" not in name] == ["pass@1", "pass@2", "pass@3", "maj@3"]


def test_a_tie_goes_to_the_answer_drawn_first_and_the_unreadable_does_not_vote():
    assert majority(answers("a", None, None, "5", "4", "4", "5"))["answer"] == "5"
    assert majority(answers("a", None, None))["answer"] is None


def test_another_number_of_answers_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 2\] answers each, expected one number"):
        vote_metrics([*answers("a", "4", "4"), *answers("b", "4")])
    with pytest.raises(ValueError, match=r"\[\] answers each"):
        vote_metrics([])


def test_answers_that_are_no_text_vote_too_and_a_mean_is_right_where_it_is_whole(slots):
    answers = ({"x": 1, "y": 2}, {"x": 3}, {"y": 2, "x": 1}, None)
    records = [
        {"id": "a", "answer": answer, "slot_f1": f1}
        for answer, f1 in zip(answers, (1.0, 0.5, 1.0, 0.0), strict=True)
    ]
    assert majority(records[1:] + records[:1]) == records[2]
    assert metrics_of(records, slots)["pass@1"] == 0.5
    assert metrics_of(records, slots)["maj@4"] == 1.0


SAMPLED = Decoding(max_new_tokens=20, batch_size=2, temperature=1.5)


def test_one_sample_asks_nothing(tmp_path):
    given = {"shots": (), "mesh": None, "folder": tmp_path}
    assert vote_all([], GSM8K, [], SAMPLED, samples=1, **given) == {}


def test_votes_are_sampled_anew_for_every_answer(new_model, tokenizer, mesh, tmp_path):
    save_model(new_model(num_layers=1), tokenizer, tmp_path / "fresh", manifest={})
    candidates = [
        parse_candidate(f"x={tmp_path}/fresh"),
        Candidate(name="f", source="p.jsonl"),
    ]
    examples = [
        Example(id=f"{n}", prompt=f"{n} pens?", completion="", reference="4") for n in "123"
    ]
    given = {"samples": 3, "shots": (), "mesh": mesh, "folder": tmp_path}
    votes = vote_all(candidates, GSM8K, examples, SAMPLED, **given)
    assert list(votes) == ["x"] and (votes["x"]["n"], votes["x"]["k"]) == (3, 3)
    _, *kept = read_jsonl(tmp_path / "x_sampled.jsonl")
    assert len({record["completion"] for record in kept}) == 9
    with pytest.raises(ValueError, match="temperature is 0"):
        vote_all(candidates, GSM8K, examples, replace(SAMPLED, temperature=0.0), **given)
