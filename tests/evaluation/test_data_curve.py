"""A learning curve: shares that hold each other, a run that goes on, and what is tested."""

from types import SimpleNamespace

import numpy as np
import pytest

from nblib.evaluation import answers, data_curve
from nblib.evaluation.answers import Decoding, stage_of
from nblib.evaluation.data_curve import CurvePoint, learning_curve, train_on_shares
from nblib.evaluation.statistics import paired_comparison, smallest_difference
from nblib.models.lora import ALL_WEIGHTS, LoraConfig
from nblib.runs import start_run
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.batching import Batching, training_data
from nblib.training.session import TrainingStopped
from nblib.training.sft import SftConfig, train

HASH = GSM8K.variants["hash"]
DECODING = Decoding(max_new_tokens=16, batch_size=3)
BATCHING = Batching(max_length=64, packing="off", batch_tokens=128, epochs=1, seed=3)
CONFIG = SftConfig(learning_rate=1e-3, save_interval="1 steps")


@pytest.fixture(scope="module")
def questions(pens):
    return HASH.examples(pens)


@pytest.fixture(scope="module")
def base(ref_of, new_model, tokenizer, mesh):
    return ref_of(new_model(num_layers=1), tokenizer, mesh)


@pytest.fixture
def curve_of(base, eight_examples, questions, tmp_path):
    """Make the curve's points in one run's folder, again and again."""
    texts, run = training_data(eight_examples, (), BATCHING), start_run("a", {}, root=tmp_path)

    def made(shares, **changes):
        how = {"batching": BATCHING, "lora": LoraConfig(rank=ALL_WEIGHTS, alpha=1.0)}
        how |= {"config": CONFIG, "hashes": {"model": "aa11"}, **changes}
        return train_on_shares(shares, base, texts, run, HASH, questions, DECODING, **how)

    return SimpleNamespace(of=made, run=run)


def learnt(monkeypatch):
    """Note the examples of each training, and whether it had been at its end before."""
    seen = {}

    def noted(model, texts, config, run, *, name, **options):
        trained = train(model, texts, config, run, name=name, **options)
        seen[name] = ({one.id for one in texts.examples}, trained.resumed_at, trained.steps)
        return trained

    monkeypatch.setattr(data_curve, "train", noted)
    return seen


def test_a_share_holds_the_smaller_ones_and_what_is_there_is_not_made_again(curve_of, monkeypatch):
    seen = learnt(monkeypatch)
    quarter, half = curve_of.of([0.5, 0.25, 1.0])
    assert [(one.rows, one.steps) for one in (quarter, half)] == [(2, 2), (4, 4)]
    assert [one.stage.name for one in (quarter, half)] == ["rows_2", "rows_4"]
    assert seen["rows_2"][0] < seen["rows_4"][0] and len(seen["rows_4"][0]) == 4
    assert {one["id"] for one in half.stage.records} == {"pens/1", "pens/2", "pens/3"}

    monkeypatch.setattr(answers, "generate", lambda *_: pytest.fail("asked again"))
    again = curve_of.of([0.25, 0.5])
    assert [one.stage.records for one in again] == [quarter.stage.records, half.stage.records]
    assert {name: one[1:] for name, one in seen.items()} == {"rows_2": (2, 2), "rows_4": (4, 4)}


def test_a_killed_curve_goes_on_with_the_training_that_was_cut(curve_of, monkeypatch):
    def killed(model, texts, config, run, *, name, **options):
        if name == "rows_4":
            raise TrainingStopped("SIGTERM")
        return train(model, texts, config, run, name=name, **options)

    monkeypatch.setattr(data_curve, "train", killed)
    with pytest.raises(TrainingStopped):
        curve_of.of([0.25, 0.5])
    monkeypatch.setattr(data_curve, "train", train)
    seen = learnt(monkeypatch)
    assert [one.rows for one in curve_of.of([0.25, 0.5])] == [2, 4]
    assert {name: one[1:] for name, one in seen.items()} == {"rows_2": (2, 2), "rows_4": (0, 4)}


def test_a_share_without_time_is_left_out_until_it_is_trained(curve_of, capsys):
    # One step is always made: all that one row needs.
    assert [one.rows for one in curve_of.of([0.125, 0.5], deadline_s=0.0)] == [1]
    assert "4 rows are left out of the learning curve until" in capsys.readouterr().out
    assert [one.rows for one in curve_of.of([0.125, 0.5])] == [1, 4]


def test_nothing_is_trained_where_no_curve_is_wanted(curve_of):
    assert curve_of.of([1.0]) == curve_of.of([0.5], enabled=False) == ()
    assert not curve_of.run.checkpoints.exists()


def stage(name, right, *, n=40):
    values = dict.fromkeys(HASH.metric_names, True)
    records = [
        {"id": str(one), "group": "", "reference": "1", "truncated": False, **values}
        | {HASH.headline: one < right}
        for one in range(n)
    ]
    return stage_of(name, records, HASH)


def point(rows, right):
    return CurvePoint(rows=rows, steps=rows, stage=stage(f"rows_{rows}", right))


TRAINED = SimpleNamespace(steps=40, left=0)


@pytest.mark.parametrize(("right", "worth"), [(36, True), (13, False), (11, False), (2, False)])
def test_the_last_rows_are_worth_it_where_the_paired_interval_is_above_0(right, worth):
    tuned = stage("tuned", right)
    points = (point(10, 4), point(20, 11))
    curve = learning_curve(points, (stage("few", 9), tuned), HASH, rows=40, trained=TRAINED)
    assert [one.rows for one in curve.points] == [10, 20, 40]
    assert curve.points[-1].stage is tuned and curve.is_worth_it == worth
    metric = HASH.metric(HASH.headline)
    both = points[1].stage.records, tuned.records
    assert curve.gain == paired_comparison(*both, metric)
    assert curve.smallest == smallest_difference(*both, metric)
    assert np.isclose(curve.gain.difference, (right - 11) / 40)


def test_no_gain_without_a_point_before_or_a_whole_training():
    tuned, cut = (stage("tuned", 30),), SimpleNamespace(steps=37, left=3)
    alone = learning_curve((), tuned, HASH, rows=40, trained=TRAINED)
    unfinished = learning_curve((point(10, 4),), tuned, HASH, rows=40, trained=cut)
    assert alone.gain is None and unfinished.gain is None
    assert not alone.is_worth_it and not unfinished.is_worth_it
    assert learning_curve((), (), HASH, rows=40, trained=TRAINED) is None
