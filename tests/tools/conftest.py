"""What the tests of this folder share: built kernels, and a folder of notebooks of another task."""

import jupytext
import pytest

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
