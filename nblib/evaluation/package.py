"""A package: an export's folder with what an extractor needs besides the model, one file of JSON.

`extraction.json` says for each kind of page how it is asked and what answers it, and holds one
answer of the model, to try another engine on: by the same prompt, greedily, it must write the same.
All else is a plain model folder, which transformers, vLLM and llama.cpp (as GGUF) know.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nblib.evaluation.answers import Decoding, generate
from nblib.files import read_object
from nblib.models.folders import CONFIG_FILE
from nblib.models.names import RefModel, model_sha256
from nblib.tasks.extraction_kinds import PageKind, PageKinds
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import TEMPLATE, task_prompts
from nblib.tokens.grammar import task_grammars
from nblib.tokens.tokenizer import TOKENIZER_FILE

PACKAGE_FILE = "extraction.json"
_CANDIDATES = 8  # held-out pages of which one is the smoke item: the first that needs no grammar


class SmokeItem(BaseModel):
    """One page with what the model in memory answered, greedily.

    Attributes:
        task: Of its kind.
        prompt: The text whole, without the BOS token that stands before it.
        answer: By the schema, or of the words.
        unbound: What it writes without a schema: the same, where the model has learnt the form.
        completion_tokens: Of the answer, without the stop token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    system_prompt: str
    question: str
    prompt: str
    json_schema: dict[str, Any] | None
    words: tuple[str, ...]
    answer: str
    unbound: str
    prompt_tokens: int
    completion_tokens: int


class Package(BaseModel):
    """The content of `extraction.json`.

    Attributes:
        prompt_template: Where `{question}` is an instruction and its page, and `{system_prompt}`
            ends by an empty line where there is one.
        max_new_tokens: At which the answers of the evaluation were cut.
        smoke: None where no held-out page is of these kinds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1  # of these fields
    prompt_template: str
    max_new_tokens: int = Field(ge=1)
    kinds: tuple[PageKind, ...] = Field(min_length=1)
    smoke: SmokeItem | None


def package_files(
    task: Task, kinds: PageKinds, asked: Sequence[Example], decoding: Decoding
) -> Callable[[RefModel], Mapping[str, Any]]:
    """Return what makes of a tuned model the files of its package, name -> JSON; none of no kind.

    `asked` are pages that it has not learnt: one of them is the smoke item.
    """
    return partial(_files, task=task, kinds=kinds.kinds, asked=asked, decoding=decoding)


def read_package(folder: Path) -> Package:
    """Return what `extraction.json` says; ValueError, naming the file, where it cannot be read.

    Raises FileNotFoundError where there is none.
    """
    path = folder / PACKAGE_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {folder} is no package of an extractor; give the export of a run "
            "of the notebook extraction, made by this version or a later one"
        )
    try:
        return Package.model_validate(read_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {where}: {first['msg']}; export the model again") from error


def package_sha256(folder: Path) -> str:
    """Return a hash of all that a package's answers follow from."""
    digest = hashlib.sha256(model_sha256(str(folder)).encode())
    for name in (PACKAGE_FILE, CONFIG_FILE, TOKENIZER_FILE):
        path = folder / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _files(
    tuned: RefModel,
    *,
    task: Task,
    kinds: Sequence[PageKind],
    asked: Sequence[Example],
    decoding: Decoding,
) -> dict[str, Any]:
    if not kinds:
        return {}
    package = Package(
        prompt_template=TEMPLATE,
        max_new_tokens=decoding.max_new_tokens,
        kinds=tuple(kinds),
        smoke=_smoke(tuned, task, kinds, asked, decoding),
    )
    return {PACKAGE_FILE: package.model_dump(mode="json")}


def _smoke(
    tuned: RefModel,
    task: Task,
    kinds: Sequence[PageKind],
    asked: Sequence[Example],
    decoding: Decoding,
) -> SmokeItem | None:
    found = [(one, kind) for one in asked if (kind := _kind_of(one, kinds))][:_CANDIDATES]
    if not found:
        return None
    pages = [one for one, _ in found]
    prompts, grammars = task_prompts(task, pages), task_grammars(task, pages, tuned.tokenizer)
    free = generate(tuned, prompts, replace(decoding, constrained=False))
    bound = generate(tuned, prompts, replace(decoding, constrained=True), grammars)
    both = zip(free, bound, strict=True)
    same = [one["completion"] == other["completion"] for one, other in both]
    place = same.index(True) if True in same else 0
    page, kind = found[place]
    return SmokeItem(
        task=page.group,
        system_prompt=page.system_prompt or "",
        question=page.prompt,
        prompt=prompts[place],
        json_schema=kind.json_schema,
        words=kind.words,
        answer=bound[place]["completion"],
        unbound=free[place]["completion"],
        prompt_tokens=1 + len(tuned.tokenizer.encode(prompts[place])),  # with BOS
        completion_tokens=bound[place]["tokens"],
    )


def _kind_of(page: Example, kinds: Sequence[PageKind]) -> PageKind | None:
    alike = (kind for kind in kinds if kind.task == page.group)
    return next((one for one in alike if one.slot_specs == dict(page.slot_specs)), None)
