"""What a notebook's parameter cell may say, and what is refused before anything is loaded."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import jupytext
import pytest

from nblib.evaluation.answers import Decoding
from nblib.files import to_jsonable
from nblib.hosts import settings_pages
from nblib.hosts.profiles import profile_tables
from nblib.hosts.settings import EvalSettings, GrpoSettings, SftSettings
from nblib.hosts.settings_base import parameter_name
from nblib.hosts.settings_foundation import FoundationSettings
from nblib.models.config_file import config_values, scaled
from nblib.models.lora import LoraConfig
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import reward_weights
from nblib.tokens.batching import Batching
from nblib.tools.notebooks import declared_parameters
from nblib.training.grpo_config import GrpoConfig
from nblib.training.sft import SftConfig

CHECKOUT = Path(__file__).parents[2]
NOTEBOOKS = {
    "v0_foundation": FoundationSettings,
    "v1_sft_format": SftSettings,
    "v2_grpo": GrpoSettings,
    "eval": EvalSettings,
    "envelope": SftSettings,
    "extraction": SftSettings,
    "proofs": SftSettings,
}
CPU = {"PROFILE": "cpu"}
INF, NAN = float("inf"), float("nan")

EVERYWHERE = [
    ("PROFILE", "fast"),
    ("DIFFICULTY_FILTER", [1, "a"]),
    ("DIFFICULTY_FILTER", [0]),
    ("DIFFICULTY_FILTER", [6]),  # of the built-in problems
    ("EVAL_SAMPLES", -7),
    ("EVAL_SAMPLES", 10**12),
    ("EVAL_SAMPLES", 1.5),
    ("GSM8K_DIR", 3),
    ("SEED", -1),
    ("SEED", 10**29),
    ("SEED", 2**32),
]
TRAINED = [
    ("NUM_SAMPLES", -5),
    ("NUM_SAMPLES", 1),
    ("NUM_SAMPLES", 10**12),
    ("LEARNING_RATE", -0.1),
    ("LEARNING_RATE", INF),
    ("LEARNING_RATE", NAN),
    ("LEARNING_RATE", "fast"),
    ("SAVE_INTERVAL", "0 steps"),
    ("SAVE_INTERVAL", "2 hours"),
    ("SESSION_HOURS", -1.0),
    ("SESSION_HOURS", INF),
]
BATCHED = [
    ("NUM_EPOCHS", -1),
    ("NUM_EPOCHS", 10**6),
    ("MAX_LENGTH", -1),
    ("MAX_LENGTH", 10**6),
    ("PACKING", "maybe"),
    ("PACKING", True),
    ("BATCH_TOKENS", -1),
    ("BATCH_TOKENS", 100),  # less than MAX_LENGTH
    ("GRADIENT_ACCUMULATION", 0),
    ("GRADIENT_ACCUMULATION", 50_000),  # more than there are rows
]
TUNED = [
    ("MODEL", "gemma4"),
    ("MODEL", 4),
    ("MODEL", "hub:gemma3-1b"),
    ("MODEL", "nowhere::embedded"),
    ("DTYPE", "fp8"),
    ("DATA", "gsm9k"),
    ("REMAT", 1),
    ("LORA_RANK", -3),
    ("LORA_RANK", 10**6),
    ("LORA_ALPHA", -1.0),
    ("MAX_NEW_TOKENS", -1),
    ("MAX_NEW_TOKENS", 10**6),
    ("EXPORT_FLAX", "yes"),
    ("EXPORT_GGUF", "q4_0"),
    ("EVAL_AT_END", 0),
]
WRONG = {
    FoundationSettings: [
        *(*EVERYWHERE, *TRAINED, *BATCHED),
        ("RECIPE", "slow"),
        ("SIZE", "huge"),
        ("NUM_SAMPLES", -1),
        ("EVAL_SAMPLES", -1),
    ],
    SftSettings: [
        *(*EVERYWHERE, *TRAINED, *BATCHED, *TUNED),
        ("LORA_RANK", -2),
        ("EXAMPLES", "pages.csv"),
        ("EXAMPLES", "pages.DUCKDB"),
        ("EXAMPLES", "pages"),
        ("EXAMPLES", "builtin"),
        ("EXAMPLES", 3),
        ("EXAMPLES", ["pages.jsonl"]),
        ("EXAMPLES", "pages.duckdb"),  # of the task gsm8k
        ("DATA", "pages.duckdb"),
        ("TASKS", "product"),
        ("TASKS", ["product"]),
        ("TASKS", 3),
        ("ROPE_FACTOR", 3),
        ("ROPE_FACTOR", -1),
        ("ROPE_FACTOR", 8),
        ("ROPE_FACTOR", 4.0),
        ("ROPE_FACTOR", True),
        ("MAX_LENGTH", 32_769),  # of the profile's model, whose factor is 1
        ("REVIEW", "review.csv"),  # of the task gsm8k
        ("REVIEW", 3),
        ("OPTIMIZER", "sgd"),
        ("OPTIMIZER", 1),
        ("JUDGE", "gpt"),
        ("JUDGE", 1),
        ("JUDGE_BUDGET", -1),
        ("SHOTS", -1),
        ("SHOTS", 51),
        ("CURVE", [0.0, 0.5]),
        ("CURVE", [1.5]),
        ("CURVE", [0.5, 0.25, 0.5]),
        ("CURVE", 0.5),
        ("CURVE", ["half"]),
        ("COMPOSED_SAMPLES", -1),
    ],
    GrpoSettings: [
        *(*EVERYWHERE, *TRAINED, *TUNED),
        ("NUM_SAMPLES", 12),  # as many as PROMPTS_PER_STEP, and one is for the probe
        ("PASS_RATE_SAMPLES", -1),
        ("NUM_STEPS", -1),
        ("PROMPTS_PER_STEP", -12),
        ("BATCH_TOKENS", -5),
        ("NUM_GENERATIONS", 1),
        ("NUM_ITERATIONS", 0),
        ("NUM_ITERATIONS", 2),  # at another temperature than 1
        ("LOSS", "ppo"),
        ("BETA", -0.1),
        ("KL", "k4"),
        ("TEMPERATURE", -1.0),
        ("MAX_PROMPT_LENGTH", -1),
        ("TASK", "gsm9k"),
        ("TASK", "gsm8k/hash"),  # a variant is for models that never learnt the form
        ("REWARDS", [0.3]),
        ("REWARDS", "format_accuracy=0.3"),
        ("REWARDS", {"format_accuracy": "0.3"}),
        ("REWARDS", {"format_accuracy": NAN}),
        ("REWARDS", {"brevity": -1.0}),
        ("REWARDS", {"format": 0.3}),  # no metric, no term
        ("REWARDS", {1: 0.3}),
        ("REWARDS", {"answer_accuracy": 0.0}),
        ("REWARDS", {"answer_accuracy": 0.1}),  # less than the format is worth
        ("REWARDS", {"steps": 0.9}),
        ("REWARDS", {"truncated": 1.5}),
        ("DTYPE", "bfloat16"),  # and all weights trained
    ],
    EvalSettings: [
        *EVERYWHERE,
        ("TASK", "gsm9k"),
        ("STAGES", ["base"]),
        ("STAGES", ["base=embedded"]),
        ("STAGES", ["base=embedded@loud", "sft=x"]),
        ("STAGES", [1, 2]),
        ("DATA", "gsm9k"),
        ("SVAMP_DIR", None),
        ("SHOTS", -1),
        ("SHOTS", 1000),
        ("MAX_NEW_TOKENS", -1),
        ("SAMPLES_PER_QUESTION", -1),
        ("TEMPERATURE", -0.7),
        ("TOP_P", 0.0),
        ("TOP_P", 1.5),
        ("FORGETTING_SAMPLES", -1),
        ("ALLOW_MISMATCH", "yes"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, wrong in WRONG.items() for name, value in wrong],
)
def test_a_wrong_value_is_refused_by_its_parameters_name(kind, name, value):
    with pytest.raises(ValueError) as refused:
        kind.of({**CPU, name: value})
    said = str(refused.value)
    shown = f"{name} {value!r}"
    assert shown in said or (name == "DTYPE" and "bfloat16 cannot all be trained" in said)


def test_samples_that_would_all_be_the_same_are_refused():
    given = {**CPU, "SAMPLES_PER_QUESTION": 4, "TEMPERATURE": 0.0}
    with pytest.raises(ValueError, match=r"TEMPERATURE 0\.0: .* SAMPLES_PER_QUESTION 4"):
        EvalSettings.of(given)


def test_a_model_may_be_a_folder_of_ones_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "v1").mkdir()
    assert GrpoSettings.of({**CPU, "MODEL": "~/v1::embedded"}).model == "~/v1::embedded"
    with pytest.raises(ValueError, match="MODEL '~/v2'"):
        GrpoSettings.of({**CPU, "MODEL": "~/v2"})


def test_levels_of_gsm8k_go_beyond_those_of_the_built_in_problems():
    given = {**CPU, "DATA": "gsm8k", "DIFFICULTY_FILTER": [6, 7]}
    assert SftSettings.of(given).levels == (6, 7)


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    """A notebook's name and its source."""
    return request.param, (CHECKOUT / "notebooks" / f"{request.param}.py").read_text()


