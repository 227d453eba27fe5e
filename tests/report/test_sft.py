import pytest
from nblib.report.sft import sft_lead, sft_verdicts, truncation_warnings

from nblib.training.session import Trained

TRAINED = Trained(steps=120, planned=120, resumed_at=0)


def metrics(form, accuracy, *, truncated=0.0):
    return {
        "n": 200,
        "format_accuracy": form,
        "tag_order_accuracy": form,
        "answer_extractable": form,
        "answer_accuracy": accuracy,
        "truncation_rate": truncated,
    }


def stages(*, form=1.0, accuracy=0.5, own=0.5, truncated=0.0):
    return {
        "base": metrics(0.0, 0.1, truncated=0.9),
        "base_own_form": metrics(1.0, own),
        "tuned": metrics(form, accuracy, truncated=truncated),
        "tuned_sampled": metrics(form, accuracy, truncated=2 * truncated),
    }


def test_all_targets_met():
    assert [
        (v.name, v.measured, v.met) for v in sft_verdicts(stages(accuracy=0.6), target=0.99)
    ] == [
        ("strict format, tuned", "1", True),
        ("tag order, tuned", "1", True),
        ("answers that can be read, tuned", "1", True),
        ("accuracy lost against the base in its own form", "-0.1", True),
    ]


def test_each_target_can_be_missed():
    missed = sft_verdicts(stages(form=0.985, accuracy=0.40, own=0.46), target=0.99)
    assert [v.met for v in missed] == [False] * 4
    assert "lower LEARNING_RATE" in missed[-1].advice


def test_the_formats_target_is_the_profiles():
    verdicts = sft_verdicts(stages(form=0.92), target=0.90)
    assert [v.target for v in verdicts] == [*["at least 0.9"] * 3, "at most 0.05"]
    assert all(v.met for v in verdicts)


def test_the_base_is_judged_in_its_own_form():
    *_, lost = sft_verdicts(stages(accuracy=0.25, own=0.5), target=0.99)
    assert (lost.measured, lost.met) == ("0.25", False)  # against 0.1 in the form it never saw: met


def test_nothing_measured_gives_no_verdict():
    assert sft_verdicts({}, target=0.99) == ()
    assert truncation_warnings({}) == ()
    assert sft_lead({}, TRAINED) == (
        "LoRA adapters were trained for 120 steps; nothing was evaluated (EVAL_AT_END is off)."
    )


@pytest.mark.parametrize(("truncated", "warned"), [
    (0.01, []), (0.02, ["tuned_sampled"]), (0.021, ["tuned", "tuned_sampled"]),
])  # fmt: skip
def test_too_many_cut_completions_of_a_tuned_stage_are_told(truncated, warned):
    warnings = truncation_warnings(stages(truncated=truncated))
    assert [warning.split(":")[0] for warning in warnings] == warned


def test_of_unknown_truncation_nothing_is_told():
    assert truncation_warnings({"tuned": metrics(1.0, 0.5, truncated=None)}) == ()


def test_a_warning_says_how_many_and_what_to_do():
    warning, *_ = truncation_warnings(stages(truncated=0.125))
    assert warning == (
        "tuned: 12.5% of the completions were cut at MAX_NEW_TOKENS. "
        "Raise it, or look at the samples for endless text."
    )


def test_the_lead_names_both_formats_and_both_accuracies():
    assert sft_lead(stages(form=0.995, accuracy=0.4, own=0.46), TRAINED) == (
        "LoRA adapters were trained for 120 steps. Strict format went from 0.0% to 99.5% on 200 "
        "held-out questions; answers are right in 40.0% of them, against 46.0% for the base in "
        "its own form."
    )
