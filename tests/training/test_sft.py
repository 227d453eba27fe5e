import math
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from tunix.sft.peft_trainer import TrainingInput

from nblib.files import read_jsonl
from nblib.models.attention import hidden_states
from nblib.models.lora import (
    LORA_PARAMETER,
    LoraConfig,
    get_lora_model,
    get_trainable_model,
)
from nblib.tokens.batches import batch_stream, collate
from nblib.tokens.packing import pack
from nblib.training import loss, session, sft
from nblib.training.checkpoints import ForeignCheckpoint
from nblib.training.loss import model_inputs, next_token_loss
from nblib.training.session import Trained, TrainingDiverged, TrainingStopped
from nblib.training.sft import SftConfig, evaluation_steps, train

PARAMETERS = {"lora_rank": 2}
HASHES = {"tokenizer": "aa11", "data": "bb22"}
# Two batches a step, and one left over: six steps, evaluated at every second, saved at every third.
CONFIG = SftConfig(learning_rate=1e-2, accumulation=2, evaluations=3, save_interval="3 steps")
STEPS = 6


def random_batches(count, rows):
    rng = np.random.default_rng(count)
    batches = []
    for _ in range(count):
        tokens = rng.integers(4, 544, (rows, 32)).astype(np.int32)
        tokens[0, rng.integers(20, 32) :] = 0
        mask = (tokens != 0).astype(np.float32)
        batches.append(TrainingInput(input_tokens=tokens, input_mask=mask))
    return batches


BATCHES = random_batches(2 * STEPS + 1, 2)
VALIDATION = random_batches(1, 2)


class Watched(Sequence):
    """Batches that tell when each of them is read."""

    def __init__(self, batches, on_read):
        self.batches, self.on_read = batches, on_read

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Watched(self.batches[index], self.on_read)
        batch = self.batches[index]
        self.on_read(index)
        return batch