def test_every_parameter_of_the_cell_is_a_field_and_has_its_default(notebook):
    name, source = notebook
    kind = NOTEBOOKS[name]
    declared = declared_parameters(jupytext.reads(source, "py:percent").cells)
    assert {*declared} <= {parameter_name(field.name) for field in fields(kind)}
    cell = {name: ast.literal_eval(one.default) for name, one in declared.items()}
    chosen = {key: cell[key] for key in ("TASK", "VERSION") if key in cell}  # by the notebook
    assert kind.of({**cell, **CPU}) == kind.of({**chosen, **CPU})


def test_parameters_are_checked_and_disk_space_is_asked_for_before_time_is_spent(notebook):
    name, source = notebook
    begun = re.search(rf"begin\((hosts\.)?{NOTEBOOKS[name].__name__}, globals\(\)\)", source)
    costly = ("get_dataset(\n", "foundation_rows(\n", "get_gemma_ref_model(", "answer_all(")
    calls = [source.index(call) for call in costly if call in source]
    assert begun and calls and begun.start() < min(calls)
    evaluated = source.find(" evaluate_stages(\n")
    assert evaluated < 0 or source.index("check_disk_space(run.path") < evaluated


V1_KEYS = {
    *("profile", "model", "dtype", "data", "builtin_levels", "long_hand", "levels", "num_samples"),
    *("num_epochs", "max_length", "packing", "batch_tokens", "learning_rate", "lora_rank"),
    *("lora_alpha", "eval_samples", "eval_batch", "max_new_tokens", "format_target"),
    *("save_interval", "accumulation", "remat", "seed"),
}
V2_KEYS = {
    *("profile", "data", "dtype", "levels", "num_samples", "num_steps", "prompts_per_step"),
    *("num_generations", "batch_tokens", "max_prompt_length", "max_new_tokens", "temperature"),
    *("learning_rate", "lora_rank", "lora_alpha", "probe_samples", "probe_every"),
    *("eval_samples", "eval_batch", "gain_target", "save_interval", "pass_rate_samples", "grpo"),
    *("weights", "task", "seed"),
}
EVAL_KEYS = {
    *("profile", "data", "builtin_levels", "levels", "eval_samples", "eval_batch"),
    *("max_new_tokens", "shots", "samples_per_question", "forgetting_samples", "temperature"),
    *("top_p", "allow_mismatch", "task", "seed"),
}
V0_KEYS = {
    *("profile", "recipe", "levels", "num_samples", "num_epochs", "gsm8k_epochs"),
    *("practice_samples", "practice_levels", "long_hand", "max_length", "packing"),
    *("batch_tokens", "learning_rate", "eval_samples", "save_interval", "size", "accumulation"),
    "seed",
}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (FoundationSettings, V0_KEYS),
        (SftSettings, V1_KEYS),
        (GrpoSettings, V2_KEYS),
        (EvalSettings, EVAL_KEYS),
    ],
)
def test_a_run_is_found_again_by_the_keys_that_runs_have_always_had(kind, keys):
    assert {*kind.of(CPU).parameters} == keys


