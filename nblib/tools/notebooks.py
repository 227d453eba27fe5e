"""The notebooks of a checkout: where they are, what they are, and the parameters they take.

What a notebook does it says in its own metadata, under "nblib": see `NotebookInfo`. Its parameters
are the assignments of its cell tagged `parameters`. papermill only warns of an unknown parameter or
a wrong type (2.7.0), and its inspection misses lines with two equals signs or a `str | None`. Here
the cell is read as Python, and what does not fit is an error.
"""

import ast
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict

from nblib.files import read_json
from nblib.tools.metadata import Metadata, one_of

TAG = "parameters"
_PLAIN_TYPES = {t.__name__: t for t in (bool, int, float, str, list, dict, tuple)}
_NO_LITERAL = object()


class NotebookInfo(Metadata):
    """What a notebook is, as the header of its `.py` says.

    Example:
        # jupyter:
        #   nblib:
        #     kind: grpo
        #     task: envelope
        #     reads: [envelope]
    """

    kind: Annotated[str, one_of(["foundation", "sft", "grpo", "eval"])]
    task: str = ""
    reads: tuple[str, ...] = ()  # notebooks whose exports it starts from, or compares

    @property
    def is_tuned(self) -> bool:
        """Whether its export is a model made from another one."""
        return self.kind in ("sft", "grpo")


class _Cell(Metadata):
    model_config = ConfigDict(extra="ignore")

    cell_type: str
    metadata: dict[str, Any]
    source: str | list[str]


class _NotebookFile(Metadata):
    model_config = ConfigDict(extra="ignore")

    nbformat: int
    metadata: dict[str, Any]
    cells: list[_Cell]


def notebooks_folder() -> Path:
    """Return `notebooks/` here, else that of the checkout which holds this file."""
    here = Path("notebooks")
    return here if here.is_dir() else Path(__file__).parents[2] / "notebooks"


def list_notebooks() -> dict[str, str]:
    """Return name -> title (the first heading) of the notebooks there, in order of name."""
    titles = {}
    for path in sorted(notebooks_folder().glob("*.py")):
        lines = [line.removeprefix("#").strip() for line in path.read_text("utf-8").splitlines()]
        titles[path.stem] = next((line[2:] for line in lines if line.startswith("# ")), "")
    return titles


def notebook_infos() -> dict[str, NotebookInfo]:
    """Return name -> what it is, of the notebooks there that say so, in order of name.

    Raises ValueError naming a notebook whose metadata has another form.
    """
    sources = {path.stem: path for path in sorted(notebooks_folder().glob("*.py"))}
    found = {}
    for name, path in sources.items():
        content = read_notebook(path).metadata.get("nblib")
        if content is None:
            continue
        info = found[name] = NotebookInfo.checked(content, where=f"{path}: metadata.nblib")
        if not sources.keys() >= set(info.reads):
            expected = f"a list of {', '.join(sources)}"
            raise ValueError(f"{path}: reads is {content['reads']!r}, expected {expected}")
    return found


def find_notebook(name_or_path: str) -> Path:
    """Return a notebook's file: a `.py` or `.ipynb` by its path, or one in `notebooks/` by name.

    Raises ValueError naming those there, or a pair of which `check_pair` says that it differs.
    """
    path = Path(name_or_path)
    if path.suffix in (".py", ".ipynb") and path.is_file():
        return path
    for suffix in (".py", ".ipynb"):  # the .py is the source, the .ipynb its pair
        candidate = notebooks_folder() / (path.name + suffix)
        if candidate.is_file() and path.name == name_or_path:
            pair = candidate.with_suffix(".ipynb")
            if suffix == ".py" and pair.is_file():
                check_pair(pair)
            return candidate
    there = ", ".join(list_notebooks()) or "none"
    raise ValueError(f"unknown notebook {name_or_path!r}; in {notebooks_folder()}: {there}")


def check_pair(notebook: Path) -> None:
    """Raise ValueError where an `.ipynb` and the `.py` beside it hold other cells.

    Either may be the one that was edited: neither is taken silently.
    """
    both = (read_notebook(notebook), read_notebook(notebook.with_suffix(".py")))
    edited, source = ([cell.source for cell in one.cells] for one in both)
    if edited != source:
        raise ValueError(
            f"{notebook} is not what its .py says: run `make sync` first, which takes the .py's "
            f"cells; `python -m jupytext --to py:percent {notebook}` takes those of the .ipynb"
        )


