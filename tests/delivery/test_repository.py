"""Owner, name and version of the repository, wherever a notebook or the README names them."""

from pathlib import Path

import jupytext
import pytest

from nblib import REPOSITORY, __version__
from nblib.delivery.repository import stamp, stamp_files

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
NEXT = {
    "v0_foundation": ["v1_sft_format"],
    "v1_sft_format": ["v2_grpo"],
    "v2_grpo": ["eval"],
    "eval": ["v1_sft_format", "v2_grpo"],
}


@pytest.mark.parametrize("path", [*NOTEBOOKS, ROOT / "README.md"], ids=lambda path: path.stem)
def test_every_file_names_this_repository_and_version(path):
    text = path.read_text()
    assert stamp(text) == text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_badges_facts_and_a_link_to_the_next(path):
    title = jupytext.read(path).cells[0].source
    page = f"https://github.com/{REPOSITORY}/blob/main/notebooks"
    assert title.startswith("# ")
    assert "[![Colab][colab-badge]][colab] [![Kaggle][kaggle-badge]][kaggle]" in title
    own = f"{REPOSITORY}/blob/main/notebooks/{path.stem}.ipynb"
    assert f"\n[colab]: https://colab.research.google.com/github/{own}\n" in title
    assert f"\n[kaggle]: https://kaggle.com/kernels/welcome?src={page}/{path.stem}.ipynb\n" in title
    for fact in ("Goal", "Hardware", "Minutes", "Inputs", "Outputs", "Next"):
        assert f"| **{fact}** | " in title
    for following in NEXT[path.stem]:
        assert f"[{following}]" in title.partition("\n[colab]:")[0]
        assert f"\n[{following}]: {page}/{following}.ipynb" in title


def test_the_install_cell_is_the_same_in_all_and_comes_before_every_import():
    installs = set()
    for path in NOTEBOOKS:
        code = [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]
        assert code[0].metadata["tags"] == ["install"]
        installs.add(code[0].source)
    (source,) = installs
    assert f"git+https://github.com/{REPOSITORY}@v{__version__}" in source
    assert len(source.splitlines()) <= 15


def test_another_owner_and_version_reach_every_place(tmp_path, monkeypatch):
    path = tmp_path / "v1.py"
    before = NOTEBOOKS[0].read_text()
    path.write_text(before)
    assert stamp_files([path]) == []
    monkeypatch.setattr("nblib.delivery.repository.REPOSITORY", "me/my.fork")
    monkeypatch.setattr("nblib.delivery.repository.__version__", "1.2.0")
    assert stamp_files([path]) == [path]
    after = path.read_text()
    assert REPOSITORY not in after and after.count("me/my.fork") == before.count(REPOSITORY) > 3
    assert "me/my.fork@v1.2.0" in after and 'install_packages("1.2.0")' in after
