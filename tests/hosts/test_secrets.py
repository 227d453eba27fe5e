"""Where tokens are found, and that none stays in what is kept."""

import json
import sys
from collections import Counter
from types import ModuleType

import pytest

from nblib.hosts.secrets import (
    TOKENS,
    held_secrets,
    provide_tokens,
    redacted,
    redacted_notebook,
)

# Put together here, so that no scanner takes this file for a leak.
PLANTED = {
    "Hugging Face token": "hf_" + "aB3" * 11 + "x",
    "Kaggle token": "KGAT_" + "0a1b2c3d" * 4,
    "Google API key": "AIza" + "Sy-_9" * 7,
    "GitHub token": "ghp_" + "Zz9" * 12,
}


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch):
    for name in (*TOKENS, *held_secrets(), "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.setenv(name, "")  # the tests' own ones end with the test


class Refusal(Exception):
    pass


@pytest.fixture
def kaggle(monkeypatch):
    """Kaggle's module over a dict of secrets, as its client answers and refuses."""
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    module = ModuleType("kaggle_secrets")
    module.__spec__ = object()
    module.BackendError, module.CredentialError = Refusal, type("CredentialError", (Exception,), {})
    module.secrets, module.asked = {}, []

    class UserSecretsClient:
        def get_secret(self, label):
            module.asked.append(label)
            if module.secrets is None:
                raise ConnectionError("Connection error trying to communicate with service.")
            if label not in module.secrets:
                raise Refusal("Unexpected response from the service.")
            return module.secrets[label]

    module.UserSecretsClient = UserSecretsClient
    monkeypatch.setitem(sys.modules, "kaggle_secrets", module)
    return module


@pytest.fixture
def colab(monkeypatch):
    """Colab's module over a dict of secrets."""
    module, userdata = ModuleType("google.colab"), ModuleType("google.colab.userdata")
    module.__spec__ = object()
    module.userdata, userdata.secrets = userdata, {}
    userdata.SecretNotFoundError = Refusal

    def get(name):
        if name not in userdata.secrets:
            raise Refusal(f"Secret {name} does not exist.")
        return userdata.secrets[name]

    userdata.get = get
    monkeypatch.setitem(sys.modules, "google.colab", module)
    return userdata


def test_the_environment_wins_over_kaggle_and_kaggle_over_colab(monkeypatch, kaggle, colab, capsys):
    monkeypatch.setenv("HF_TOKEN", "mine")
    kaggle.secrets = {"HF_TOKEN": "kaggle's", "KAGGLE_KEY": "kaggle's"}
    colab.secrets = {"KAGGLE_KEY": "colab's", "KAGGLE_USERNAME": "colab's"}
    found = provide_tokens()
    assert found == {
        "HF_TOKEN": "environment",
        "KAGGLE_KEY": "kaggle",
        "KAGGLE_USERNAME": "colab",
    }
    import os

    assert [os.environ[name] for name in found] == ["mine", "kaggle's", "colab's"]
    assert capsys.readouterr() == ("", "")


def test_nothing_anywhere_is_no_error(kaggle, colab):
    assert provide_tokens() == {}


def test_without_internet_kaggle_is_asked_once(kaggle):
    kaggle.secrets = None
    assert provide_tokens() == {}
    assert kaggle.asked == ["HF_TOKEN"]


def test_away_from_kaggle_its_module_is_not_asked(kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "")
    kaggle.secrets = {"HF_TOKEN": "x"}
    assert provide_tokens() == {}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("before", ["", "token=", "\x1b[0m", "line\n", '"'])
def test_known_shapes_are_taken_out_wherever_they_stand(kind, before):
    text, found = redacted(f"{before}{PLANTED[kind]} and more")
    assert text == f"{before}[{kind} removed] and more"
    assert found == Counter({kind: 1})


def test_values_that_this_process_holds_are_taken_out(monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef")
    monkeypatch.setenv("OPENAI_API_KEY", "0123456789abcdef-and-more")
    monkeypatch.setenv("SHORT_TOKEN", "x")
    text, found = redacted("a 0123456789abcdef, 0123456789abcdef-and-more x")
    assert text == "a [value of KAGGLE_KEY removed], [value of OPENAI_API_KEY removed] x"
    assert found == {"value of KAGGLE_KEY": 1, "value of OPENAI_API_KEY": 1}


@pytest.mark.parametrize(
    "text", ["half_of_the_problems", "sha256 0123456789abcdef0123456789abcdef", "task-based-work"]
)
def test_plain_text_stays(text):
    assert redacted(text) == (text, Counter())


def test_a_notebook_is_searched_everywhere_but_in_images():
    planted = PLANTED["Google API key"]
    outputs = [
        {"output_type": "stream", "text": ["fine\n", f"key {planted}\n"]},
        {"output_type": "error", "traceback": [f"\x1b[0;31m{planted}\x1b[0m\nnext"]},
        {"output_type": "display_data", "data": {"image/png": f"iVBOR{planted}", "x": planted}},
    ]
    notebook = {
        "cells": [{"source": [f"KEY = '{planted}'"], "outputs": outputs, "execution_count": 1}],
        "metadata": {"papermill": {"parameters": {"KEY": planted}}},
    }
    clean, found = redacted_notebook(notebook)
    assert found == {"Google API key": 5}
    assert json.dumps(clean).count(planted) == 1
    assert clean["cells"][0]["outputs"][2]["data"]["image/png"] == f"iVBOR{planted}"
    assert clean["cells"][0]["outputs"][0]["text"] == ["fine\n", "key [Google API key removed]\n"]
    assert clean["cells"][0]["execution_count"] == 1
