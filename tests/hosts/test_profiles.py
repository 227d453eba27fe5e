"""Profiles fill what a notebook leaves empty."""

from types import SimpleNamespace

import pytest

from nblib.hosts import profiles
from nblib.hosts.profiles import (
    PROFILES,
    fill,
    profile_table,
    profile_tables,
    resolve_dtype,
    resolve_profile,
)
from nblib.hosts.settings import SftSettings
from nblib.tasks.registry import get_task

NOTEBOOKS = ("sft", "grpo", "eval")


@pytest.mark.parametrize("unset", [0, 0.0, "", [], ()])
def test_what_is_left_empty_comes_from_the_table(unset):
    assert fill({"epochs": 3, "data": "gsm8k"}, {"epochs": unset}) == {"epochs": 3, "data": "gsm8k"}


def test_what_the_table_does_not_know_stays_as_it_is():
    assert fill({"epochs": 3}, {"accumulation": 0}) == {"epochs": 3, "accumulation": 0}


@pytest.mark.parametrize("given", [1, -1, 2e-4, "builtin", [1], True])
def test_what_is_set_wins(given):
    filled = fill({"value": 3}, {"value": given})
    assert filled == {"value": given} and type(filled["value"]) is type(given)


def test_filling_leaves_the_table_alone():
    table = {"epochs": 3}
    fill(table, {"epochs": 5})
    assert table == {"epochs": 3}


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_auto_is_the_accelerator_that_jax_sees(monkeypatch, backend):
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert resolve_profile("auto") == backend
    assert resolve_profile("smoke") == "smoke"


def test_an_unknown_profile_names_those_that_are_known():
    message = "PROFILE 'fast' is unknown: expected one of auto, cpu, tpu, gpu, smoke"
    with pytest.raises(ValueError, match=message):
        resolve_profile("fast")


def test_every_profile_but_auto_has_a_table():
    for kind in NOTEBOOKS:
        others = ("envelope", "extraction", "proofs", "text_proofs")
        names = {one for one in profile_tables(kind) if not any(task in one for task in others)}
        assert names - {"cpu-gsm8k", "cpu-gemma"} == {*PROFILES} - {"auto"}


@pytest.mark.parametrize("task", ["envelope", "extraction", "proofs", "text_proofs"])
def test_a_task_has_a_table_for_each_profile(task):
    without_rewards = ("grpo",) if not get_task(task).reward_weights else ()
    for kind in {*NOTEBOOKS}.difference(without_rewards):
        names = {name.split("-")[0] for name in profile_tables(kind) if f"-{task}" in name}
        assert names == {*PROFILES} - {"auto"}


def test_the_envelope_has_a_table_for_each_version():
    of_sft = profile_tables("sft")
    for begin in ("cpu-envelope", "cpu-envelope-gemma", "gpu-envelope", "tpu-envelope"):
        assert {begin, f"{begin}-v1", f"{begin}-v2"} <= {*of_sft}  # v3 is what has no version


def test_the_extraction_has_a_table_for_each_profile_and_most_have_one_for_files():
    names = {name for name in profile_tables("sft") if "extraction" in name}
    assert {name.split("-")[0] for name in names} == {*PROFILES} - {"auto"}
    files = {name.removesuffix("-file") for name in names if name.endswith("-file")}
    assert files == {f"{profile}-extraction" for profile in ("cpu", "gpu", "tpu")}


EXTRACTION, FILE, GEMMA = {"task": "extraction"}, {"data": "a.duckdb"}, {"model": "gemma3-270m"}


@pytest.mark.parametrize(
    ("profile", "given", "name"),
    [
        ("cpu", {}, "cpu"),
        ("cpu", FILE, "cpu"),
        ("cpu", {"data": "a.jsonl", **GEMMA}, "cpu-gemma"),
        ("cpu", EXTRACTION, "cpu-extraction"),
        ("cpu", {**EXTRACTION, "data": ""}, "cpu-extraction"),
        ("cpu", {**EXTRACTION, "data": "builtin"}, "cpu-extraction"),
        ("cpu", {**EXTRACTION, **FILE}, "cpu-extraction-file"),
        ("cpu", {**EXTRACTION, "data": "a.jsonl.gz"}, "cpu-extraction-file"),
        ("cpu", {**EXTRACTION, "data": "file"}, "cpu-extraction-file"),
        ("cpu", {**EXTRACTION, **FILE, **GEMMA}, "cpu-extraction-gemma"),
        ("cpu", {**EXTRACTION, **FILE, "version": "v1"}, "cpu-extraction-file"),
        ("gpu", {**EXTRACTION, **FILE, **GEMMA}, "gpu-extraction-file"),
        ("tpu", {**EXTRACTION, **FILE}, "tpu-extraction-file"),
        ("smoke", {**EXTRACTION, **FILE}, "smoke-extraction"),
        ("cpu", {"task": "envelope", **FILE}, "cpu-envelope"),
        ("cpu", {"task": "envelope", "version": "v1", **FILE, **GEMMA}, "cpu-envelope-gemma-v1"),
        ("cpu", {"task": "proofs", **FILE, **GEMMA}, "cpu-proofs-gemma"),
        ("tpu", {"task": "proofs", "data": "a.jsonl"}, "tpu-proofs"),
        ("cpu", {"data": "gsm8k"}, "cpu-gsm8k"),
        ("cpu", {"data": "gsm8k", **GEMMA}, "cpu-gemma"),
    ],
)
def test_the_table_that_fits_best_is_taken(profile, given, name):
    assert profile_table("sft", profile, given) is profile_tables("sft")[name]


