from dataclasses import replace
from types import SimpleNamespace

import pytest

from nblib.evaluation.answers import Stage
from nblib.evaluation.statistics import Paired
from nblib.files import append_jsonl, read_jsonl
from nblib.report.verdicts import (
    Verdict,
    foundation_verdicts,
    grpo_verdicts,
    lead,
    plan_warnings,
    sft_verdicts,
    target_verdicts,
    truncation_warnings,
    verdict_table,
)
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Target
from nblib.training.session import Trained

FINE_TUNED = Trained(steps=120, planned=120, resumed_at=0)
TRAINED = Trained(steps=120, planned=150, resumed_at=0)
FOUNDATION = GSM8K.variants["hash"]
PAIRED = Paired(
    metric="answer_accuracy",
    n=400,
    both_right=150,
    only_first=10,
    only_second=50,
    neither=190,
    difference=0.10,
    ci95=(0.065, 0.1375),
    p_value=0.00015,
)


def stage(name, form=1.0, accuracy=0.5, *, truncated=0.0, **metrics):
    given = {
        "n": 200,
        "format_accuracy": form,
        "tag_order_accuracy": form,
        "answer_extractable": form,
        "answer_accuracy": accuracy,
        "truncation_rate": truncated,
    }
    return Stage(name=name, metrics=given | metrics, by_group={}, records=())


def tuning(*, form=1.0, accuracy=0.5, own=0.5, truncated=0.0):
    return (
        stage("base", 0.0, 0.1, truncated=0.9),
        stage("base_own_form", 1.0, own),
        stage("tuned", form, accuracy, truncated=truncated),
        stage("tuned_sampled", form, accuracy, truncated=2 * truncated),
    )


def rewarded(*, form=1.0, cut_before=0.01, cut_after=0.01):
    return (
        stage("base", 0.9, 0.4, truncated=cut_before),
        stage("tuned", form, 0.5, truncated=cut_after),
    )


def judged(*, gain_target=0.10, difference=0.10, p_value=0.01, **changes):
    paired = replace(PAIRED, difference=difference, p_value=p_value)
    return grpo_verdicts(GSM8K, rewarded(**changes), paired, gain_target=gain_target)


def losses(*values):
    return [{"step": n, "loss": value, "seconds": 3.0} for n, value in enumerate(values, 1)]


def validated(value, step=2):
    return {"step": step, "val_loss": value}


def founded(accuracy=0.25, extractable=0.75):
    return stage("base", accuracy=accuracy, answer_extractable=extractable)


@pytest.mark.parametrize(
    ("value", "bound", "limit", "met"),
    [
        *((0.99, "at least", 0.99, True), (0.98, "at least", 0.99, False)),
        *((3.0, "at most", 3.0, True), (3.1, "at most", 3.0, False)),
        *((float("nan"), "at least", 0.0, False), (float("nan"), "at most", 9.0, False)),
    ],
)
def test_a_limit_belongs_to_the_good_side_and_nan_to_none(value, bound, limit, met):
    assert Verdict("a", value, bound, limit, "").met == met


def test_rounding_never_shows_a_missed_limit_as_reached():
    assert Verdict("a", 0.98999, "at least", 0.99, "").measured == "0.98999"
    assert Verdict("a", 0.99, "at least", 0.99, "").measured == "0.99"


def test_the_table_advises_only_where_missed():
    table = verdict_table(
        [
            Verdict("format", 0.995, "at least", 0.99, "unseen"),
            Verdict("parameters", 4_988_224, "at most", 4_000_000, "use a smaller size"),
        ]
    )
    assert table.rows == (
        ("✓ met", "format", "at least 0.99", "0.995", "–"),
        ("✗ not met", "parameters", "at most 4,000,000", "4,988,224", "use a smaller size"),
    )
    assert table.note == "1 of 2 met"


def test_no_verdicts():
    assert (verdict_table([]).rows, verdict_table([]).note) == ((), "nothing was evaluated")


def test_a_task_judges_by_its_own_targets_also_where_lower_is_better(slots, slot_stage):
    targets = (
        Target(metric="slot_f1", limit=0.9, advice="train longer"),
        Target(metric="prose", limit=0.1, advice="show the form"),
    )
    task = replace(slots, targets=targets)
    tuned = slot_stage("tuned", ['{"a": 1, "b": 2}', "a is 1"])
    assert target_verdicts(task, tuned) == (
        ("slot f1, tuned", 0.5, "at least", 0.9, "train longer"),
        ("prose, tuned", 0.5, "at most", 0.1, "show the form"),
    )
    assert target_verdicts(slots, tuned) == ()


