"""The page that a person reads after a run: one HTML file with nothing outside it.

A model's completion is shown, never trusted: everything is escaped, what cannot be seen is spelled
out, what is long is shortened, and the page's own policy forbids scripts. Nothing is measured here.
"""

import base64
import difflib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from nblib.report.plots import figure_png
from nblib.report.tables import RATE_MEANINGS, Table, in_words, rate_names, read_rate
from nblib.report.verdicts import Verdict
from nblib.files import write_text

_MOST_CHARACTERS, _MOST_LINES = 1500, 40  # of one completion: about a screenful
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")  # every character is in one of them
_ALIKE = 0.4  # share of words in common, from which on differences are marked


def write_report(
    path: Path,
    *,
    title: str,
    lead: str,
    facts: Mapping[str, str],
    verdicts: Sequence[Verdict],
    stages: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Figure],
    samples: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    manifest: Mapping[str, Any],
    warnings: Sequence[str] = (),
    rollouts: Sequence[Mapping[str, Any]] = (),
    tables: Mapping[str, Table] = MappingProxyType({}),
) -> None:
    """Write the report of one run as a single HTML file, whole or not at all.

    Args:
        path: The file, usually the run's `report.html`.
        title: Heading of the page.
        lead: One paragraph: what was done and what came of it.
        facts: Short facts, name -> text (model, data, minutes ...).
        verdicts: Targets, met or not.
        stages: Stages of `result.json`.
        figures: Caption -> figure.
        samples: What `pick_samples` gives.
        config: Every parameter of the run.
        manifest: Versions, commit, hashes, devices.
        warnings: What a reader must know first, one sentence each.
        rollouts: Records of `rollouts.jsonl` to show, in the order of the training.
        tables: Heading -> table, shown below the figures.

    Raises:
        ValueError: a stage has a rate without its interval or its `n`.
    """
    page = _template().render(
        title=title,
        lead=lead,
        facts=facts,
        verdicts=verdicts,
        stages=stages,
        rates=rate_names(stages),
        figures={caption: _base64(figure) for caption, figure in figures.items()},
        samples=samples,
        details={"Settings": flatten(config), "Versions and hashes": flatten(manifest)},
        warnings=warnings,
        rollouts=rollouts,
        tables=tables,
    )
    write_text(path, page)


def visible(value: object) -> str:
    r"""Text of any value with every character that hides or reorders text spelled out.

    >>> visible("18\u202e81\x00")
    '18⟨U+202E⟩81⟨U+0000⟩'
    """
    if isinstance(value, Markup):  # made by `marked`, which has gone through here
        return value
    text = str(value)
    if text.isprintable():
        return text
    return "".join(map(_spelled_out, text))


def shorten(text: str, *, characters: int = _MOST_CHARACTERS, lines: int = _MOST_LINES) -> str:
    """Text of at most about `characters` and `lines`: its beginning and end, with what is left out.

    The end is kept because that is where an answer stands.
    """
    if len(text) > characters:
        head, tail = text[: characters * 2 // 3], text[-(characters // 3) :]
        text = f"{head}\n… {len(text) - len(head) - len(tail):,} characters left out …\n{tail}"
    rows = text.split("\n")
    if len(rows) > lines:
        first, last = rows[: lines * 2 // 3], rows[-(lines // 3) :]
        left_out = f"… {len(rows) - len(first) - len(last):,} lines left out …"
        text = "\n".join([*first, left_out, *last])
    return text


def marked(text: str, before: str | None) -> Markup:
    """Text with the words that `before` does not have there underlined, everything escaped.

    Nothing is marked where there is no `before`, or where the two have so little in common that
    all would be marked.
    """
    words, others = _WORDS.findall(text), _WORDS.findall(before or "")
    matcher = difflib.SequenceMatcher(None, others, words, autojunk=False)
    if before is None or matcher.ratio() < _ALIKE:
        return Markup(escape(visible(text)))
    pieces = []
    for kind, _, _, start, end in matcher.get_opcodes():
        piece = escape(visible("".join(words[start:end])))
        pieces.append(Markup("<ins>{}</ins>").format(piece) if kind != "equal" else piece)
    return Markup("").join(pieces)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted name -> text; lists are written as JSON.

    >>> flatten({"versions": {"jax": "0.10.2"}, "levels": [1, 2]})
    {'versions.jax': '0.10.2', 'levels': '[1, 2]'}
    """
    return dict(_leaves(value, prefix))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _leaves(entry, f"{prefix}{key}.")
        else:
            is_text = isinstance(entry, str)
            yield f"{prefix}{key}", entry if is_text else json.dumps(entry, default=str)


def _spelled_out(character: str) -> str:
    # Zs: the spaces of other widths; they are harmless and common in prose.
    plain = character.isprintable() or character in "\n\t"
    if plain or unicodedata.category(character) == "Zs":
        return character
    return f"⟨U+{ord(character):04X}⟩"


def _template() -> jinja2.Template:
    source = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        finalize=visible,  # applied to every value the template writes, so that none is forgotten
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shorten": shorten, "in_words": in_words, "marked": marked}
    environment.globals |= {"read_rate": read_rate, "meanings": RATE_MEANINGS}
    return environment.from_string(source)


def _base64(figure: Figure) -> str:
    return base64.b64encode(figure_png(figure)).decode("ascii")
