"""Answers kept in a file, below the identity of the request: what is there is not asked again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.evaluation.statistics import Record
from nblib.files import read_jsonl
from nblib.models.names import RefModel
from nblib.tokens.grammar import Grammar

if TYPE_CHECKING:
    from nblib.evaluation.answers import Decoding

# What a record holds before it is scored.
ANSWER_KEYS = (
    *("id", "group", "question", "prompt", "completion", "reference"),
    *("truncated", "tokens", "max_new_tokens"),
)
SPECS_KEY = "slot_specs"  # a key more, where the task has slots


def request_identity(
    ref: RefModel,
    asked: Sequence[Record],
    decoding: "Decoding",
    samples: int,
    grammars: Sequence[Grammar] | None,
) -> dict[str, Any]:
    """Return what answers depend on; the prompts as they are asked, so that the form counts too."""
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
    }


def _hashed(lines: Iterable[str]) -> str:
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def read_kept(kept: Path, identity: Mapping[str, Any], ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the answers in the file, none where there is no file or it is of another request."""
    if not kept.exists():
        return []
    header, *answers = read_jsonl(kept) or [None]
    found = header.get("identity") if isinstance(header, dict) else None
    if not isinstance(found, dict):
        raise ValueError(
            f"{kept} holds no kept answers: expected an identity in its first line; remove it or "
            "name another file"
        )
    if found != identity:
        both = {**identity, **found}
        names = ", ".join(name for name in both if found.get(name) != identity.get(name))
        print(f"{kept} is of another {names}: asked again", flush=True)
        return []
    whole = [
        one["id"]
        for one in answers
        if isinstance(one, dict) and {*one} - {SPECS_KEY} == {*ANSWER_KEYS}
    ]
    count, round_size = len(answers), len(set(ids))
    if whole != ids[:count] or count % round_size:
        raise ValueError(f"{kept} is damaged: expected answers to these examples; remove it")
    print(f"{kept.stem}: {count} of {len(ids)} answers were there already", flush=True)
    return answers
