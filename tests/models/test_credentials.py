import base64

import pytest

from nblib.models.credentials import TOKENS, credential_values, has_credentials


@pytest.fixture(autouse=True)
def none_here(monkeypatch, tmp_path):
    for name in TOKENS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)


def test_without_variables_there_are_none():
    assert not has_credentials(hub=True) and not has_credentials(hub=False)
    assert credential_values() == ()


def test_what_a_client_would_send_is_known_in_each_form_that_it_sends(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "of the hub")
    assert has_credentials(hub=True) and not has_credentials(hub=False)
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "a key")
    assert has_credentials(hub=False)
    basic = base64.b64encode(b"me:a key").decode()
    assert {"of the hub", "a key", basic} <= set(credential_values())
