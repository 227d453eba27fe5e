"""What the notebooks say of themselves, and the parameters that they take."""

import sys
from pathlib import Path

import jupytext
import pytest

from nblib import REPOSITORY, __version__
from nblib.tools.notebooks import (
    NotebookInfo,
    declared_parameters,
    notebook_infos,
    parse_values,
    read_notebook,
)

sys.path.append(str(Path(__file__).parent))
from conftest import write_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
NEXT = {
    "v0_foundation": ["v1_sft_format"],
    "v1_sft_format": ["v2_grpo"],
    "v2_grpo": ["eval"],
    "eval": ["v1_sft_format", "v2_grpo"],
    "envelope": ["v2_grpo"],
    "extraction": ["v2_grpo"],
    "proofs": ["v2_grpo"],
}


def test_each_notebook_says_what_it_is_in_both_of_its_files():
    infos = notebook_infos()
    assert infos == {
        "envelope": NotebookInfo(kind="sft", task="envelope"),
        "extraction": NotebookInfo(kind="sft", task="extraction"),
        "proofs": NotebookInfo(kind="sft", task="proofs"),
        "eval": NotebookInfo(kind="eval", task="gsm8k", reads=("v1_sft_format", "v2_grpo")),
        "v0_foundation": NotebookInfo(kind="foundation", task="gsm8k"),
        "v1_sft_format": NotebookInfo(kind="sft", task="gsm8k"),
        "v2_grpo": NotebookInfo(kind="grpo", task="gsm8k", reads=("v1_sft_format",)),
    }
    for name in infos:
        source, pair = (
            read_notebook(ROOT / "notebooks" / f"{name}{end}") for end in (".py", ".ipynb")
        )
        assert source.metadata.nblib == pair.metadata.nblib


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sft", "metadata.nblib: expected an object, got str"),
        ("{task: toy}", "metadata.nblib: lacks kind"),
        ("{kind: sft, reeds: []}", "unknown key 'reeds': expected kind, task, reads"),
        ("{kind: dpo}", "kind is 'dpo', expected one of foundation, sft, grpo, eval"),
        ("{kind: sft, task: 3}", "task is 3, expected text"),
        ("{kind: grpo, reads: toy}", "reads is 'toy', expected a list"),
        ("{kind: grpo, reads: [v9]}", r"reads is \['v9'\], expected a list of toy"),
    ],
)
def test_metadata_of_another_form_names_the_notebook(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "notebooks", "toy", f"nblib: {content}")
    with pytest.raises(ValueError, match=rf"toy.py: .*{said}"):
        notebook_infos()


def cell(source, tags=("parameters",)):
    return {"metadata": {"tags": list(tags)}, "source": source}


CELL = cell(
    """\
PROFILE = "auto"  # cpu = minutes
NUM_SAMPLES: int = 50
RATE = 0.5
EVAL_AT_END = True
DIFFICULTY_FILTER = [1, 2]
MODEL = None
MAX_LENGTH: int | None = None
NOTE: str | None = None
FOLDER = str()
LEVELS: list[int] = []
REWARDS = {}
"""
)
DECLARED = declared_parameters([cell("X = 1", tags=()), CELL])


def test_each_assignment_of_the_tagged_cell_is_a_parameter():
    types = {name: parameter.types for name, parameter in DECLARED.items()}
    assert types == {
        "PROFILE": (str,),
        "NUM_SAMPLES": (int,),
        "RATE": (float,),
        "EVAL_AT_END": (bool,),
        "DIFFICULTY_FILTER": (list,),
        "MODEL": (),
        "MAX_LENGTH": (int, type(None)),
        "NOTE": (str, type(None)),
        "FOLDER": (),
        "LEVELS": (list,),
        "REWARDS": (dict,),
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PROFILE", "cpu", "cpu"),
        ("PROFILE", "7", "7"),
        ("PROFILE", "None", "None"),
        ("NUM_SAMPLES", "-1", -1),
        ("RATE", "1", 1.0),
        ("RATE", "3e-4", 3e-4),
        ("EVAL_AT_END", "False", False),
        ("DIFFICULTY_FILTER", "[3, 4]", [3, 4]),
        ("MODEL", "embedded", "embedded"),
        ("MODEL", "3", 3),
        ("MAX_LENGTH", "None", None),
        ("MAX_LENGTH", "512", 512),
        ("NOTE", "None", None),
        ("NOTE", "12", "12"),
        ("FOLDER", "a/b", "a/b"),
        ("LEVELS", "[5]", [5]),
        ("REWARDS", "{'format_accuracy': 0.3}", {"format_accuracy": 0.3}),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(name, text, value):
    (parsed,) = parse_values(DECLARED, {name: text}).values()
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("NUM_SAMPLES", "many", "takes int (default 50), got text: many"),
        ("NUM_SAMPLES", "1.5", "takes int (default 50), got float: 1.5"),
        ("NUM_SAMPLES", "True", "takes int (default 50), got bool: True"),
        ("RATE", "True", "takes float (default 0.5), got bool: True"),
        ("EVAL_AT_END", "1", "takes bool (default True), got int: 1"),
        ("EVAL_AT_END", "false", "takes bool (default True), got text: false"),
        ("DIFFICULTY_FILTER", "(1, 2)", "takes list (default [1, 2]), got tuple: (1, 2)"),
        ("REWARDS", "format=0.3", "takes dict (default {}), got text: format=0.3"),
        ("MAX_LENGTH", "long", "takes int or None (default None), got text: long"),
    ],
)
def test_a_wrong_type_names_both(name, text, said):
    with pytest.raises(ValueError) as error:
        parse_values(DECLARED, {name: text})
    assert str(error.value) == f"parameter {name} {said}"


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(ValueError) as error:
        parse_values(DECLARED, {"num_sample": "3"})
    first, second = str(error.value).splitlines()
    assert first == "unknown parameter num_sample; did you mean NUM_SAMPLES?"
    assert second == f"it takes: {', '.join(DECLARED)}"


def test_a_notebook_without_the_tag_is_an_error():
    with pytest.raises(ValueError, match="no cell is tagged 'parameters'"):
        declared_parameters([cell("X = 1", tags=())])


def test_a_parameters_cell_with_a_magic_is_an_error():
    with pytest.raises(ValueError, match="no plain Python"):
        declared_parameters([cell("%matplotlib inline\nX = 1")])


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
        install, installed, rooms = code[0].source.partition(f'install_packages("{__version__}")\n')
        assert installed and "import" in rooms
        installs.add(install)
    (source,) = installs
    assert f"git+https://github.com/{REPOSITORY}@v{__version__}" in source
