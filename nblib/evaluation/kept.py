"""Answers kept in a file, below the identity of the request: what is there is not asked again.

{"identity": {"model_sha256": "5ab1...", "decoding": {...}}}
{"id": "gsm8k/test/0", "completion": "2 + 2 = 4", ...}
{"id": "gsm8k/test/1", ...                          <- half a line: the program was killed here
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.evaluation.statistics import Record
from nblib.files import append_jsonl, parse_json, write_jsonl
from nblib.models.names import RefModel
from nblib.models.processes import in_first
from nblib.tokens.grammar import Grammar

if TYPE_CHECKING:
    from nblib.evaluation.answers import Decoding

# What a record holds before it is scored.
ANSWER_KEYS = (
    *("id", "group", "question", "prompt", "completion", "reference"),
    *("truncated", "tokens", "max_new_tokens"),
)
SPECS_KEY = "slot_specs"  # a key more, where the task has slots
SECONDS_KEY = "seconds"  # and one that older files lack


def request_identity(
    ref: RefModel,
    asked: Sequence[Record],
    decoding: "Decoding",
    samples: int,
    grammars: Sequence[Grammar] | None,
    computed_by: str = "",
) -> dict[str, Any]:
    """Return what answers depend on; the prompts as they are asked, so that the form counts too.

    Raises ValueError for a request that makes no sense.
    """
    _check_request(asked, decoding, samples)
    schemas, how = {}, asdict(decoding)
    if grammars is None:
        del how["constrained"]  # so that answers kept before there were grammars are found again
    else:
        schemas = {"schemas": _hashed(one.schema for one in grammars)}
    return {
        "model": ref.name,
        "model_sha256": ref.sha256,
        **ref.scaling,
        "examples": _hashed(json.dumps([*one.values()]) for one in asked),
        "decoding": how,
        "samples": samples,
        **schemas,
        **({"computed_by": computed_by} if computed_by else {}),
    }


def _check_request(asked: Sequence[Record], decoding: "Decoding", samples: int) -> None:
    """Refuse, by a ValueError, a request that makes no sense."""
    if not asked:
        raise ValueError("got 0 examples: expected at least one")
    ((often, count),) = Counter(one["id"] for one in asked).most_common(1)
    if count > 1:
        raise ValueError(f"example {often!r} repeats: expected ids of their own")
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1")
    if samples > 1 and decoding.temperature == 0:
        raise ValueError("temperature is 0, expected more: greedy answers are all the same")


def _hashed(lines: Iterable[str]) -> str:
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


class OtherRequest(ValueError):
    """The file holds the answers to another request; the message says in what they differ."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Records appended to a file as they come, below the identity of what they depend on.

    A kill leaves every record that was appended; half a line at the end is none.
    """

    path: Path
    records: list[Any]  # that were there already, and those that came

    def append(self, *records: Any) -> None:
        """Add records, and have them on the disk."""
        append_jsonl(self.path, *records, durable=True)
        self.records.extend(records)


def open_journal(path: Path, identity: Mapping[str, Any], *, over: bool = False) -> Journal:
    """Return a new journal, or go on with the one that the file holds.

    Raises OtherRequest for the journal of another identity, which `over` replaces, and ValueError
    for a file of another kind, or one that is damaged before its end.
    """
    if not path.exists():
        return _new_journal(path, identity)
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    header, *lines = whole.splitlines() or [b""]
    found = _identity(header)
    if found is None:
        raise ValueError(
            f"{path} holds no kept answers: expected an identity in its first line; remove it or "
            "name another file"
        )
    if found != identity:
        both = {**identity, **found}
        names = ", ".join(name for name in both if found.get(name) != identity.get(name))
        if over:
            print(f"{path} is of another {names}: asked again", flush=True)
            return _new_journal(path, identity)
        raise OtherRequest(names)
    if whole != content:
        os.truncate(path, len(whole))
    return Journal(path=path, records=[_record(path, n, one) for n, one in enumerate(lines, 2)])


def open_kept(kept: Path, identity: Mapping[str, Any], ids: Sequence[str]) -> list[Any]:
    """Return the kept answers to one request; those to another are given up.

    Of several processes all get those of the first one's file, or some would ask and others not.
    Raises ValueError where the file holds other answers than to the examples with these ids.
    """
    return in_first(lambda: _kept_answers(kept, identity, ids))


def _kept_answers(kept: Path, identity: Mapping[str, Any], ids: Sequence[str]) -> list[Any]:
    answers = open_journal(kept, identity, over=True).records
    whole = [
        one["id"]
        for one in answers
        if isinstance(one, dict) and {*one} - {SPECS_KEY, SECONDS_KEY} == {*ANSWER_KEYS}
    ]
    if whole != ids[: len(answers)]:
        raise ValueError(f"{kept} is damaged: expected answers to these examples; remove it")
    if rest := len(answers) % len(set(ids)):  # a round is asked whole
        del answers[-rest:]
    if answers:
        print(f"{kept.stem}: {len(answers)} of {len(ids)} answers were there already", flush=True)
    return answers


def keep(kept: Path, identity: Mapping[str, Any], answers: Sequence[Record], *, total: int) -> None:
    """Write all answers so far, whole or not at all: another run may keep its own there now."""
    write_jsonl(kept, [{"identity": identity}, *answers])
    print(f"{kept.stem}: {len(answers)} of {total} answers", flush=True)


def _new_journal(path: Path, identity: Mapping[str, Any]) -> Journal:
    write_jsonl(path, [{"identity": identity}])
    return Journal(path=path, records=[])


def _identity(line: bytes) -> dict[str, Any] | None:
    try:
        header = parse_json(line)
    except ValueError:
        return None
    found = header.get("identity") if isinstance(header, dict) else None
    return found if isinstance(found, dict) else None


def _record(path: Path, number: int, line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        raise ValueError(f"{path}:{number}: expected one JSON value, {error}") from error