def arrays(model, kind=nnx.Param):
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, kind))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def run(new_model, mesh):
    """Start one training in a folder, as a new process would; its model and what it returned."""

    def start(
        folder, batches=BATCHES, config=CONFIG, *, val_batches=VALIDATION, hashes=HASHES, **options
    ):
        model = get_lora_model(new_model(num_layers=2), mesh, LoraConfig(rank=2, alpha=4.0))
        texts = SimpleNamespace(batches=batches, val_batches=val_batches)
        run = SimpleNamespace(
            path=folder, checkpoints=folder / "checkpoints", parameters=PARAMETERS
        )
        trained = train(model, texts, config, run, hashes=hashes, mesh=mesh, **options)
        return model, trained

    return start


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """A run that nothing disturbs: folder, model, what `train` returned."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder)


def steps_of(folder, key="loss"):
    return [r["step"] for r in read_jsonl(folder / "metrics.jsonl") if key in r]


def test_overfits_eight_examples_in_full(overfitted):
    _, records, _ = overfitted
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[0] > 4
    assert losses[-1] < 0.05
    assert [r["step"] for r in records if "val_loss" in r] == [0, 33, 67, 100]
    assert records[-1]["val_loss"] < 0.05


def test_only_adapters_move_and_all_of_them_do(whole, new_model, mesh):
    _, model, trained = whole
    assert trained == Trained(steps=STEPS, planned=STEPS, resumed_at=0)
    before = arrays(get_lora_model(new_model(num_layers=2), mesh, LoraConfig(rank=2, alpha=4.0)))
    after = arrays(model)
    adapters = set(arrays(model, LORA_PARAMETER))
    assert len(adapters) == 2 * 2 * 6  # layers, a and b, projections
    moved = {name for name in after if not np.array_equal(before[name], after[name])}
    assert moved == adapters


def test_one_record_a_step_with_all_keys(whole):
    folder, _, _ = whole
    records = read_jsonl(folder / "metrics.jsonl")
    steps = [record for record in records if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3, 4, 5, 6]
    for record in steps:
        assert {"step", "loss", "learning_rate", "grad_norm", "tokens", "seconds"} <= set(record)
        assert record["seconds"] > 0 and record["grad_norm"] > 0
    expected = [
        sum(np.count_nonzero(batch.input_tokens) for batch in BATCHES[first : first + 2])
        for first in range(0, 2 * STEPS, 2)
    ]
    assert [record["tokens"] for record in steps] == expected
    assert steps_of(folder, "val_loss") == [0, 2, 3, 4, 6]


def test_nothing_is_compiled_after_the_first_step(whole):
    folder, _, _ = whole
    steps = [record for record in read_jsonl(folder / "metrics.jsonl") if "loss" in record]
    compiled = [record["compilations"] for record in steps]
    assert compiled[0] > 0
    assert compiled[1:] == [0] * (STEPS - 1), compiled


def test_the_batches_are_not_waited_for(whole):
    folder, _, _ = whole
    steps = [record for record in read_jsonl(folder / "metrics.jsonl") if "loss" in record]
    waited, seconds = (sum(r[key] for r in steps) for key in ("waiting_seconds", "seconds"))
    assert 0 < waited < 0.05 * seconds


def test_a_step_reuses_the_optimizers_memory_and_copies_no_frozen_weight(
    run, tmp_path, monkeypatch
):
    moments, embeddings = [], set()
    started = sft.SftCallbacks.on_train_step_start

    def watched(self, trainer):
        embedding = trainer.model.embedder.input_embedding.get_value()
        embeddings.add(embedding.unsafe_buffer_pointer())
        moments.append(jax.tree.leaves(nnx.state(trainer.optimizer, nnx.OptState)))
        started(self, trainer)

    monkeypatch.setattr(sft.SftCallbacks, "on_train_step_start", watched)
    run(tmp_path, BATCHES[:4], val_batches=())
    *before, _ = moments
    assert len(embeddings) == 1
    assert len(before) == 3 and all(leaf.is_deleted() for leaves in before for leaf in leaves)


def test_remat_learns_the_same(run, whole, tmp_path, monkeypatch):
    asked = []

    def recorded(*inputs, remat):
        asked.append(remat)
        return hidden_states(*inputs, remat=remat)

    monkeypatch.setattr(loss, "hidden_states", recorded)
    run(tmp_path, config=replace(CONFIG, remat=True))
    assert set(asked) == {True}
    ours, expected = (
        [r["loss"] for r in read_jsonl(folder / "metrics.jsonl") if "loss" in r]
        for folder in (tmp_path, whole[0])
    )
    assert ours == pytest.approx(expected, abs=1e-4)


def test_first_losses_are_those_of_the_untrained_model(whole, new_model, mesh):
    folder, _, _ = whole
    model = get_lora_model(new_model(num_layers=2), mesh, LoraConfig(rank=2, alpha=4.0))

    @nnx.jit
    def loss_of(model, batch):
        return next_token_loss(model, **model_inputs(batch))

    losses = [float(loss_of(model, batch)) for batch in (*BATCHES[:2], *VALIDATION)]
    records = read_jsonl(folder / "metrics.jsonl")
    first = next(record for record in records if "loss" in record)
    learnt = [batch.input_mask[:, 1:].sum() for batch in BATCHES[:2]]
    assert first["loss"] == pytest.approx(np.average(losses[:2], weights=learnt), abs=1e-4)
    assert records[0] == {"step": 0, "val_loss": pytest.approx(losses[2], abs=1e-4)}


@pytest.mark.parametrize(("packing", "count"), [("on", 2), ("off", 8)])
def test_validation_loss_is_a_mean_over_tokens_however_they_are_batched(
    run, new_model, mesh, eight_examples, tmp_path, packing, count
):
    # The eight are equally long: two of them teach one token only.
    short = [replace(one, loss_mask=np.eye(1, len(one.tokens), len(one.tokens) - 1)[0].astype("f4"))
             for one in eight_examples[:2]]  # fmt: skip
    examples = [*short, *eight_examples[2:]]
    rows = pack(examples, packing, max_length=128, seed=0)
    batches = batch_stream(rows, tokens_per_batch=128, epochs=1, seed=0)
    assert len(batches) == count
    run(tmp_path, BATCHES[:1], replace(CONFIG, accumulation=1), val_batches=batches)
    model = get_lora_model(new_model(num_layers=2), mesh, LoraConfig(rank=2, alpha=4.0))
    together = collate(examples, range(8), 128, 8)
    expected = nnx.jit(lambda model: next_token_loss(model, **model_inputs(together)))(model)
    first, *_ = read_jsonl(tmp_path / "metrics.jsonl")
    assert first == {"step": 0, "val_loss": pytest.approx(float(expected), rel=1e-6)}


def test_learning_rate_is_the_schedules(whole):
    folder, _, _ = whole
    rates = [r["learning_rate"] for r in read_jsonl(folder / "metrics.jsonl") if "loss" in r]
    # One step of warm-up, at the peak; a cosine from there to a tenth of it, at a seventh step.
    cosine = [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates == pytest.approx([1e-3 + 9e-3 * share for share in cosine], abs=1e-7)


def learnt_at_the_end(batch, count):
    """The batch with a loss mask of 1 on the last `count` tokens of each row."""
    mask = np.zeros((2, 32), np.float32)
    mask[:, 32 - count :] = 1
    return TrainingInput(input_tokens=batch.input_tokens, input_mask=mask)


def joined(*batches):
    return TrainingInput(
        input_tokens=np.concatenate([batch.input_tokens for batch in batches]),
        input_mask=np.concatenate([batch.input_mask for batch in batches]),
    )


def test_two_batches_a_step_are_one_batch_of_both_however_much_each_teaches(run, tmp_path):
    parts = [learnt_at_the_end(batch, (1, 31)[n % 2]) for n, batch in enumerate(BATCHES[:6])]
    whole = [joined(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    config = SftConfig(learning_rate=1e-2, save_interval="9 min")
    together, _ = run(tmp_path / "1", whole, config, val_batches=())
    apart, _ = run(tmp_path / "2", parts, replace(config, accumulation=2), val_batches=())
    assert steps_of(tmp_path / "1") == steps_of(tmp_path / "2") == [1, 2, 3]
    for one, two in zip(*(read_jsonl(tmp_path / n / "metrics.jsonl") for n in "12"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4)
        assert one["tokens"] == two["tokens"]
    adapters = arrays(apart, LORA_PARAMETER)
    for name, adapter in arrays(together, LORA_PARAMETER).items():
        np.testing.assert_allclose(adapters[name], adapter, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def stopped_twice(run, tmp_path_factory):
    """A run stopped by its deadline and then by SIGTERM, each in the middle of a step."""
    folder = tmp_path_factory.mktemp("stopped")
    clock = SimpleNamespace(now=0.0)

    def second_passes(index):
        clock.now += 1

    def perf_counter():
        clock.now += 1e-6
        return clock.now

    with pytest.MonkeyPatch.context() as patch:
        for module in (sft, session):
            patch.setattr(module, "time", SimpleNamespace(perf_counter=perf_counter))
        _, at_deadline = run(folder, Watched(BATCHES, second_passes), deadline_s=5.5)

    def terminate(index):
        if index == 9:  # the second batch of step 5
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped) as stopped:
        run(folder, Watched(BATCHES, terminate))
    assert signal.getsignal(signal.SIGTERM) == before
    return folder, at_deadline, str(stopped.value), *run(folder)


def test_deadline_stops_cleanly_with_a_checkpoint(stopped_twice):
    _, at_deadline, *_ = stopped_twice
    assert at_deadline == Trained(steps=3, planned=STEPS, resumed_at=0)


def test_sessions_of_one_step_end_as_one_that_had_time(run, whole, tmp_path):
    for done in range(2):
        _, trained = run(tmp_path, deadline_s=0.0)
        assert trained == Trained(steps=done + 1, planned=STEPS, resumed_at=done)
    model, trained = run(tmp_path)
    assert trained == Trained(steps=STEPS, planned=STEPS, resumed_at=2)
    assert [*trained.history] == read_jsonl(tmp_path / "metrics.jsonl")
    expected = arrays(whole[1])
    for name, weight in arrays(model).items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)


def test_sigterm_saves_and_says_how_to_go_on(stopped_twice):
    folder, _, message, *_ = stopped_twice
    assert message.startswith(f"SIGTERM: saved at step 5 of {STEPS} in {folder}")
    assert "Run the same command again to go on" in message


def test_stopped_run_ends_as_one_never_stopped(stopped_twice, whole):
    _, _, _, model, trained = stopped_twice
    assert trained == Trained(steps=STEPS, planned=STEPS, resumed_at=5)
    expected = arrays(whole[1])
    for name, weight in arrays(model).items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)


def test_stopped_run_has_every_record_once(stopped_twice, whole):
    folder = stopped_twice[0]
    assert steps_of(folder) == [1, 2, 3, 4, 5, 6]
    assert steps_of(folder, "val_loss") == [0, 2, 3, 4, 6]
    same = {"loss", "learning_rate", "grad_norm", "tokens", "val_loss"}
    expected, records = (
        [{key: record.get(key) for key in same} for record in read_jsonl(path / "metrics.jsonl")]
        for path in (whole[0], folder)
    )
    assert records == expected


def damaged(folder, step):
    path = next((folder / "checkpoints" / "actor" / str(step)).rglob("d/*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_newest_goes_on_from_the_one_before(run, stopped_twice, whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(stopped_twice[0], folder)
    damaged(folder, 6)
    with pytest.warns(UserWarning, match=r"checkpoint 6 .* is damaged .* set aside as damaged-6"):
        model, trained = run(folder)
    assert trained == Trained(steps=STEPS, planned=STEPS, resumed_at=5)
    expected = arrays(whole[1])
    for name, weight in arrays(model).items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)
    assert steps_of(folder) == [1, 2, 3, 4, 5, 6]
    assert steps_of(folder, "val_loss") == [0, 2, 3, 4, 6]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"hashes": {**HASHES, "tokenizer": "cc33"}}, "tokenizer"),
        ({"hashes": {**HASHES, "data": "dd44"}}, "data"),
        ({"hashes": {**HASHES, "rope_factor": 4.0}}, "rope_factor"),
        ({"batches": BATCHES[:-3]}, "steps"),
        ({"config": SftConfig(learning_rate=2e-2, accumulation=2)}, "learning_rate"),
    ],
)
def test_checkpoints_of_other_parameters_are_refused(run, whole, options, name):
    folder, _, _ = whole
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ForeignCheckpoint, match=rf"\b{name}: checkpoint "):
        run(folder, **options)
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.fixture(scope="module")
def diverged(run, tmp_path_factory):
    """A run that was saved at each step and had a loss of NaN in step 5: folder, message."""
    folder = tmp_path_factory.mktemp("diverged")
    broken = [*BATCHES]
    broken[8] = learnt_at_the_end(broken[8], 31).replace(
        input_mask=np.full((2, 32), np.nan, np.float32)
    )
    with pytest.raises(TrainingDiverged) as stopped:
        run(folder, broken, replace(CONFIG, save_interval="1 step"), resume_from="")
    return folder, str(stopped.value)


def test_a_diverged_training_stops_at_once_and_names_the_last_good_checkpoint(diverged):
    folder, message = diverged
    assert message.startswith("training diverged at step 5: loss nan, gradient norm nan. ")
    assert f"The last good checkpoint is 3 in {folder / 'checkpoints'}" in message
    last = message.splitlines()[-1]
    assert last == f"  -p RESUME_FROM {folder / 'checkpoints'} -p LEARNING_RATE 0.005"
    assert steps_of(folder) == [1, 2, 3, 4]


def test_it_leaves_no_checkpoint_that_led_there(diverged):
    steps = diverged[0] / "checkpoints" / "actor"
    assert [path.name for path in steps.iterdir()] == ["3"]  # of the newest three, 3, 4 and 5


def test_another_run_goes_on_from_there_with_other_parameters(run, diverged, tmp_path):
    source = str(diverged[0] / "checkpoints")
    slower = replace(CONFIG, learning_rate=5e-3)
    for _ in range(2):  # the second one finds nothing left to do
        _, trained = run(tmp_path, config=slower, resume_from=source)
    assert trained == Trained(steps=STEPS, planned=STEPS, resumed_at=STEPS)
    assert steps_of(tmp_path) == [4, 5, 6]
    rates = [r["learning_rate"] for r in read_jsonl(tmp_path / "metrics.jsonl") if "loss" in r]
    cosine = [(1 + math.cos(math.pi * step / 6)) / 2 for step in (3, 4, 5)]
    assert rates == pytest.approx([5e-4 + 45e-4 * share for share in cosine], abs=1e-7)


def test_a_learning_rate_beyond_all_measure_diverges_and_leaves_nothing(run, tmp_path):
    with pytest.raises(TrainingDiverged, match=r"There is no checkpoint from before.*\n.*5e\+29"):
        run(tmp_path, config=replace(CONFIG, learning_rate=1e30))
    assert list((tmp_path / "checkpoints" / "actor").iterdir()) == []


def test_a_last_step_that_breaks_the_weights_is_no_result(run, tmp_path):
    # The only step's loss is that of the model before it.
    with pytest.raises(TrainingDiverged, match="training diverged at step 1: weights norm "):
        run(tmp_path, BATCHES[:2], replace(CONFIG, learning_rate=1e30), val_batches=())
    assert list((tmp_path / "checkpoints" / "actor").iterdir()) == []


def test_nothing_to_train_on(run, tmp_path):
    with pytest.raises(ValueError, match="1 batches are fewer than one step's accumulation 2"):
        run(tmp_path, BATCHES[:1])


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0.0},
        {"warmup_share": 1.0},
        {"final_share": 1.5},
        {"accumulation": 0},
        {"evaluations": 0},
        {"save_interval": "soon"},
    ],
)
def test_config_refuses_what_cannot_train(values):
    (name,) = values
    with pytest.raises(ValueError, match=rf"(?i){name}"):
        SftConfig(**{"learning_rate": 1e-3, **values})


@pytest.mark.parametrize(
    ("planned", "evaluations", "val_batches", "expected"),
    [
        (7, 8, 1, {0, 2, 5, 7}),  # 7 x 3 x 0.1: two are a tenth of the work
        (7, 8, 3, {0, 7}),
        (1, 8, 1, {0, 1}),
        (90, 8, 3, {0, 10, 20, 30, 40, 50, 60, 70, 80, 90}),
    ],
)
def test_validation_begins_ends_and_is_spread_between_for_a_tenth_of_the_work(
    planned, evaluations, val_batches, expected
):
    sizes = {"train_batches": planned, "val_batches": val_batches}
    assert evaluation_steps(planned, evaluations, **sizes) == expected


def test_all_weights_trained_by_muon_go_on_after_a_deadline_and_end_the_same(
    new_model, mesh, tmp_path
):
    config = replace(CONFIG, accumulation=1, optimizer="muon", save_interval="1 steps")

    def start(folder, **options):
        model = get_trainable_model(new_model(num_layers=2), mesh, LoraConfig(rank=-1, alpha=4.0))
        texts = SimpleNamespace(batches=BATCHES[:3], val_batches=VALIDATION)
        run = SimpleNamespace(path=folder, checkpoints=folder / "ck", parameters=PARAMETERS)
        return model, train(model, texts, config, run, hashes=HASHES, mesh=mesh, **options)

    whole, _ = start(tmp_path / "whole")
    _, first = start(tmp_path / "stopped", deadline_s=0.0)
    again, second = start(tmp_path / "stopped")
    assert (first.steps, second.resumed_at, second.steps) == (1, 1, 3)
    for name, value in arrays(whole).items():
        np.testing.assert_array_equal(arrays(again)[name], value)
