"""The first cell where nblib is not installed: in a built kernel, from a badge, in a checkout.

All offline. V1's built kernel runs alone in an empty folder, as Kaggle, Colab and a local Jupyter
run it, with the embedded model's dataset attached, and installs from a wheel house, over old
versions.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nblib import REPOSITORY, __version__

sys.path.append(str(Path(__file__).parent))
from hosted_runtime import LACKING, make_runtime, make_wheel_house

V1 = "v1_sft_format"
ROOT = Path(__file__).parents[2]

# A user who has given the notebook no secrets.
_USERDATA = """
class SecretNotFoundError(Exception): ...


def get(name):
    raise SecretNotFoundError(name)
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return make_wheel_house(tmp_path_factory.mktemp("wheels") / "house", (*LACKING, "setuptools"))


@pytest.fixture
def new_runtime(tmp_path, house):
    """Make a runtime as a host does for every session, by a name: with nothing of one before."""

    def make(name):
        (tmp_path / name).mkdir()
        return make_runtime(tmp_path / name, house)

    return make


def install_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if {"wheel", "install"} & {*cell.metadata.get("tags", ())}]


@pytest.fixture
def attach_model(built):
    """Put the dataset of the embedded model, as it is built, where Kaggle mounts it."""
    (dataset,) = (built / "build" / "kernels").glob("nblib-embedded-*")

    def attach(inputs):
        shutil.copytree(dataset, inputs / "datasets" / "me" / dataset.name)
        return {"NBLIB_KAGGLE_INPUT": str(inputs)}

    return attach


@pytest.fixture
def run_v1(built, compilation_cache):
    """Run V1's built kernel as a host does: its first cell installs; return the run's folder."""

    def run(runtime, *parameters, **variables):
        kernel = built / "build" / "kernels" / V1 / f"{V1}.ipynb"
        command = ("-m", "papermill", "--no-progress-bar", "--no-log-output", kernel, "done.ipynb")
        given = ("-p", "PROFILE", "smoke", *parameters)
        ended = runtime.run(*command, *given, **variables, **compilation_cache)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        said = install_cells(runtime.folder / "done.ipynb")[1].outputs[0].text
        assert said.startswith("installing jax==0.10.2, flax==0.12.8, google-tunix==0.1.7")
        assert all(name in said for name in LACKING) and "scipy" not in said
        (result,) = (runtime.folder / "runs" / V1).glob("2*/result.json")
        return result.parent

    return run


def result_of(run):
    return json.loads((run / "result.json").read_text())


# Where Kaggle puts the output of another notebook, before and since it names the owner.
MOUNTS = (f"{V1}/runs", f"notebooks/me/{V1}/runs")
KAGGLE = {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "NBLIB_RUNS_DIR": "runs"}


def test_three_kaggle_sessions_that_read_each_others_output_equal_one_local_one(
    run_v1, new_runtime, attach_model, tmp_path
):
    attached, left = tmp_path / "input", []
    whole = run_v1(new_runtime("local"), **attach_model(attached))
    assert result_of(whole)["steps_left"] == 0
    over = ("-p", "SESSION_HOURS", "0.0001", "-p", "EVAL_AT_END", "False")
    for session, parameters in enumerate((over, over, ())):
        runtime, before = new_runtime(f"session{session}"), hashes(attached)
        run = run_v1(runtime, *parameters, **KAGGLE, NBLIB_KAGGLE_INPUT=str(attached))
        assert hashes(attached) == before
        left.append(result_of(run)["steps_left"])
        assert (weights(run) == weights(whole)) == (left[-1] == 0)
        attached = tmp_path / f"input{session}"
        attach_model(attached)
        output = attached / MOUNTS[session % 2]
        output.parent.mkdir(parents=True)
        (runtime.folder / "runs").rename(output)
        subprocess.run(["chmod", "-R", "a-w", attached], check=True)
    assert left[0] > left[1] > left[2] == 0


def weights(run):
    return (run / "export" / "model.safetensors").read_bytes()


def hashes(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def install_script(folder):
    """The source's first cell, and where nblib then comes from."""
    (cell,) = install_cells(ROOT / "notebooks" / f"{V1}.ipynb")
    script = folder / "first_cell.py"
    script.write_text(f"{cell.source}\nimport nblib\nprint(nblib.__file__, nblib.__version__)\n")
    return script


@pytest.fixture
def complete(tmp_path, house):
    """A runtime that has every pinned package, but no nblib."""
    return make_runtime(tmp_path, house, lacking=())


def test_from_a_badge_nblib_comes_from_the_repository_at_the_notebooks_version(complete, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "nblib", repository / "nblib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, repository)
    for command in ("init -q", "add .", "commit -q -m x", f"tag v{__version__}"):
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *command.split()]
        subprocess.run(git, cwd=repository, check=True)
    here = {  # git reads this folder in place of GitHub
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{REPOSITORY}",
    }
    done = complete.run(install_script(tmp_path), **here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "site-packages/nblib/__init__.py" in done.stdout
    assert done.stdout.endswith(f" {__version__}\n")


def test_on_colab_it_installs_and_runs_to_the_end(
    run_v1, new_runtime, attach_model, tmp_path, compilation_cache
):
    colab = tmp_path / "startup" / "google" / "colab"  # loaded there before the first cell
    colab.mkdir(parents=True)
    for name in ("__init__.py", "output.py"):  # jax imports the second where it sees the first
        (colab / name).touch()
    (colab / "userdata.py").write_text(_USERDATA)
    (tmp_path / "startup" / "sitecustomize.py").write_text("import google.colab\n")
    variables = {"PYTHONPATH": str(tmp_path / "startup"), **attach_model(tmp_path / "input")}
    runtime = new_runtime("colab")
    assert result_of(run_v1(runtime, **variables))["profile"] == "smoke"
    cells = install_cells(runtime.folder / "done.ipynb")
    _nothing_happens_again(runtime, cells, {**variables, **compilation_cache})


def _nothing_happens_again(runtime, cells, variables):
    """The same cells in another session: no output, no second of work."""
    cells = "\n".join(cell.source for cell in cells)
    code = "import time\n" + cells + "\nprint(round(time.process_time(), 2))"
    (runtime.folder / "again.py").write_text(code)
    again = runtime.run("again.py", **variables, PIP_FIND_LINKS="/nowhere")
    assert again.returncode == 0, again.stderr
    assert float(again.stdout) < 2


def test_in_a_checkout_its_own_nblib_is_used(complete, tmp_path):
    script = install_script(tmp_path)
    done = complete.run(
        "-c", f"import os; os.chdir('{ROOT}/notebooks'); exec(open('{script}').read())"
    )
    assert done.stdout == f"{ROOT}/notebooks/../nblib/__init__.py {__version__}\n", done.stderr
