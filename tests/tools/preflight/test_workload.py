from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.sources.datasets import get_dataset
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.proofs import PROOFS
from nblib.tools.preflight import workload
from nblib.tools.preflight.targets import PreflightError, find_target
from nblib.tools.preflight.workload import estimated_tokens, notebook_settings, sft_workload

CPU, V5E = find_target("cpu"), find_target("v5e-8")


def test_a_target_gives_its_profile():
    assert notebook_settings("v1_sft_format", V5E, {}) == SftSettings.of({"PROFILE": "tpu"})


def test_parameters_are_those_of_the_notebook():
    given = {"REMAT": "True", "GRADIENT_ACCUMULATION": "4", "DIFFICULTY_FILTER": "[2, 3]"}
    settings = notebook_settings("v1_sft_format", V5E, {**given, "PROFILE": "cpu"})
    assert settings.profile == "cpu" and settings.levels == (2, 3)
    assert settings.training.remat and settings.training.accumulation == 4


def test_v2_is_planned_with_the_model_that_v1_tunes():
    settings = notebook_settings("v2_grpo", V5E, {"BETA": "0.04", "REMAT": "True"})
    given = {"PROFILE": "tpu", "MODEL": "gemma3-1b-it", "BETA": 0.04, "REMAT": True}
    assert settings == GrpoSettings.of(given)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"REMATT": "True"}, "did you mean REMAT"),
        ({"REMAT": "3.5"}, "takes bool"),
        ({"NUM_SAMPLES": "-5"}, "NUM_SAMPLES -5: should be greater"),
    ],
)
def test_a_wrong_parameter_is_an_error(parameters, message):
    with pytest.raises(ValueError, match=message):
        notebook_settings("v1_sft_format", CPU, parameters)


def test_another_notebook_has_no_preflight():
    with pytest.raises(
        PreflightError,
        match="'eval' has no preflight: expected one of envelope, extraction, proofs, v1",
    ):
        notebook_settings("eval", CPU, {})


def test_the_batches_are_those_of_the_run():
    settings = notebook_settings("v1_sft_format", CPU, {"NUM_SAMPLES": "60"})
    work = sft_workload(settings, GSM8K, row_multiple=1)
    assert len(work.examples) == 57  # a slice is kept to validate
    learnt = sum(int((batch.input_tokens != 0).sum()) for batch in work.batches)
    assert learnt == sum(len(example.tokens) for example in work.examples)
    assert work.tokens_per_batch == pytest.approx(learnt / len(work.batches))
    assert work.shapes == Counter(batch.input_tokens.shape for batch in work.batches)
    twice = sft_workload(replace(settings, num_epochs=2), GSM8K, row_multiple=1)
    assert len(twice.batches) == 2 * len(work.batches)
    assert twice.tokens_per_batch == pytest.approx(work.tokens_per_batch)


def test_packed_rows_have_one_shape_and_less_padding():
    settings = notebook_settings("v1_sft_format", CPU, {"NUM_SAMPLES": "60", "PACKING": "on"})
    work = sft_workload(settings, GSM8K, row_multiple=2)
    assert list(work.shapes) == [(4, 384)]


def test_a_model_that_is_not_here_is_planned_with_estimated_lengths():
    parameters = {"DATA": "builtin", "NUM_SAMPLES": "60", "PACKING": "off"}
    settings = notebook_settings("v1_sft_format", V5E, parameters)
    work = sft_workload(settings, GSM8K, row_multiple=8)
    assert work.tokenizer is None
    assert any("estimated from the texts" in note for note in work.notes)
    assert all(
        example.tokens[0] == 2 and (example.tokens == 2).sum() == 1 for example in work.examples
    )


def test_data_that_is_not_here_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(workload, "get_dataset", partial(get_dataset, source=("folder",)))
    settings = notebook_settings("v1_sft_format", V5E, {"GSM8K_DIR": str(tmp_path / "nothing")})
    with pytest.raises(PreflightError, match=r"depends on its data(.|\n)*nothing"):
        sft_workload(settings, GSM8K, row_multiple=8)


def test_estimated_tokens_of_a_text():
    # Ann has 1 2 pens, : < end of _ turn >
    assert estimated_tokens("Ann has 12 pens") == 5
    assert estimated_tokens("a-b, c.\n\nd") == 8


def test_a_notebook_of_another_name_is_planned_by_what_it_says_it_is(envelope):
    assert notebook_settings("envelope", CPU, {}) == SftSettings.of(
        {"PROFILE": "cpu", "NUM_SAMPLES": 40}
    )
    assert isinstance(notebook_settings("a_grpo", CPU, {}), GrpoSettings)
    with pytest.raises(PreflightError, match="'plain' has no preflight: expected one of a_grpo, e"):
        notebook_settings("plain", CPU, {})


def test_the_proofs_are_planned_with_their_own_rows():
    settings = notebook_settings("proofs", CPU, {"NUM_SAMPLES": "60"})
    work = sft_workload(settings, PROOFS, row_multiple=1)
    assert len(work.examples) == 57 and not work.notes
    assert "<proof>" in work.tokenizer.decode(work.examples[0].tokens.tolist())