def test_a_run_is_found_again_by_the_same_values_in_the_same_form():
    config = to_jsonable(SftSettings.of({**CPU, "DIFFICULTY_FILTER": [1, 2]}).parameters)
    table = to_jsonable(profile_tables("sft")["cpu"])
    others = {"profile": "cpu", "levels": [1, 2], "accumulation": 1, "remat": False, "seed": 0}
    assert config == {**table, **others}


def test_a_version_fills_what_is_left_open_and_is_part_of_what_a_run_is_found_by():
    given = {**CPU, "TASK": "envelope"}
    v1, v3 = (SftSettings.of({**given, "VERSION": version}) for version in ("v1", "v3"))
    assert v1.cut and v1.max_length < v3.max_length and not v3.cut
    assert v1.num_epochs < v3.num_epochs and v1.accumulation > v3.accumulation
    assert v1.parameters["version"] == "v1" and v1.parameters["task"] == "envelope"
    assert SftSettings.of({**given, "VERSION": "v1", "MAX_LENGTH": 384}).max_length == 384
    with pytest.raises(ValueError, match="VERSION 'v9': should be one of"):
        SftSettings.of({**given, "VERSION": "v9"})


@pytest.mark.parametrize("profile", ["cpu", "gpu", "tpu", "smoke"])
def test_a_profile_with_a_task_of_its_own_asks_no_levels_of_word_problems(profile):
    given = {"PROFILE": profile, "TASK": "envelope"}
    for kind in (SftSettings, GrpoSettings, EvalSettings):
        made = kind.of({**given, "VERSION": "v3"})
        assert made.levels == () and made.data == "builtin" and made.max_new_tokens >= 512


