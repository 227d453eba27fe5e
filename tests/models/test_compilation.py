import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from nblib.models import compilation as module
from nblib.models.compilation import code_digest, keep_compiled, machine_name

PROGRAM = """
import sys
from pathlib import Path
import jax, numpy as np
from nblib.models.compilation import keep_compiled

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
print(keep_compiled(Path(sys.argv[1]), "cpu"))
print(jax.jit(lambda x: x * 2 + 1)(np.arange(3.0)))
print(sum(event.endswith("/cache_hits") for event in events))
"""


@pytest.fixture
def config(monkeypatch):
    """jax's settings, for `keep_compiled` to change."""
    values = {"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": True}
    config = SimpleNamespace(**values)
    config.update = lambda name, value: setattr(config, name, value)
    monkeypatch.setattr(module, "jax", SimpleNamespace(config=config))
    return config


def run(root, *, warned=""):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("JAX_")
    } | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM, str(root)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert warned in ended.stderr and bool(ended.stderr) == bool(warned)
    return ended.stdout.splitlines()


def test_the_next_process_reads_what_this_one_compiled(tmp_path):
    folder = tmp_path / "compiled" / machine_name("cpu")
    first, second = run(tmp_path), run(tmp_path)
    assert first[1] == second[1] == "[1. 3. 5.]"
    assert first[0] == f"none of earlier runs, compiling takes its time; kept in {folder}"
    count = len(list(folder.glob("*-cache")))
    assert second[0] == f"{count} programs of earlier runs are in {folder}"
    assert int(first[2]) == 0 < int(second[2])


def test_half_a_program_is_compiled_once_more(tmp_path):
    run(tmp_path)
    for path in (tmp_path / "compiled").rglob("*-cache"):
        path.write_bytes(path.read_bytes()[:100])
    again = run(tmp_path, warned="Error reading persistent compilation cache entry")
    assert again[1:] == ["[1. 3. 5.]", "0"]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("jax_compilation_cache_dir", "/elsewhere", "kept in /elsewhere"),
        ("jax_enable_compilation_cache", False, "not kept, as jax_enable_compilation_cache is off"),
    ],
)
def test_what_the_user_has_set_stays(config, tmp_path, setting, value, said):
    setattr(config, setting, value)
    before = dict(vars(config))
    assert keep_compiled(tmp_path, "cpu") == said
    assert vars(config) == before and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_no_error(config, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    assert keep_compiled(blocked, "cpu").startswith("not kept for later runs: ")
    free = SimpleNamespace(free=3e8)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: free)
    assert keep_compiled(tmp_path, "cpu").startswith("not kept for later runs: 0.3 GB are free at ")
    assert config.jax_compilation_cache_dir is None


def test_what_was_not_used_for_longest_goes_first(config, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 250)
    other = tmp_path / "compiled" / "another-machine"
    other.mkdir(parents=True)
    for age, name in enumerate(("a", "b", "c", "d")):
        path = other / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    os.utime(other / "d-cache", (2e9, 1e9))  # read since then
    keep_compiled(tmp_path, "cpu")
    assert sorted(path.name for path in other.iterdir()) == ["a-cache", "d-cache"]


def test_another_cpu_has_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_CPUS", tmp_path / "cpuinfo")

    def name(text):
        machine_name.cache_clear()
        module._CPUS.write_text(text)
        return machine_name("cpu")

    cpu = "processor : 0\nmodel name : X\nflags : avx avx2\ncpu MHz : 1\n"
    names = [name(cpu), name(cpu.replace("MHz : 1", "MHz : 2")), name(cpu.replace(" avx2", ""))]
    machine_name.cache_clear()
    assert names[0] == names[1] != names[2]
    assert names[0].startswith(f"cpu-{jax.lib.__version__}-")


def test_a_digest_is_of_the_code_and_the_versions(monkeypatch):
    before = code_digest(["tokens"], ["jaxlib"])
    assert before == code_digest(["tokens"], ["jaxlib"]) != code_digest(["tasks"], ["jaxlib"])
    monkeypatch.setattr(module.metadata, "version", lambda package: "other")
    assert code_digest(["tokens"], ["jaxlib"]) != before
