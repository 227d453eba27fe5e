"""What a notebook would do with its parameters: the shapes of its batches, and how many of each.

Nothing is loaded but the rows and, where it lies here, the model's tokenizer. The weights of a
published model are not downloaded to plan with; the lengths of its tokens are then estimated.
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

from nblib.hosts.profiles import SFT_PROFILES
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.published import GEMMA, find_model
from nblib.sources.datasets import get_dataset
from nblib.sources.rows import Row, SourceError, split_validation
from nblib.sources.wordproblems import LEVELS as ALL_LEVELS
from nblib.tasks.task import Example, Task, choose_examples
from nblib.tokens.batches import TokenizedExample, encode_task
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import BOS_ID, load_tokenizer
from nblib.tokens.training_data import training_data
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
class Work:
    """The batches of an SFT run, and what they are made of.

    Without a tokenizer the examples have a real one's lengths and no text.
    """

    batches: Sequence[TrainingInput]
    examples: tuple[TokenizedExample, ...]
    epochs: int
    tokenizer: spm.SentencePieceProcessor | None = None
    notes: tuple[str, ...] = ()

    @property
    def shapes(self) -> Mapping[tuple[int, int], int]:
        """How many batches there are of (rows, length)."""
        return Counter(batch.input_tokens.shape for batch in self.batches)

    @property
    def tokens_per_batch(self) -> float:
        """Tokens without padding, on average."""
        return self.epochs * sum(len(one.tokens) for one in self.examples) / len(self.batches)


def preflight_info(notebook: str) -> NotebookInfo:
    """Return what a notebook is. Raises PreflightError for one that trains nothing known here."""
    infos = {name: info for name, info in notebook_infos().items() if info.is_tuned}
    if notebook not in infos:
        known = ", ".join(infos)
        raise PreflightError(f"notebook {notebook!r} has no preflight: expected one of {known}")
    return infos[notebook]


def notebook_settings(
    notebook: str, target: Target, parameters: Mapping[str, str]
) -> SftSettings | GrpoSettings:
    """Return the settings that a notebook would run with on the target.

    Args:
        notebook: one of kind sft or grpo.
        target: its kind is the profile, unless a parameter says otherwise.
        parameters: name -> text as typed, checked as `run` checks them.

    Raises:
        PreflightError: another notebook.
        ValueError: an unknown parameter, a wrong type, or a value that the notebook would refuse.
    """
    kind = preflight_info(notebook).kind
    source = jupytext.read(notebooks_folder() / f"{notebook}.py")
    declared = declared_parameters(source.cells)
    given = {name: ast.literal_eval(one.default) for name, one in declared.items()}
    given |= parse_values(declared, parameters)
    given |= {"PROFILE": target.kind} if given["PROFILE"] == "auto" else {}
    if kind == "sft":
        return SftSettings.of(given)
    settings = GrpoSettings.of(given)  # an SFT's export has the shapes of what that began with
    return replace(settings, model=settings.model or SFT_PROFILES[settings.profile]["model"])


def sft_work(settings: SftSettings, task: Task, *, row_multiple: int) -> Work:
    """Return the batches that an SFT would train on, made as the notebook makes them.

    Raises PreflightError where the data is not at hand.
    """
    tokenizer = _tokenizer(settings.model)
    encoded = _encoded(tokenizer, task, _train_examples(settings, task))
    data = training_data(encoded, **settings.batching, row_multiple=row_multiple)
    left_out = f"{data.too_long} of {len(encoded)} examples over {data.max_length} tokens: left out"
    stand_in = f"{settings.model} is not here: its tokens are estimated from the texts"
    return Work(
        batches=list(data.batches),
        examples=data.examples,
        epochs=settings.num_epochs,
        tokenizer=tokenizer,
        notes=(*[left_out] * (data.too_long > 0), *[stand_in] * (tokenizer is None)),
    )


def estimated_tokens(text: str) -> int:
    """Return about how many of Gemma's tokens an English text has: words, digits, signs.

    >>> estimated_tokens("Ann has 12 pens.")
    6
    """
    return len(_PIECE.findall(text))


def few_questions(settings: GrpoSettings, task: Task) -> tuple[Example, ...]:
    """Return a few of the questions that a GRPO run would ask.

    Raises PreflightError where the data is not at hand.
    """
    rows = _train_rows(settings, num_train=_FEW, levels=settings.levels or ALL_LEVELS)
    return choose_examples(task, rows, _FEW, groups=settings.levels, seed=settings.seed)[0]


def _train_examples(settings: SftSettings, task: Task) -> tuple[Example, ...]:
    rows = _train_rows(
        settings,
        num_train=settings.num_samples,
        levels=settings.builtin_levels,
        long_hand=settings.long_hand,
    )
    chosen, _ = choose_examples(
        task, rows, settings.num_samples, groups=settings.levels, seed=settings.seed
    )
    return split_validation(chosen)[0]


def _train_rows(settings: SftSettings | GrpoSettings, **builtin: Any) -> tuple[Row, ...]:
    try:
        return get_dataset(
            settings.data, folder=settings.data_folder, num_test=1, seed=settings.seed, **builtin
        ).train
    except SourceError as error:
        raise PreflightError(f"how long the run is depends on its data: {error}") from error


def _tokenizer(name: str) -> spm.SentencePieceProcessor | None:
    """Return the tokenizer of a model that lies here; None for one that would be downloaded."""
    if name.rpartition(":")[2] in GEMMA:
        return None
    return load_tokenizer(find_model(name))


def _encoded(
    tokenizer: spm.SentencePieceProcessor | None, task: Task, examples: Sequence[Example]
) -> tuple[TokenizedExample, ...]:
    if tokenizer is not None:
        return encode_task(tokenizer, task, examples)
    return tuple(
        _stand_in(
            example.id, 1 + estimated_tokens(prompt), 1 + estimated_tokens(example.completion)
        )
        for example, prompt in zip(examples, task_prompts(task, examples), strict=True)
    )


def _stand_in(name: str, read: int, learnt: int) -> TokenizedExample:
    tokens: np.ndarray = np.full(read + learnt, BOS_ID + 2, np.int32)
    tokens[0] = BOS_ID
    mask = np.array([0] * read + [1] * learnt, np.float32)
    return TokenizedExample(id=name, tokens=tokens, loss_mask=mask)