def test_the_task_gsm8k_is_not_the_data_gsm8k():
    assert SftSettings.of({**CPU, "TASK": "gsm8k"}) == SftSettings.of(CPU)
    assert SftSettings.of({**CPU, "DATA": "gsm8k"}).num_samples == -1


def test_all_weights_are_trained_in_fp32_and_a_file_may_be_the_data():
    made = SftSettings.of({"PROFILE": "gpu", "LORA_RANK": -1, "DATA": "trips.jsonl"})
    assert made.dtype == "float32" and made.data == "trips.jsonl"
    with pytest.raises(ValueError, match=r"DATA 'trips.csv': should be one of builtin, gsm8k, or"):
        SftSettings.of({**CPU, "DATA": "trips.csv"})


EXTRACTION = {**CPU, "TASK": "extraction"}


@pytest.mark.parametrize("name", ["pages.duckdb", "~/pages.ddb", "a b.jsonl", "pages.jsonl.gz"])
def test_a_file_of_examples_is_the_data_and_has_a_profile_of_its_own(name):
    made = SftSettings.of({**EXTRACTION, "EXAMPLES": name})
    assert (made.examples, made.data, made.num_samples) == (name, name, -1)
    assert SftSettings.of({**EXTRACTION, "EXAMPLES": name, "NUM_SAMPLES": 50}).num_samples == 50
    built_in = SftSettings.of({**EXTRACTION, "EXAMPLES": ""})
    assert (built_in.examples, built_in.data) == ("", "builtin")
    assert built_in == SftSettings.of(EXTRACTION)


def test_a_wrong_name_of_examples_says_what_a_file_is_called():
    with pytest.raises(ValueError) as refused:
        SftSettings.of({**EXTRACTION, "EXAMPLES": "pages.csv"})
    assert str(refused.value) == (
        "EXAMPLES 'pages.csv': should be a file that ends in .jsonl, .jsonl.gz, .duckdb, .ddb"
    )


def test_two_files_of_rows_are_one_too_many():
    with pytest.raises(ValueError, match=r"EXAMPLES 'a.jsonl' and DATA 'builtin': expected only"):
        SftSettings.of({**EXTRACTION, "EXAMPLES": "a.jsonl", "DATA": "builtin"})
    assert SftSettings.of({**EXTRACTION, "EXAMPLES": "a.jsonl", "DATA": ""}).data == "a.jsonl"


