"""What a notebook's run computes on: its settings, its batches, the questions of its rollouts.

Nothing is loaded but the rows and, where it is on this machine, the model's tokenizer. Weights of a
published model are not downloaded for this; the lengths of its examples are then estimated.
"""

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jupytext
import numpy as np
import sentencepiece as spm
from tunix.sft.peft_trainer import TrainingInput

from nblib.hosts.profiles import profile_tables
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.published import GEMMA, find_model
from nblib.sources.datasets import get_dataset
from nblib.sources.rows import Row, SourceError, split_validation
from nblib.sources.wordproblems import LEVELS as ALL_LEVELS
from nblib.tasks.task import Example, Task, choose_examples
from nblib.tokens.batches import TokenizedExample, encode_task
from nblib.tokens.batching import training_data
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import BOS_ID, load_tokenizer
from nblib.tools.notebooks import (
    NotebookInfo,
    declared_parameters,
    notebook_infos,
    notebooks_folder,
    parse_values,
)
from nblib.tools.preflight.targets import PreflightError, Target

_FEW = 8  # questions: among as many there is a group whose rewards differ
_PIECE = re.compile(r"\d|[^\W\d_]+|[^\w\s]|_|\n+")  # digits one by one, as Gemma has them


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The batches of an SFT run and their examples: of estimated lengths without a tokenizer."""

    settings: SftSettings
    batches: Sequence[TrainingInput]
    examples: tuple[TokenizedExample, ...]
    tokenizer: spm.SentencePieceProcessor | None = None
    notes: tuple[str, ...] = ()

    @property
    def shapes(self) -> Mapping[tuple[int, int], int]:
        """How many batches there are of (rows, length)."""
        return Counter(batch.input_tokens.shape for batch in self.batches)

    @property
    def tokens_per_batch(self) -> float:
        """Mean tokens of a batch without padding."""
        tokens = sum(len(one.tokens) for one in self.examples)
        return self.settings.num_epochs * tokens / len(self.batches)


def preflight_info(notebook: str) -> NotebookInfo:
    """Return what a notebook is. Raises PreflightError for one that tunes no model."""
    infos = {name: info for name, info in notebook_infos().items() if info.is_tuned}
    if notebook not in infos:
        known = ", ".join(infos)
        raise PreflightError(f"notebook {notebook!r} has no preflight: expected one of {known}")
    return infos[notebook]


def notebook_settings(
    notebook: str, target: Target, parameters: Mapping[str, str]
) -> SftSettings | GrpoSettings:
    """Return the settings that a notebook would run with; the target's kind is its profile "auto".

    Raises PreflightError for another notebook, and ValueError for an unknown parameter, a wrong
    type, or a value that the notebook would refuse.
    """
    kind = preflight_info(notebook).kind
    declared = declared_parameters(jupytext.read(notebooks_folder() / f"{notebook}.py").cells)
    given = {name: ast.literal_eval(one.default) for name, one in declared.items()}
    given |= parse_values(declared, parameters)
    given |= {"PROFILE": target.kind} if given["PROFILE"] == "auto" else {}
    if kind == "sft":
        return SftSettings.of(given)
    settings = GrpoSettings.of(given)
    # An SFT's export has the shapes of what that began with.
    start = profile_tables("sft")[settings.profile]["model"]
    return replace(settings, model=settings.model or start)


def sft_workload(settings: SftSettings, task: Task, *, row_multiple: int) -> Workload:
    """Return the batches that an SFT would train on, made as the notebook makes them.

    Raises PreflightError where the data is not on this machine and cannot be had.
    """
    downloaded = settings.model.rpartition(":")[2] in GEMMA
    tokenizer = None if downloaded else load_tokenizer(find_model(settings.model))
    rows = _train_rows(
        settings,
        num_train=settings.num_samples,
        levels=settings.builtin_levels,
        long_hand=settings.long_hand,
        slugs=settings.slugs,
    )
    chosen, _ = choose_examples(
        task, rows, settings.num_samples, groups=settings.levels, seed=settings.seed
    )
    examples, _ = split_validation(chosen)
    encoded = encode_task(tokenizer, task, examples) if tokenizer else _estimated(task, examples)
    data = training_data(encoded, (), settings.batching, row_multiple=row_multiple)
    left_out = f"{data.too_long} of {len(encoded)} examples over {data.max_length} tokens: left out"
    estimate = f"{settings.model} is not here: its tokens are estimated from the texts"
    return Workload(
        settings=settings,
        batches=list(data.batches),
        examples=data.examples,
        tokenizer=tokenizer,
        notes=(*[left_out] * (data.too_long > 0), *[estimate] * downloaded),
    )


def few_questions(settings: GrpoSettings, task: Task) -> tuple[Example, ...]:
    """Return a few of the questions that a GRPO run would ask. Raises as `sft_workload` does."""
    rows = _train_rows(settings, num_train=_FEW, levels=settings.levels or ALL_LEVELS)
    return choose_examples(task, rows, _FEW, groups=settings.levels, seed=settings.seed)[0]


def estimated_tokens(text: str) -> int:
    """Return about how many of Gemma's tokens an English text has: words, digits, signs."""
    return len(_PIECE.findall(text))


def _train_rows(settings: SftSettings | GrpoSettings, **builtin: Any) -> tuple[Row, ...]:
    builtin |= {"task": settings.task, "folder": settings.data_folder, "seed": settings.seed}
    try:
        return get_dataset(settings.data, num_test=1, **builtin).train
    except SourceError as error:
        raise PreflightError(f"how long the run is depends on its data: {error}") from error


def _estimated(task: Task, examples: Sequence[Example]) -> tuple[TokenizedExample, ...]:
    """Return examples of estimated lengths: BOS, then one token over and over."""
    found = []
    for example, prompt in zip(examples, task_prompts(task, examples), strict=True):
        asked, learnt = 1 + estimated_tokens(prompt), 1 + estimated_tokens(example.completion)
        tokens = np.array([BOS_ID, *[BOS_ID + 2] * (asked + learnt - 1)], np.int32)
        mask = np.array([0] * asked + [1] * learnt, np.float32)
        found.append(TokenizedExample(id=example.id, tokens=tokens, loss_mask=mask))
    return tuple(found)