def test_all_targets_of_a_fine_tuning_met():
    verdicts = sft_verdicts(GSM8K, tuning(accuracy=0.6))
    assert [(v.name, v.measured, v.met) for v in verdicts] == [
        ("format accuracy, tuned", "1", True),
        ("tag order accuracy, tuned", "1", True),
        ("answer extractable, tuned", "1", True),
        ("answer accuracy lost against the base in its own form", "-0.1", True),
    ]


def test_each_target_of_a_fine_tuning_can_be_missed():
    missed = sft_verdicts(GSM8K, tuning(form=0.985, accuracy=0.40, own=0.46))
    assert [v.met for v in missed] == [False] * 4
    assert "lower LEARNING_RATE" in missed[-1].advice


def test_the_target_is_the_profiles():
    verdicts = sft_verdicts(GSM8K, tuning(form=0.995), 0.90)
    assert [v[2:4] for v in verdicts] == [("at least", 0.9)] * 3 + [("at most", 0.05)]


def test_the_base_is_judged_in_its_own_form():
    *_, lost = sft_verdicts(GSM8K, tuning(accuracy=0.25, own=0.5))
    assert (lost.measured, lost.met) == ("0.25", False)  # against 0.1 in the form it never saw: met


def test_nothing_is_lost_where_the_base_was_not_asked_in_its_own_form():
    base, _, tuned, _ = tuning()
    assert len(sft_verdicts(GSM8K, (base, tuned))) == len(GSM8K.targets)


def test_nothing_measured_gives_no_verdict():
    assert sft_verdicts(GSM8K, ()) == ()
    assert grpo_verdicts(GSM8K, (), None, gain_target=0.1) == ()
    assert truncation_warnings(()) == ()
    assert lead(GSM8K, (), TRAINED, None) == (
        "Trained for 120 of 150 steps (the session was over). "
        "Nothing was evaluated (EVAL_AT_END is off)."
    )


@pytest.mark.parametrize(("truncated", "warned"), [
    (0.01, []), (0.02, ["tuned_sampled"]), (0.021, ["tuned", "tuned_sampled"]),
])  # fmt: skip
def test_stages_with_too_many_cut_completions_are_named(truncated, warned):
    warnings = truncation_warnings(tuning(truncated=truncated))
    assert [warning.split(":")[0] for warning in warnings] == ["base", *warned]


def test_unknown_truncation_is_no_warning():
    assert truncation_warnings([stage("tuned", truncated=None)]) == ()


def test_a_warning_says_how_many_and_what_to_do():
    (warning,) = truncation_warnings([stage("tuned", truncated=0.125)])
    assert warning == (
        "tuned: 12.5% of the completions were cut at MAX_NEW_TOKENS. "
        "Raise it, or look at the samples for endless text."
    )


def test_the_lead_names_both_forms_and_both_headlines():
    stages = tuning(form=0.995, accuracy=0.4, own=0.46)
    assert lead(GSM8K, stages, FINE_TUNED, None) == (
        "Trained for 120 steps. Format accuracy went from 0.0% (base) to 99.5% (tuned) on 200 "
        "held-out questions. Answer accuracy went from 46.0% (base own form) to 40.0% (tuned)."
    )


def test_the_lead_without_the_bases_own_form(slots, slot_stage):
    stages = slot_stage("base", ['{"a": 1, "b": 3}']), slot_stage("tuned", ['{"a": 1, "b": 2}'])
    assert lead(slots, stages, FINE_TUNED, None).endswith(
        "Schema valid went from 100.0% (base) to 100.0% (tuned) on 1 held-out questions. "
        "Slot f1 went from 50.0% (base) to 100.0% (tuned)."
    )


def test_the_lead_of_a_single_stage():
    assert lead(FOUNDATION, [founded()], FINE_TUNED, None) == (
        "Trained for 120 steps. Format accuracy is 100.0% (base) on 200 held-out questions. "
        "Answer accuracy is 25.0% (base)."
    )


def test_the_lead_says_what_was_gained_and_how_sure_it_is():
    assert lead(GSM8K, rewarded(), TRAINED, PAIRED) == (
        "Trained for 120 of 150 steps (the session was over). Format accuracy went from 90.0% "
        "(base) to 100.0% (tuned) on 200 held-out questions. Answer accuracy went from 40.0% "
        "(base) to 50.0% (tuned): +10.0 points [+6.5, +13.8]."
    )