@pytest.mark.parametrize("kind", [SftSettings, GrpoSettings, EvalSettings])
def test_a_database_is_only_read_for_the_extraction(kind):
    for task in ("gsm8k", "envelope"):
        with pytest.raises(ValueError, match=r"DATA 'a.duckdb': a DuckDB file needs TASK 'extra"):
            kind.of({**CPU, "TASK": task, "DATA": "a.duckdb"})
    assert kind.of({**EXTRACTION, "DATA": "a.duckdb"}).data == "a.duckdb"


@pytest.mark.parametrize(
    ("tasks", "slugs"),
    [
        ("", ()),
        (" , ,", ()),
        ("product", ("product",)),
        (" product ,news,, product", ("news", "product")),
        ("a b,c", ("a b", "c")),
    ],
)
def test_slugs_stand_with_commas_between_them(tasks, slugs):
    made = SftSettings.of({**EXTRACTION, "TASKS": tasks})
    assert made.slugs == slugs
    same = SftSettings.of({**EXTRACTION, "TASKS": ",".join(slugs[::-1])})
    assert made.parameters == same.parameters
    assert ("tasks" in made.parameters) == bool(slugs)


def test_the_optimizer_is_the_profiles_and_what_is_set_wins():
    assert SftSettings.of(EXTRACTION).training.optimizer == "muon"
    assert SftSettings.of({**EXTRACTION, "MODEL": "gemma3-270m"}).training.optimizer == "adamw"
    assert SftSettings.of({**EXTRACTION, "OPTIMIZER": "adamw"}).training.optimizer == "adamw"
    assert SftSettings.of(CPU).training == SftConfig(
        learning_rate=5e-4, save_interval="10 steps", optimizer="adamw"
    )


def test_runs_of_before_are_found_again_and_others_are_others():
    """What the new settings leave as it was is no part of what a run is found by."""
    for given in (CPU, {**CPU, "DATA": "trips.jsonl"}, {**CPU, "TASK": "envelope"}):
        nothing = {"EXAMPLES": "", "TASKS": "", "OPTIMIZER": ""}
        made = SftSettings.of({**given, **nothing}).parameters
        assert made == SftSettings.of(given).parameters
        assert not {"examples", "tasks", "optimizer"} & {*made}
    changes = ({}, {"EXAMPLES": "a.jsonl"}, {"EXAMPLES": "b.jsonl"}, {"TASKS": "a"})
    found = [SftSettings.of({**EXTRACTION, **one}).parameters for one in changes]
    found.append(SftSettings.of({**EXTRACTION, "OPTIMIZER": "adamw"}).parameters)
    assert all(one != other for one, other in itertools.combinations(found, 2))
    assert found[0]["optimizer"] == "muon" and "optimizer" not in found[-1]


def test_shots_and_curve_are_part_of_what_a_run_is_found_by_where_there_are_any():
    smoke = {"PROFILE": "smoke", "TASK": "proofs"}
    made = SftSettings.of({**smoke, "SHOTS": 0, "CURVE": [], "COMPOSED_SAMPLES": 0})
    assert (made.shots, made.curve, made.composed_samples) == (2, (0.5,), 8)
    named = {"shots", "curve", "composed_samples"}
    assert named <= {*made.parameters} and not named & {*SftSettings.of(CPU).parameters}
    off = SftSettings.of({**smoke, "CURVE": [1.0]})
    assert off.curve == (1.0,) and off.parameters != made.parameters
    assert SftSettings.of({**smoke, "CURVE": [0.125, 0.5, 1]}).curve == (0.125, 0.5, 1)


def test_what_changes_no_result_does_not_make_another_run():
    aside = {"GSM8K_DIR": "a", "SESSION_HOURS": 2.0, "EXPORT_FLAX": True, "EVAL_AT_END": False}
    aside["EXPORT_GGUF"] = "q8_0"
    assert SftSettings.of({**CPU, **aside}).parameters == SftSettings.of(CPU).parameters
    assert GrpoSettings.of({**CPU, **aside}).parameters == GrpoSettings.of(CPU).parameters


