import pytest
from nblib.evaluation.evaluate import Stage
from nblib.report.foundation import foundation_manifest, foundation_verdicts

from nblib.files import append_jsonl, read_jsonl
from nblib.sources.foundation import FoundationRows

STAGE = Stage(
    name="base",
    metrics={"n": 4, "answer_accuracy": 0.25, "answer_extractable": 0.75},
    by_level={1: {"answer_accuracy": 0.5}, 2: {"answer_accuracy": 0.0}},
    records=(),
)
ROWS = FoundationRows(
    train=(),
    practice=(),
    validation=(),
    test=(),
    origin="built-in",
    sha256="ab12",
    notes=("built-in",),
)


def losses(*values):
    return [{"step": n, "loss": value, "seconds": 3.0} for n, value in enumerate(values, 1)]


def validated(value, step=2):
    return {"step": step, "val_loss": value}


def stage(**metrics):
    return Stage(name="base", metrics={**STAGE.metrics, **metrics}, by_level={}, records=())


def test_a_foundation_that_learnt():
    history = [*losses(6.0, *[2.0] * 20), validated(4.0), validated(1.5, step=21)]
    verdicts = foundation_verdicts(history, STAGE)
    assert [(v.name, v.measured, v.met) for v in verdicts] == [
        ("last training loss over first", "0.3333", True),
        ("validation loss at the end", "1.5", True),
        ("right answers", "0.25", True),
        ("answers that can be read", "0.75", True),
    ]


def test_each_target_can_be_missed():
    history = [*losses(4.0, 2.5, 2.5), validated(3.1)]
    weak = stage(answer_accuracy=0.19, answer_extractable=0.69)
    verdicts = foundation_verdicts(history, weak)
    assert [v.met for v in verdicts] == [False] * 4
    assert verdicts[0].measured == "0.75"  # mean of the last 20, here (4 + 2.5 + 2.5) / 3, over 4


def test_a_loss_that_is_no_number_is_a_missed_target_not_a_crash(tmp_path):
    for record in [*losses(6.0, float("nan")), validated(float("inf"))]:
        append_jsonl(tmp_path / "metrics.jsonl", record)  # JSON has no NaN: it writes null
    verdicts = foundation_verdicts(read_jsonl(tmp_path / "metrics.jsonl"), STAGE)
    assert [v.met for v in verdicts] == [False, False, True, True]


@pytest.mark.parametrize("history", [[], losses(1.0), [validated(1.0)]])
def test_without_training_there_is_nothing_to_judge(history):
    with pytest.raises(ValueError, match="training did not run"):
        foundation_verdicts(history, STAGE)


def test_the_manifest_says_how_to_make_it_again_and_what_it_can_do():
    history = [*losses(6.0, 2.0, 2.0, 1.0), validated(1.5), validated(1.25, step=4)]
    parameters = {"recipe": "full", "seed": 0}
    assert foundation_manifest(parameters, ROWS, STAGE, history) == {
        "command": "python -m nblib run v0_foundation -p RECIPE full",
        "parameters": parameters,
        "data": {"origin": "built-in", "sha256": "ab12"},
        "steps": 4,
        "training_minutes": 0.2,  # 4 x 3 seconds
        "validation_loss": 1.25,
        "levels": {"1": {"answer_accuracy": 0.5}, "2": {"answer_accuracy": 0.0}},
    }
