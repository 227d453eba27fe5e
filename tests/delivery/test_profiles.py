import pytest

from nblib.delivery.profiles import (
    FOUNDATION_RECIPES,
    SFT_PROFILES,
    fill,
    foundation_settings,
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
    for settings in (lambda: foundation_settings("quick", "fast"), lambda: sft_settings("fast")):
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


@pytest.mark.parametrize("tables", [FOUNDATION_RECIPES, SFT_PROFILES])
def test_all_columns_of_a_table_have_the_same_rows_and_none_is_left_empty(tables):
    first, *others = tables.values()
    assert all(set(table) == set(first) for table in others)
    for name, table in tables.items():
        empty = {key for key, value in table.items() if not value}
        assert empty <= {"gsm8k_epochs", "practice_samples", "practice_levels", "levels"}, name