def test_without_the_package_a_gguf_export_is_refused_before_the_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"EXPORT_GGUF.*pip install 'nblib\[gemma\]'"):
        SftSettings.of({**CPU, "EXPORT_GGUF": "f16"})


def test_other_names_beside_the_parameters_are_left_alone():
    assert SftSettings.of({**CPU, "GSM8K": object(), "np": 1}) == SftSettings.of(CPU)


def test_foundation_takes_its_recipe_and_smoke_beats_it():
    given = {"RECIPE": "full", "NUM_SAMPLES": 100, "DIFFICULTY_FILTER": [], "LEARNING_RATE": 0.0}
    settings = FoundationSettings.of({**CPU, **given})
    full = profile_tables("foundation")["full"]
    assert settings.num_samples == 100 and settings.levels == full["levels"]
    assert settings.learning_rate == full["learning_rate"]
    settings = FoundationSettings.of({"PROFILE": "smoke", "RECIPE": "full", "EVAL_SAMPLES": 5})
    assert (settings.recipe, settings.num_samples, settings.eval_samples) == ("smoke", 400, 5)


def test_gsm8k_on_a_cpu_gets_longer_rows_and_more_of_them():
    plain, gsm8k = SftSettings.of(CPU), SftSettings.of({**CPU, "DATA": "gsm8k"})
    assert (gsm8k.num_samples, gsm8k.data) == (-1, "gsm8k")
    assert gsm8k.max_length > plain.max_length
    assert gsm8k.max_new_tokens > plain.max_new_tokens
    assert SftSettings.of({**CPU, "DATA": "gsm8k", "MAX_LENGTH": 500}).max_length == 500


