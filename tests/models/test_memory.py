import os
import subprocess
import sys

import pytest

from nblib.models.memory import give_back_memory
from nblib.tools.execution import kernel_variables

KEPT = """
import numpy as np, psutil
from nblib.models.memory import give_back_memory
rss = lambda: psutil.Process().memory_info().rss
before = rss()
freed, after_it = np.ones(40_000_000), np.ones(1_000_000)  # the second keeps the heap's top in use
del freed
kept = rss() - before
give_back_memory()
print(kept, rss() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_a_notebook_has_freed_is_kept_until_it_is_given_back():
    done = subprocess.run(
        [sys.executable, "-c", KEPT],
        env={**os.environ, **kernel_variables({})},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 300e6 and left < 100e6


def test_elsewhere_there_is_nothing_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    give_back_memory()