def test_the_lead_of_a_comparison_judges_the_last_stage_and_shows_a_loss_with_its_sign(word_stage):
    stages = (
        word_stage("base", ["4", "5"]),
        word_stage("sft", ["4"]),
        word_stage("grpo", ["5", "5"]),
    )
    lost = replace(PAIRED, metric="lenient_accuracy", difference=-0.5, ci95=(-0.9, 0.25))
    assert lead(GSM8K, stages, None, lost) == (
        "Format accuracy went from 0.0% (base) to 0.0% (grpo) on 2 held-out questions. "
        "Lenient accuracy went from 50.0% (base) to 0.0% (grpo): -50.0 points [-90.0, +25.0]."
    )


def test_all_targets_of_grpo_met_at_their_limits():
    verdicts = judged(form=0.98, cut_before=0.0, cut_after=0.02)
    assert [v[:4] for v in verdicts] == [
        ("answer accuracy gained", 0.10, "at least", 0.10),
        ("p, exact McNemar", 0.01, "at most", 0.01),
        ("format accuracy, tuned", 0.98, "at least", 0.98),
        ("truncation risen by", 0.02, "at most", 0.02),
    ]
    assert all(v.met for v in verdicts)


@pytest.mark.parametrize(
    ("place", "changes", "advice"),
    [
        (0, {"difference": 0.0975}, "NUM_STEPS"),
        (0, {"difference": -0.10}, "alarms"),
        (0, {"gain_target": 0.15}, "zero-variance groups"),
        (1, {"p_value": 0.011}, "EVAL_SAMPLES"),
        (2, {"form": 0.979}, "weight of format_accuracy"),
        (3, {"cut_after": 0.04}, "`truncated` a weight in REWARDS"),
    ],
)
def test_each_target_of_grpo_can_be_missed_alone(place, changes, advice):
    verdicts = judged(**changes)
    assert [v.met for v in verdicts] == [index != place for index in range(4)]
    assert advice in verdicts[place].advice


def test_truncation_is_judged_against_the_stage_before():
    *_, rise = judged(cut_before=0.30, cut_after=0.31)
    assert rise.met and rise.measured == "0.01"


def test_a_mean_is_tested_by_the_bootstrap(slots, slot_stage):
    stages = slot_stage("base", ["a"]), slot_stage("tuned", ['{"a": 1, "b": 2}'])
    mean = replace(PAIRED, metric="slot_f1", kind="mean", both_right=None, neither=None)
    verdicts = grpo_verdicts(slots, stages, mean, gain_target=0.05)
    assert [v.name for v in verdicts] == [
        *("slot f1 gained", "p, paired bootstrap", "schema valid, tuned", "truncation risen by")
    ]


def test_a_foundation_that_learnt():
    history = [*losses(6.0, *[2.0] * 20), validated(4.0), validated(1.5, step=21)]
    verdicts = foundation_verdicts(FOUNDATION, founded(), history)
    assert [(v.name, v.measured, v.met) for v in verdicts] == [
        ("last training loss over first", "0.3333", True),
        ("validation loss at the end", "1.5", True),
        ("answer accuracy, base", "0.25", True),
        ("answer extractable, base", "0.75", True),
    ]


def test_each_target_of_a_foundation_can_be_missed():
    history = [*losses(4.0, 2.5, 2.5), validated(3.1)]
    verdicts = foundation_verdicts(FOUNDATION, founded(0.19, 0.69), history)
    assert [v.met for v in verdicts] == [False] * 4
    assert verdicts[0].measured == "0.75"  # mean of the last 20, here (4 + 2.5 + 2.5) / 3, over 4


def test_a_loss_that_is_no_number_is_a_missed_target_not_a_crash(tmp_path):
    for record in [*losses(6.0, float("nan")), validated(float("inf"))]:
        append_jsonl(tmp_path / "metrics.jsonl", record)  # JSON has no NaN: it writes null
    history = read_jsonl(tmp_path / "metrics.jsonl")
    verdicts = foundation_verdicts(FOUNDATION, founded(), history)
    assert [v.met for v in verdicts] == [False, False, True, True]


@pytest.mark.parametrize("history", [[], losses(1.0), [validated(1.0)]])
def test_without_training_there_is_nothing_to_judge(history):
    with pytest.raises(ValueError, match="training did not run"):
        foundation_verdicts(FOUNDATION, founded(), history)


@pytest.mark.parametrize(
    ("steps", "share", "warned"),
    [
        (50, 1.0, []),
        (49, 1.0, ["Only 49 steps"]),
        (50, 0.9, ["Only 90% of the examples end within"]),
    ],
)
def test_what_will_not_be_enough_is_said_before_the_training(steps, share, warned):
    plan = SimpleNamespace(steps=lambda accumulation: steps, whole_share=share, max_length=512)
    found = plan_warnings(plan, 1)
    assert len(found) == len(warned)
    assert all(one.startswith(begun) for one, begun in zip(found, warned, strict=True))