@pytest.mark.parametrize("model", ["gemma3-270m", "pip:gemma3-270m", "a/model.gguf"])
def test_a_real_gemma_on_a_cpu_gets_few_rows_whatever_the_data(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.gguf").touch()
    table = profile_tables("sft")["cpu-gemma"]
    for data in ({}, {"DATA": "gsm8k"}):
        settings = SftSettings.of({**CPU, "MODEL": model, **data})
        assert (settings.model, settings.num_samples) == (model, table["num_samples"])
        assert settings.batch_tokens == table["batch_tokens"]
    assert SftSettings.of({**CPU, "MODEL": "embedded"}).num_samples > table["num_samples"]


@pytest.mark.parametrize("kind", [SftSettings, GrpoSettings])
def test_all_built_in_problems_are_as_many_as_gsm8k_has(kind):
    every = {"PROFILE": "tpu", "NUM_SAMPLES": -1, "EVAL_SAMPLES": -1}
    built_in = kind.of({**every, "DATA": "builtin"})
    assert (built_in.num_samples, built_in.eval_samples) == (7473, 1319)
    gsm8k = kind.of({**every, "DATA": "gsm8k"})
    assert (gsm8k.num_samples, gsm8k.eval_samples) == (-1, -1)


def test_an_evaluation_takes_the_whole_test_split_by_default():
    assert EvalSettings.of(CPU).eval_samples == 1319
    assert EvalSettings.of({"PROFILE": "tpu"}).eval_samples == -1  # GSM8K: all there are
    assert EvalSettings.of({"PROFILE": "tpu", "DATA": "builtin"}).eval_samples == 1319


@pytest.mark.parametrize("profile", ["cpu", "gpu", "tpu", "smoke"])
def test_every_profile_makes_settings_that_can_be_trained_with(profile):
    given = {"PROFILE": profile}
    for kind in NOTEBOOKS.values():
        assert kind.of(given).profile == profile


@pytest.mark.parametrize("kind", [SftSettings, GrpoSettings])
def test_weights_that_stay_are_bf16_on_accelerators(kind):
    for profile, dtype in (("tpu", "bfloat16"), ("gpu", "bfloat16"), ("cpu", "float32")):
        assert kind.of({"PROFILE": profile}).dtype == dtype
    assert kind.of({"PROFILE": "tpu", "DTYPE": "float32"}).dtype == "float32"


def test_weights_that_are_all_trained_are_fp32():
    assert GrpoSettings.of({"PROFILE": "tpu", "LORA_RANK": -1}).dtype == "float32"
    assert GrpoSettings.of({**CPU, "DATA": "gsm8k"}).lora_rank == -1  # not a count of rows


def test_settings_make_the_configurations_that_are_trained_and_asked_with():
    given = {**CPU, "LEARNING_RATE": 0.5, "GRADIENT_ACCUMULATION": 2, "REMAT": True, "SEED": 3}
    sft = SftSettings.of({**given, "SAVE_INTERVAL": "9 min"})
    config = SftConfig(learning_rate=0.5, accumulation=2, remat=True, save_interval="9 min")
    assert sft.training == config
    assert sft.greedy == Decoding(max_new_tokens=320, batch_size=32, seed=3)
    assert sft.lora == LoraConfig(rank=64, alpha=64.0)
    muon = FoundationSettings.of({**given, "SAVE_INTERVAL": "9 min"}).training
    assert (muon.optimizer, muon.weight_decay, muon.accumulation) == ("muon", 0.05, 2)


LONG = {**CPU, "TASK": "extraction", "MODEL": "gemma3-270m"}


@pytest.mark.parametrize(
    ("factor", "context"), [(0, 32_768), (1, 32_768), (2, 65_536), (4, 131_072)]
)
def test_a_row_is_as_long_as_the_factor_allows(factor, context):
    given = {**LONG, "ROPE_FACTOR": factor}
    made = SftSettings.of({**given, "MAX_LENGTH": context})
    assert (made.max_length, made.rope_factor) == (context, factor)
    assert made.batch_tokens == context  # what is left open holds a row
    assert made.remat  # and is computed again
    with pytest.raises(ValueError, match=rf"MAX_LENGTH {context + 1}: "):
        SftSettings.of({**given, "MAX_LENGTH": context + 1})


def test_a_row_that_is_too_long_says_what_makes_it_fit():
    with pytest.raises(ValueError) as refused:
        SftSettings.of({**LONG, "MAX_LENGTH": 100_000, "ROPE_FACTOR": 2})
    assert str(refused.value) == (
        "MAX_LENGTH 100000: expected at most 65536, the context of gemma3-270m with the RoPE "
        "factor 2: the extraction notebook's ROPE_FACTOR makes it longer (2, 4)"
    )


def test_a_folder_s_own_factor_counts_where_none_is_given(tmp_path, tiny_config, tokenizer):
    values = config_values(scaled(tiny_config, 2), tokenizer, "float32")
    (tmp_path / "config.json").write_text(json.dumps(values))
    given = {**LONG, "MODEL": str(tmp_path), "MAX_LENGTH": 65_536}
    assert SftSettings.of(given).max_length == 65_536
    with pytest.raises(ValueError, match=r"MAX_LENGTH 65536: expected at most 32768, .* factor 1:"):
        SftSettings.of({**given, "ROPE_FACTOR": 1})


def test_a_factor_is_part_of_what_a_run_is_found_by_where_one_is_given():
    assert "rope_factor" not in SftSettings.of(LONG).parameters
    assert SftSettings.of({**LONG, "ROPE_FACTOR": 4}).parameters["rope_factor"] == 4


def test_how_far_needles_are_looked_for_is_the_profile_s_and_no_part_of_a_run():
    made = {
        profile: SftSettings.of({"PROFILE": profile, "TASK": "extraction"})
        for profile in ("smoke", "cpu", "gpu", "tpu")
    }
    assert [one.needle_tokens for one in made.values()] == [512, 2048, 8192, 8192]
    assert not any("needle_tokens" in one.parameters for one in made.values())


def test_settings_of_grpo_make_its_configuration_and_its_rewards():
    given = {**CPU, "NUM_STEPS": 7, "LOSS": "dr-grpo", "BETA": 0.04, "KL": "kl", "SEED": 3}
    grpo = GrpoSettings.of({**given, "REWARDS": {"format_accuracy": 0.3, "truncated": 0.1}})
    table = profile_tables("grpo")["cpu"]
    names = (
        *("learning_rate", "prompts_per_step", "batch_tokens", "num_generations", "probe_every"),
        *("max_prompt_length", "max_new_tokens", "temperature", "save_interval"),
    )
    own = {"steps": 7, "loss": "dr-grpo", "beta": 0.04, "kl": "kl", "seed": 3}
    assert grpo.grpo == GrpoConfig(**own, **{name: table[name] for name in names})
    assert grpo.weights == reward_weights(GSM8K, {"format_accuracy": 0.3, "truncated": 0.1})
    assert type(grpo.weights) is dict and grpo.weights["answer_accuracy"] == 1.0
    assert GrpoSettings.of(CPU).weights == reward_weights(GSM8K)
    assert grpo.sampled == Decoding(temperature=0.5, max_new_tokens=320, batch_size=32, seed=3)


def test_a_run_is_found_again_by_what_its_rewards_are_worth_not_by_how_they_were_given():
    given = {**CPU, "REWARDS": {"format_accuracy": 0.2}}  # the task's own
    assert GrpoSettings.of(given).parameters == GrpoSettings.of(CPU).parameters
    other = {**CPU, "REWARDS": {"format_accuracy": 0.3}}
    assert GrpoSettings.of(other).parameters != GrpoSettings.of(CPU).parameters


def test_rewards_are_refused_by_what_they_would_pay():
    with pytest.raises(ValueError, match=r"REWARDS {'steps': 0.9}: a wrong answer could earn"):
        GrpoSettings.of({**CPU, "REWARDS": {"steps": 0.9}})
    with pytest.raises(ValueError, match=r"REWARDS {'steps': 'high'}: should be a valid number"):
        GrpoSettings.of({**CPU, "REWARDS": {"steps": "high"}})


@pytest.mark.parametrize("kind", [SftSettings, FoundationSettings])
def test_settings_say_how_examples_become_batches(kind):
    given = {"NUM_EPOCHS": 2, "MAX_LENGTH": 100, "BATCH_TOKENS": 300, "PACKING": "on", "SEED": 3}
    expected = Batching(epochs=2, max_length=100, batch_tokens=300, packing="on", seed=3)
    assert kind.of({**CPU, **given}).batching == expected


def test_a_notebook_with_a_wrong_value_ends_before_it_has_begun_a_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nblib", "run", "v1_sft_format", "-p", "SAVE_INTERVAL", "0 steps"],
        cwd=CHECKOUT,
        env={**os.environ, "NBLIB_RUNS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "ValueError: SAVE_INTERVAL '0 steps': expected for example '10 steps'" in done.stderr
    assert [path.name for path in (tmp_path / "v1_sft_format").iterdir()] == ["failed.ipynb"]


def test_a_judge_is_looked_for_at_once_and_is_no_other_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no .env is
    for name in ("NBLIB_JUDGE_URL", "NBLIB_ENDPOINT_URL", "LITELLM_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"^JUDGE 'endpoint': no endpoint: set the URL in NBLIB_J"):
        SftSettings.of({**EXTRACTION, "JUDGE": "endpoint"})
    monkeypatch.setenv("NBLIB_JUDGE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("NBLIB_JUDGE_MODEL", "m")
    made = SftSettings.of({**EXTRACTION, "JUDGE": "endpoint", "JUDGE_BUDGET": 7})
    assert (made.judge, made.judge_budget) == ("endpoint", 7)
    without = SftSettings.of(EXTRACTION)
    assert made.parameters == without.parameters
    assert without.judge == "" and without.judge_budget == 500


def test_where_a_judge_is_may_be_a_secret_of_the_host(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secrets = {"NBLIB_JUDGE_URL": "http://127.0.0.1:1", "NBLIB_JUDGE_MODEL": "m"}

    def provide(names):
        for name in {*names} & {*secrets}:
            monkeypatch.setenv(name, secrets[name])

    monkeypatch.setattr(settings_pages, "provide_tokens", provide)
    assert SftSettings.of({**EXTRACTION, "JUDGE": "endpoint"}).judge == "endpoint"
