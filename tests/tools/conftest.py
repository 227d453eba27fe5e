"""What the tests of this folder share: built kernels, notebooks of another task, runs."""

import jupytext
import pytest

from nblib.files import write_json, write_jsonl
from nblib.tools.kernels import build_kernels


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with `build/kernels/`, as `python -m nblib kernels build` leaves it."""
    folder = tmp_path_factory.mktemp("built")
    (folder / ".env").write_text("NBLIB_ENDPOINT_KEY=sk-of-the-file-dot-env\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        build_kernels()
    return folder


def write_notebook(folder, name, header):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    cell = '# %% tags=["parameters"]\nPROFILE = "auto"\nMODEL = ""\nNUM_SAMPLES = 40\n'
    path.write_text(
        f"# ---\n# jupyter:\n#   {header}\n# ---\n\n# %% [markdown]\n# # A title\n\n{cell}"
    )
    jupytext.write(jupytext.read(path), path.with_suffix(".ipynb"))


@pytest.fixture
def envelope(tmp_path, monkeypatch):
    """Notebooks that nblib does not know: an SFT, a GRPO that reads it, and a plain one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    folder = tmp_path / "notebooks"
    write_notebook(folder, "envelope", "nblib: {kind: sft, task: envelope}")
    write_notebook(folder, "a_grpo", "nblib: {kind: grpo, task: envelope, reads: [envelope]}")
    write_notebook(folder, "plain", "kernelspec: {name: python3, display_name: Python 3}")
    return folder


@pytest.fixture
def write_run(tmp_path, monkeypatch):
    """Write a run's folder under NBLIB_RUNS_DIR; None leaves a file out, text is written as is."""
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))

    def write(run, config=None, metrics=None, result=None, *, notebook="v1", series=""):
        path = tmp_path / "runs" / notebook / run
        name = f"metrics_{series}.jsonl" if series else "metrics.jsonl"
        path.mkdir(parents=True, exist_ok=True)
        for file, content in {"config.json": config, name: metrics, "result.json": result}.items():
            if isinstance(content, str):
                (path / file).write_text(content)
            elif file.endswith("l") and content is not None:
                write_jsonl(path / file, content)
            elif content is not None:
                write_json(path / file, content)
        return path

    return write