def read_notebook(source: Path) -> Any:
    """Return a notebook, for this interpreter's kernel. Raises ValueError naming a file of none."""
    import jupytext
    import nbformat

    try:
        if source.suffix == ".ipynb":  # jupytext and nbformat take any JSON for one
            _NotebookFile.checked(read_json(source), where="its JSON")
        notebook = jupytext.read(source)
    except (ValueError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{source} is no notebook: {reason}") from error
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = kernel
    return notebook


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One assignment of the parameters cell.

    `types` are those declared by its annotation, else its default's; empty when neither tells: a
    default of None, or one that is no literal.
    """

    name: str
    default: str
    types: tuple[type, ...]


def declared_parameters(cells: Sequence[Mapping[str, Any]]) -> dict[str, Parameter]:
    """Read the assignments of the cells tagged `parameters-...` and of the one tagged `parameters`.

    That one is the last of them: papermill sets the values given right after it.
    Raises ValueError: no cell has the tag, or a cell is no Python.
    """
    tags = [" ".join(cell["metadata"].get("tags", ())) for cell in cells]
    if TAG not in tags:
        raise ValueError(
            f"no cell is tagged '{TAG}', so nothing can be set; tag the one with the defaults"
        )
    sources = [one["source"] for one, tag in zip(cells, tags, strict=True) if tag.startswith(TAG)]
    try:
        statements = ast.parse("\n".join(sources)).body
    except SyntaxError as error:
        raise ValueError(f"the parameters cell is no plain Python: {error}") from error
    found = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                types: tuple[type, ...] = ()
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                types = _annotated_types(statement.annotation)
            case _:
                continue
        default = ast.unparse(value)
        literal = _literal(default)
        if not types and literal is not None and literal is not _NO_LITERAL:
            types = (type(literal),)
        found[name] = Parameter(name=name, default=default, types=types)
    return found


def _annotated_types(annotation: ast.expr) -> tuple[type, ...]:
    """The plain types of `int`, `list[int]`, `int | None`; empty for anything else."""
    match annotation:
        case ast.Name(id=name) if name in _PLAIN_TYPES:
            return (_PLAIN_TYPES[name],)
        case ast.Constant(value=None):
            return (type(None),)
        case ast.Subscript(value=container):
            return _annotated_types(container)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _annotated_types(left) + _annotated_types(right)
    return ()


def parse_values(declared: Mapping[str, Parameter], given: Mapping[str, str]) -> dict[str, Any]:
    """Turn the text given for each parameter into a value of its type.

    A text parameter keeps the text as it is; for any other type it is read as a Python literal.

    Raises:
        ValueError: an unknown name (with the nearest and all known ones) or a wrong type.

    Example:
        >>> cell = {"metadata": {"tags": ["parameters"]}, "source": "EPOCHS = 1"}
        >>> parse_values(declared_parameters([cell]), {"EPOCHS": "3"})
        {'EPOCHS': 3}
    """
    for name in given:
        if name not in declared:
            nearest = difflib.get_close_matches(name.upper(), declared, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            known = ", ".join(declared) or "none"
            raise ValueError(f"unknown parameter {name}{hint}\nit takes: {known}")
    return {name: _parse_value(declared[name], text) for name, text in given.items()}


def _parse_value(parameter: Parameter, text: str) -> Any:
    types = parameter.types
    value = _literal(text)
    if type(value) is int and float in types and int not in types:
        value = float(value)
    if type(value) in types and not isinstance(value, str):
        return value
    if str in types:
        return text
    if not types:
        return text if value is _NO_LITERAL else value
    came = "text" if value is _NO_LITERAL else type(value).__name__
    expected = " or ".join(t.__name__ for t in types).replace("NoneType", "None")
    raise ValueError(
        f"parameter {parameter.name} takes {expected} (default {parameter.default}), "
        f"got {came}: {text}"
    )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # as its manual says
        return _NO_LITERAL
