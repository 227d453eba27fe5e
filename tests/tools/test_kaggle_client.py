"""What is said where Kaggle's client cannot be had."""

import sys

import pytest
from click import ClickException

from nblib.tools.kaggle_client import kaggle_client


def test_a_client_that_is_not_installed_is_one_line_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", None)
    with pytest.raises(ClickException, match=r"cannot be imported .*`pip install kaggle`"):
        kaggle_client()
