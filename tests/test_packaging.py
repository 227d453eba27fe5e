"""What is installed, shipped and pushed agrees with itself."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lines):
    parsed = [Requirement(line) for line in lines]
    return {r.name.lower().replace("_", "-"): str(r.specifier) for r in parsed}


def requirement_lines():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def tracked_files():
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    assert len(paths) > 20
    return [path for path in paths if path.is_file()]


def test_every_direct_dependency_is_pinned_and_so_in_requirements():
    direct = pins(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    installed = pins(requirement_lines())
    assert all(re.fullmatch(r"==[\d.]+", pin) for pin in direct.values()), direct
    assert {name: installed.get(name) for name in direct} == direct
    assert all(pin.startswith("==") for pin in installed.values())


def test_kaggles_install_command_has_the_same_pins():
    program, command, quiet, *packages = shlex.split(
        (ROOT / "kaggle_install_commands.txt").read_text()
    )
    assert [program, command, quiet] == ["pip", "install", "-q"]
    # Replacing the kernel's own package under a running kernel would break it.
    expected = pins(PROJECT["dependencies"])
    del expected["ipykernel"]
    assert pins(packages) == expected
    assert "jax[tpu]==0.10.2" in packages


def test_preflight_compiles_by_the_libtpu_that_the_hosts_jax_brings():
    of_jax = [line for line in metadata.requires("jax") if Requirement(line).name == "libtpu"]
    assert pins(of_jax) == pins(PROJECT["optional-dependencies"]["preflight"])


def test_no_file_names_a_package_registry():
    address = re.compile(rb"https?://[^ \"]*/(simple|packages)/|--(extra-)?index-url[ =]\S+://")
    assert [path for path in tracked_files() if address.search(path.read_bytes())] == []
    for name in ("requirements.txt", "kaggle_install_commands.txt", "pyproject.toml", "Makefile"):
        assert "://" not in (ROOT / name).read_text(), name


def test_importing_nblib_is_quick_and_brings_no_jax():
    # CPU time, not wall time: other tests may run beside this one.
    code = (
        "import sys, time; t = time.process_time(); import nblib; t = time.process_time() - t; "
        "print(t, 'jax' in sys.modules, 'numpy' in sys.modules)"
    )

    def measured():
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    answers = [measured().split() for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in answers) < 0.3
    assert answers[0][1:] == ["False", "False"]


def test_rows_tasks_and_run_folders_bring_no_accelerator_library():
    code = (
        "import sys, importlib, pkgutil, nblib.runs, nblib.sources, nblib.tasks\n"
        "for room in (nblib.sources, nblib.tasks):\n"
        "    for module in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "heavy = {'jax', 'flax', 'tunix', 'matplotlib', 'datasets', 'kagglehub', 'tensorflow'}\n"
        "print(sorted(heavy & {*sys.modules}))"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_what_the_package_ships_is_there():
    (patterns,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ].values()
    for pattern in patterns:
        assert [path for path in (ROOT / "nblib").glob(pattern) if path.is_file()], pattern


def test_make_help_names_every_target():
    command = ["make", "--no-print-directory", "help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    named = {line.split()[1] for line in answer.stdout.splitlines()}
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert named == set(phony.group(1).split())


def test_a_wrong_python_says_so(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(
        "#!/bin/sh\ncase $2 in *platform*) echo Python 3.9.18 at /old ;; *) exit 1 ;; esac\n"
    )
    old.chmod(0o755)
    command = ["make", f"PYTHON={tmp_path}/missing {old}", f"VENV={tmp_path}/venv", "test"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[0] == (
        "found Python 3.9.18 at /old; nblib needs Python 3.11, 3.12 or 3.13: "
        "make PYTHON=/path/to/python3.12 run"
    )
    assert not (tmp_path / "venv").exists()
