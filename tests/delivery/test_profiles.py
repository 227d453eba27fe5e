import pytest

from nblib.delivery.profiles import (
    EVAL_PROFILES,
    FOUNDATION_RECIPES,
    GRPO_PROFILES,
    PROFILES,
    SFT_PROFILES,
    eval_settings,
    fill,
    foundation_settings,
    grpo_settings,
    resolve_profile,
    sft_settings,
)


@pytest.mark.parametrize("unset", [0, 0.0, "", [], ()])
def test_what_is_left_empty_comes_from_the_table(unset):
    assert fill({"epochs": 3, "data": "gsm8k"}, {"epochs": unset}) == {"epochs": 3, "data": "gsm8k"}


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
    for settings in (
        lambda: foundation_settings("quick", "fast"),
        lambda: sft_settings("fast"),
        lambda: grpo_settings("fast"),
        lambda: eval_settings("fast"),
    ):
        with pytest.raises(ValueError, match=message):
            settings()


def test_an_unknown_recipe_names_those_that_are_known():
    with pytest.raises(ValueError, match="RECIPE 'slow' is unknown: expected one of quick, full"):
        foundation_settings("slow", "cpu")


def test_foundation_takes_its_recipe_and_what_the_user_set():
    settings = foundation_settings("full", "cpu", num_samples=100, levels=[], learning_rate=0.0)
    assert settings == {
        **FOUNDATION_RECIPES["full"],
        "profile": "cpu",
        "recipe": "full",
        "num_samples": 100,
    }


def test_smoke_beats_the_recipe_but_not_the_user():
    settings = foundation_settings("full", "smoke", eval_samples=5)
    assert (settings["recipe"], settings["num_samples"], settings["eval_samples"]) == (
        *("smoke", 400, 5),
    )


def test_sft_takes_its_profile_and_what_the_user_set():
    settings = sft_settings("tpu", num_samples=50, model="", lora_rank=0)
    assert settings == {**SFT_PROFILES["tpu"], "profile": "tpu", "num_samples": 50}


def test_gsm8k_on_a_cpu_gets_longer_rows_and_more_of_them():
    plain, gsm8k = sft_settings("cpu"), sft_settings("cpu", data="gsm8k")
    assert (gsm8k["num_samples"], gsm8k["data"]) == (-1, "gsm8k")
    assert gsm8k["max_length"] > plain["max_length"]
    assert gsm8k["max_new_tokens"] > plain["max_new_tokens"]
    assert set(gsm8k) == set(plain)
    assert sft_settings("cpu", data="gsm8k", max_length=500)["max_length"] == 500


def test_all_built_in_problems_are_as_many_as_gsm8k_has():
    settings = sft_settings("tpu", data="builtin")
    assert (settings["num_samples"], settings["eval_samples"]) == (7473, 1319)
    assert sft_settings("tpu", data="builtin", num_samples=9)["num_samples"] == 9
    on_gsm8k = sft_settings("tpu", data="gsm8k")
    assert (on_gsm8k["num_samples"], on_gsm8k["eval_samples"]) == (-1, -1)


def test_every_profile_but_auto_has_a_table():
    assert set(GRPO_PROFILES) == set(SFT_PROFILES) == set(PROFILES) - {"auto"}


@pytest.mark.parametrize("profile", GRPO_PROFILES)
def test_grpo_takes_its_profile_and_what_the_user_set(profile):
    plain = {**GRPO_PROFILES[profile], "profile": profile}
    if plain["data"] == "gsm8k":
        assert grpo_settings(profile) == plain
    settings = grpo_settings(profile, num_steps=7, levels=[2], data="", lora_alpha=0.0)
    assert settings["num_steps"] == 7 and settings["levels"] == [2]
    assert {name: settings[name] for name in ("data", "lora_alpha", "profile")} == {
        name: plain[name] for name in ("data", "lora_alpha", "profile")
    }
    assert set(settings) == set(plain)


def test_all_built_in_questions_of_grpo_are_as_many_as_gsm8k_has():
    every = grpo_settings("tpu", data="builtin", num_samples=-1, eval_samples=-1)
    assert (every["num_samples"], every["eval_samples"]) == (7473, 1319)
    assert grpo_settings("tpu", data="builtin", num_samples=9)["num_samples"] == 9
    on_gsm8k = grpo_settings("cpu", data="gsm8k", num_samples=-1, eval_samples=-1)
    assert (on_gsm8k["num_samples"], on_gsm8k["eval_samples"]) == (-1, -1)


@pytest.mark.parametrize("data", ["builtin", "gsm8k"])
def test_only_counts_of_rows_are_filled_in_where_all_are_asked_for(data):
    assert grpo_settings("cpu", data=data, lora_rank=-1)["lora_rank"] == -1  # all weights


@pytest.mark.parametrize("profile", GRPO_PROFILES)
def test_every_profile_of_grpo_can_be_trained_with(profile):
    from nblib.training.grpo_config import GrpoConfig

    settings = grpo_settings(profile)
    names = (
        *("learning_rate", "prompts_per_step", "micro_batch", "num_generations", "probe_every"),
        *("max_prompt_length", "max_new_tokens", "temperature", "save_interval"),
    )
    config = GrpoConfig(
        steps=settings["num_steps"], seed=0, **{name: settings[name] for name in names}
    )
    assert settings["num_samples"] < 0 or settings["num_samples"] > config.prompts_per_step


@pytest.mark.parametrize("tables", [FOUNDATION_RECIPES, SFT_PROFILES, GRPO_PROFILES, EVAL_PROFILES])
def test_all_columns_of_a_table_have_the_same_rows_and_none_is_left_empty(tables):
    first, *others = tables.values()
    assert all(set(table) == set(first) for table in others)
    for name, table in tables.items():
        empty = {key for key, value in table.items() if not value}
        # Of these 0 or () is a value: no such rows, all levels, the step as one batch.
        allowed = {"gsm8k_epochs", "practice_samples", "practice_levels", "long_hand"}
        assert empty <= allowed | {"levels", "micro_batch"}, name


def test_an_evaluation_takes_the_whole_test_split_by_default():
    assert eval_settings("cpu")["eval_samples"] == 1319
    assert eval_settings("tpu")["eval_samples"] == -1  # GSM8K: all there are
    assert eval_settings("tpu", data="builtin")["eval_samples"] == 1319
    assert {*EVAL_PROFILES} == {*PROFILES} - {"auto"}


def test_what_v1_writes_fits_into_the_tokens_of_v2_and_of_the_evaluation():
    for profile in ("cpu", "smoke"):
        limits = {
            table[profile]["max_new_tokens"]
            for table in (SFT_PROFILES, GRPO_PROFILES, EVAL_PROFILES)
        }
        assert len(limits) == 1


@pytest.mark.parametrize("settings", [sft_settings, grpo_settings])
def test_weights_that_stay_are_bf16_on_accelerators(settings):
    assert settings("tpu", lora_rank=8)["dtype"] == settings("gpu")["dtype"] == "bfloat16"
    assert settings("tpu", dtype="float32")["dtype"] == settings("cpu")["dtype"] == "float32"
    assert settings("tpu", lora_rank=-1)["dtype"] == "float32"  # all of them are trained
    with pytest.raises(
        ValueError, match="DTYPE 'fp8' is unknown: expected one of float32, bfloat16"
    ):
        settings("tpu", dtype="fp8")
