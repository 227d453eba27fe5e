"""Links into the repository: notebooks and README name owner, name and version as literals.

`nblib.REPOSITORY` and `nblib.__version__` are the one place; `make sync` stamps them into the
files, and a test finds a file that was forgotten.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from nblib import REPOSITORY, __version__
from nblib.files import write_text

_PAGE = re.compile(r"(github(?:\.com)?/)[\w.-]+/[\w.-]+(?=/blob/main/|@v\d)")
_VERSION = re.compile(r'(?<=@v)[\d.]+(?=")|(?<=install_packages\(")[\d.]+(?="\))')


def stamp(text: str) -> str:
    """Return the text with each link and install cell naming this repository and version.

    >>> stamp("https://github.com/somebody/fork/blob/main/notebooks/eval.ipynb")
    'https://github.com/nblib-suite/nblib/blob/main/notebooks/eval.ipynb'
    """
    return _VERSION.sub(__version__, _PAGE.sub(rf"\1{REPOSITORY}", text))


def stamp_files(paths: Sequence[Path]) -> list[Path]:
    """Stamp the files that need it, and return those."""
    changed = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if stamp(text) != text:
            write_text(path, stamp(text))
            changed.append(path)
    return changed
