"""SVAMP: 1,000 one-step word problems, which show what a training on other data made worse.

Nothing is trained on them. Data: https://github.com/arkilpatel/SVAMP (Patel et al. 2021,
https://arxiv.org/abs/2103.07191), the published file SVAMP.json or `ChilleD/SVAMP` on the Hugging
Face hub.
"""

import os
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

from nblib.files import read_json, shown
from nblib.sources.hubs import load_hugging_face
from nblib.sources.rows import Row, SourceError, one_line

FOLDER_VARIABLE = "NBLIB_SVAMP_DIR"
FILE_NAME = "SVAMP.json"
HUGGING_FACE_NAME = "ChilleD/SVAMP"
HUB = "hub"
_KEYS = ("ID", "Body", "Question", "Equation", "Answer")


def svamp_rows(folder: str = "") -> tuple[Row, ...]:
    """Return the problems of a folder, of the one in NBLIB_SVAMP_DIR, or for "hub" of the hub.

    The hub is asked only when it is named: without a network that takes half a minute.

    Raises:
        SourceError: no folder was named, or what was named is not there; one line says which.
        ValueError: a broken record, by its place.
    """
    if folder == HUB:
        splits = load_hugging_face(HUGGING_FACE_NAME).values()
        return _rows(HUGGING_FACE_NAME, chain.from_iterable(splits))
    chosen = folder or os.environ.get(FOLDER_VARIABLE, "")
    if not chosen:
        raise SourceError(
            f"no SVAMP: {FOLDER_VARIABLE} is not set, and no folder or 'hub' is given"
        )
    path = Path(chosen).expanduser() / FILE_NAME
    try:
        records = read_json(path)
    except OSError as error:
        raise SourceError(one_line(error)) from error
    if not isinstance(records, list):
        raise ValueError(f"{path} holds {shown(records)}, expected a JSON list of problems")
    return _rows(str(path), records)


def _rows(origin: str, records: Iterable[object]) -> tuple[Row, ...]:
    rows = tuple(_row(f"{origin}, row {i}", record) for i, record in enumerate(records))
    if not rows:
        raise ValueError(f"{origin} holds no problems")
    return rows


def _row(place: str, record: object) -> Row:
    r"""Write a problem as a row of GSM8K: "( 8.0 - 3.0 )", 5.0 is `8 - 3 = <<8-3=5>>5\n#### 5`."""
    missing = [key for key in _KEYS if not isinstance(record, Mapping) or key not in record]
    if missing or not isinstance(record, Mapping):
        raise ValueError(f"{place}: lacks {', '.join(missing)}; expected a problem of SVAMP")
    body = str(record["Body"]).strip()
    question = f"{body}{'' if body.endswith(('.', '!', '?')) else '.'} {record['Question'].strip()}"
    result = _plain(str(record["Answer"]))
    equation = " ".join(map(_plain, str(record["Equation"]).split()))
    equation = equation.removeprefix("( ").removesuffix(" )").replace("( ", "(").replace(" )", ")")
    answer = f"{equation} = <<{equation.replace(' ', '')}={result}>>{result}\n#### {result}"
    return Row(
        id=f"svamp/{record['ID']}",
        fields={"question": question, "answer": answer},
        place=place,
        group="1",
    )


def _plain(number: str) -> str:
    return number.removesuffix(".0")