def test_a_table_for_gemma_and_a_file_comes_first_where_there_is_one(monkeypatch):
    tables = {"cpu": {}, "cpu-gemma": {"n": 1}, "cpu-file": {"n": 2}, "cpu-gemma-file": {"n": 3}}
    monkeypatch.setattr(profiles, "profile_tables", lambda kind: tables)
    found = [profile_table("sft", "cpu", one) for one in ({}, GEMMA, FILE, {**GEMMA, **FILE})]
    assert found == [{}, {"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize("kind", [*NOTEBOOKS, "foundation"])
def test_all_tables_of_a_kind_have_the_same_rows_and_none_is_left_empty(kind):
    tables = profile_tables(kind)
    first, *others = tables.values()
    of_a_version = {"accumulation", "cut", "optimizer", "needle_tokens", "judge_budget"}
    of_a_version |= {"shots", "curve", "composed_samples"} if kind == "sft" else set()
    assert all(set(table) - of_a_version == set(first) for table in others)
    for name, table in tables.items():
        empty = {key for key, value in table.items() if not value}
        # Of these 0 or () is a value: no such rows, all levels, the step as one batch.
        allowed = {"gsm8k_epochs", "practice_samples", "practice_levels", "long_hand"}
        assert empty <= allowed | {"levels"}, name


def test_what_v1_writes_fits_into_the_tokens_of_v2_and_of_the_evaluation():
    for given in ({"data": "builtin"}, {"data": "gsm8k"}):
        for profile in ("cpu", "smoke"):
            tables = [profile_table(kind, profile, given) for kind in NOTEBOOKS]
            assert len({table["max_new_tokens"] for table in tables}) == 1


def test_v2_is_asked_the_gsm8k_questions_of_v1_and_learns_on_all_levels():
    v1, v2 = (profile_table(kind, "cpu", {"data": "gsm8k"}) for kind in ("sft", "grpo"))
    assert v2["eval_samples"] == v1["eval_samples"] and v2["levels"] == ()
    assert v2["max_prompt_length"] + v2["max_new_tokens"] >= v1["max_length"]


@pytest.fixture
def device(monkeypatch):
    """Let jax have one device of a platform and compute capability."""
    import jax

    def give(platform, kind, *capability):
        device = SimpleNamespace(platform=platform, device_kind=kind)
        device.__dict__.update(zip(["compute_capability"], capability, strict=False))
        monkeypatch.setattr(jax, "devices", lambda: [device])

    return give


@pytest.mark.parametrize(
    ("machine", "dtype"),
    [
        (("gpu", "Tesla P100", "6.0"), "float32"),
        (("gpu", "Tesla T4", "7.5"), "float32"),
        (("gpu", "NVIDIA A100", "8.0"), "bfloat16"),
        (("gpu", "NVIDIA B200", "10.0"), "bfloat16"),
        (("gpu", "AMD Instinct", "gfx90a"), "bfloat16"),
        (("tpu", "TPU v5 lite"), "bfloat16"),
        (("cpu", "cpu"), "bfloat16"),
    ],
)
def test_gpus_without_bf16_units_take_float32_and_say_so(device, capsys, machine, dtype):
    device(*machine)
    assert resolve_dtype("float32") == "float32" and capsys.readouterr().out == ""
    assert resolve_dtype("bfloat16") == dtype
    said = capsys.readouterr().out
    assert said.startswith("DTYPE float32 in place of bfloat16") == (dtype == "float32")
    assert bool(said) == (dtype == "float32")


def test_a_run_on_a_t4_is_found_again_by_the_dtype_that_it_has(device):
    device("gpu", "Tesla T4", "7.5")
    assert SftSettings.of({"PROFILE": "gpu"}).parameters["dtype"] == "float32"
