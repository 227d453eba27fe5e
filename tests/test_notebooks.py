"""What a reader meets in the notebooks: short cells, few imports, an example early, and a path."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
MOST_LINES = 15
README = (ROOT / "README.md").read_text()


def code_cells(path):
    return [cell["source"] for cell in jupytext.read(path).cells if cell["cell_type"] == "code"]


def nodes(path):
    return [node for source in code_cells(path) for node in ast.walk(ast.parse(source))]


def room_of(node):
    """The room in an expression `room.name`, None for any other."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if (ROOT / "nblib" / node.value.id / "__init__.py").is_file():
            return node.value.id
    return None


def modules_reached(path):
    """The modules that hold the `room.name` expressions of a notebook."""
    reached = set()
    for node in nodes(path):
        if room := room_of(node):
            init = ast.parse((ROOT / "nblib" / room / "__init__.py").read_text())
            (homes,) = (one for one in ast.walk(init) if isinstance(one, ast.Dict))
            for module, names in ast.literal_eval(homes).items():
                if node.attr in names.split():
                    reached.add(f"nblib/{room}/{module}.py")
    return reached


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_is_long_and_none_holds_a_function_or_a_loop(path):
    for source in code_cells(path):
        lines = [line for line in source.splitlines() if line.strip()]
        assert len(lines) <= MOST_LINES, lines[0]
        statements = {type(node) for node in ast.parse(source).body}
        assert not statements & {ast.For, ast.While, ast.FunctionDef, ast.ClassDef}, lines[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_rooms_and_no_tool_of_a_checkout(path):
    imports = [line for line in path.read_text().splitlines() if re.match("(from|import) ", line)]
    of_nblib = [line for line in imports if "nblib" in line]
    assert len(of_nblib) == 2  # the install cell's, and the rooms
    assert "tools" not in " ".join(of_nblib)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_name_that_a_notebook_takes_from_a_room_is_public_there(path):
    names = {(room_of(node), node.attr) for node in nodes(path) if room_of(node)}
    assert len(names) > 15
    for room, name in names:
        assert name in import_module(f"nblib.{room}").__all__


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_call_of_a_room_fits_what_is_called(path):
    calls = [one for one in nodes(path) if isinstance(one, ast.Call) and room_of(one.func)]
    assert len(calls) > 15
    for call in calls:
        called = getattr(import_module(f"nblib.{room_of(call.func)}"), call.func.attr)
        keywords = {one.arg: None for one in call.keywords if one.arg}
        starred = any(isinstance(one, ast.Starred) for one in call.args)
        unpacked = starred or len(keywords) < len(call.keywords)
        bind = (
            inspect.signature(called).bind_partial if unpacked else inspect.signature(called).bind
        )
        arguments = [one for one in call.args if not isinstance(one, ast.Starred)]
        bind(*arguments, **keywords)  # TypeError, with the name that does not fit


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_first_example_is_shown_within_six_code_cells(path):
    assert "examples_table(" in "".join(code_cells(path)[:6])


def test_the_reading_path_of_v1_is_whole_and_takes_an_evening():
    section = README[README.index("### Read v1 in an evening") :].split("\n#", 2)[1]
    listed = re.findall(r"`(nblib/[\w/]+\.py)`", section)
    reached = modules_reached(ROOT / "notebooks" / "v1_sft_format.py")
    assert sorted(listed) == sorted(reached)
    lines = sum(len((ROOT / path).read_text().splitlines()) for path in listed)
    assert lines < 4000


@pytest.mark.parametrize(
    "room", sorted(path.parent for path in (ROOT / "nblib").glob("*/__init__.py"))
)
def test_no_public_name_of_a_room_is_that_of_a_module(room):
    names = set(getattr(import_module(f"nblib.{room.name}"), "__all__", ()))
    assert not names & {path.stem for path in room.glob("*.py")}  # the module would hide the name
