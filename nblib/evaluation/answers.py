"""Answers: a model is asked, its answers are scored and kept, in one way for every caller.

`generate` completes prompts, `ask` returns records without a score, `score_answers` makes a `Stage`
of them, `evaluate_stages` does it all. The keys of a record are those of `predictions.jsonl`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from flax import nnx

from nblib.evaluation.kept import ANSWER_KEYS, SPECS_KEY, keep, open_kept, request_identity
from nblib.evaluation.statistics import Record, grouped, in_order, stage_metrics
from nblib.files import to_jsonable
from nblib.models.compilation import computed_by
from nblib.models.decode import Sampling, decode
from nblib.models.memory import give_back_memory
from nblib.models.names import RefModel
from nblib.tasks.task import Example, Score, Task
from nblib.tokens.chat import task_prompts
from nblib.tokens.grammar import Grammar, task_grammars
from nblib.tokens.tokenizer import check_tokenizer, stop_tokens


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How completions are drawn. Temperature 0 is greedy, and the other values are then unused."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    batch_size: int = 64
    seed: int = 0
    constrained: bool = False  # to what the task's schema allows of each example

    def __post_init__(self) -> None:
        """Refuse what the sampler would take silently and answer wrongly."""
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature {self.temperature} must be at least 0, top_p {self.top_p} in (0, 1]"
            )
        if self.max_new_tokens < 1 or self.batch_size < 1:
            sizes = f"max_new_tokens {self.max_new_tokens} and batch_size {self.batch_size}"
            raise ValueError(f"{sizes} must be at least 1")

    def sampled(self, *, temperature: float, top_p: float) -> "Decoding":
        """Return the same setting with sampling."""
        return replace(self, temperature=temperature, top_p=top_p)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one model did on the items: metrics, metrics by group, and a record an item."""

    name: str
    metrics: Mapping[str, Any]  # as in result.json
    by_group: Mapping[str, Mapping[str, Any]]
    records: tuple[Record, ...]  # as in predictions.jsonl
    seconds: float = 0.0  # to answer and score; 0 for those of a file


def generate(
    ref: RefModel,
    prompts: Sequence[str],
    decoding: Decoding,
    grammars: Sequence[Grammar] | None = None,
    *,
    max_prompt_length: int = 0,
) -> list[dict[str, Any]]:
    """Return a record of each prompt with its `completion`, `tokens` and `truncated`.

    `grammars` say what each completion may be: `tokens.grammar` makes them, and decoding that is
    constrained needs them. Prompts of any lengths up to `max_prompt_length` tokens share what is
    compiled.

    `tokens` does not count the stop token; truncated means that none came. A sampled completion
    follows from the seed and its prompt's place in `prompts`; the batch's size does not change it.
    Raises TokenizerMismatch when the tokenizer is not the model's.
    """
    if decoding.constrained != (grammars is not None):
        found = "no grammars" if grammars is None else "grammars"
        raise ValueError(f"constrained is {decoding.constrained}, with {found}: `ask` makes them")
    tokenizer = ref.tokenizer
    check_tokenizer(tokenizer, size=ref.model.num_embed, sha256=None, where="the model")
    stop = stop_tokens(tokenizer)
    written = decode(
        ref.model,
        [[tokenizer.bos_id(), *ids] for ids in tokenizer.encode(list(prompts))],
        Sampling(temperature=decoding.temperature, top_p=decoding.top_p, seed=decoding.seed),
        stop=stop,
        max_new_tokens=decoding.max_new_tokens,
        batch_size=decoding.batch_size,
        mesh=ref.mesh,
        max_prompt_length=max_prompt_length,
        grammars=grammars,
    )
    records = []
    for prompt, tokens in zip(prompts, written, strict=True):
        ended = bool(tokens) and tokens[-1] in stop
        text = tokens[:-1] if ended else tokens
        facts = {"tokens": len(text), "truncated": not ended}
        records.append({"prompt": prompt, "completion": tokenizer.decode(text), **facts})
    return records


def ask(
    ref: RefModel,
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    style: str = "format",
    shots: Sequence[Example] = (),
    samples: int = 1,
    kept: Path | None = None,
    computed_by: str = "",
) -> list[dict[str, Any]]:
    """Return what a model answers, a record an example and sample, not yet scored.

    All examples are asked once, with the decoding's seed, then all again with the next seed.
    `style` is one of `tokens.chat.STYLES`; `shots`, worked examples, are for "few-shot".

    `kept` is a `.jsonl` file that takes the answers after every round, below the identity of all
    that they depend on, `computed_by` included; what it holds already is not asked again. A model
    counts by its name and its folder's `sha256`: a fine-tune in memory must have a name of its own.
    `seconds` of an answer are its share of its round. ValueError for a request that makes no sense,
    a schema that no grammar enforces, and a `kept` that is damaged or another file.
    """
    prompts = task_prompts(task, examples, style=style, shots=shots)
    asked = [_question(one, prompt) for one, prompt in zip(examples, prompts, strict=True)]
    grammars = task_grammars(task, examples, ref.tokenizer) if decoding.constrained else None
    identity = request_identity(ref, asked, decoding, samples, grammars, computed_by)
    total, limit = len(asked) * samples, dict[str, Any](max_new_tokens=decoding.max_new_tokens)
    answers = open_kept(kept, identity, [one["id"] for one in asked] * samples) if kept else []
    for done in range(len(answers) // len(asked), samples):
        began = time.perf_counter()
        written = generate(ref, prompts, replace(decoding, seed=decoding.seed + done), grammars)
        limit["seconds"] = (time.perf_counter() - began) / len(asked)
        came = [one | text | limit for one, text in zip(asked, written, strict=True)]
        answers += came
        if kept:
            keep(kept, identity, answers, total=total)
    return answers


def score_all(answers: Sequence[Record], task: Task) -> list[Score]:
    """Score the completions of records with `id`, `completion` and `reference`, as a reward does.

    Raises ValueError, by the item's id, for a reference that the task cannot score against.
    """
    scores = []
    for answer in answers:
        try:
            scores.append(task.score(answer["completion"], _example(answer)))
        except ValueError as error:
            raise ValueError(f"item {answer['id']!r}: {error}") from error
    return scores


def score_answers(name: str, answers: Sequence[Record], task: Task) -> Stage:
    """Return a stage of completions by any writer; a task's `verify` has the last word.

    Of a record no more is taken than `ANSWER_KEYS`, also where it was scored before. Raises
    ValueError for no records, and as `score_all` does.
    """
    scores: Sequence[Score] = score_all(answers, task)
    if task.verify is not None:
        completions = [answer["completion"] for answer in answers]
        scores = task.verify(completions, [_example(answer) for answer in answers], scores)
    records = [
        {"group": "", "truncated": None}
        | {key: answer[key] for key in (*ANSWER_KEYS, SPECS_KEY) if key in answer}
        | {"stage": name, **score.values}
        | {"answer": score.answer, "failure": score.failure, "details": dict(score.details)}
        | ({"slots": score.slots} if score.slots else {})
        | ({"weights": score.weights} if score.weights else {})
        for answer, score in zip(answers, scores, strict=True)
    ]
    return stage_of(name, records, task)


def stage_of(name: str, records: Sequence[Record], task: Task) -> Stage:
    """Return the stage of records that are scored; ValueError where there are none."""
    groups = grouped(records, itemgetter("group"))
    return Stage(
        name=name,
        metrics=stage_metrics(records, task),
        by_group={
            group: stage_metrics(groups[group], task) for group in in_order(filter(None, groups))
        },
        records=tuple(records),
    )


def evaluate_stages(
    ref: RefModel,
    stages: Mapping[str, tuple[Task, Decoding] | tuple[Task, Decoding, Sequence[Example]]],
    examples: Sequence[Example],
    *,
    enabled: bool = True,
    kept: Path | None = None,
) -> tuple[Stage, ...]:
    """Ask a model all examples once a stage, and score the completions.

    Each stage asks in its task's own form: zero-shot, or few-shot where worked examples follow its
    decoding. No stage at all when not `enabled`. What an earlier run has asked in the same way, on
    such a machine and by the same code, is read from the folder `kept`: `<stage>.jsonl`.
    """
    evaluated, by = [], computed_by(ref.mesh) if kept else ""
    for name, how in (stages if enabled else {}).items():
        task, decoding = how[:2]
        few: dict[str, Any] = {"style": "few-shot", "shots": how[2]} if len(how) == 3 else {}
        where: dict[str, Any] = {"kept": kept / f"{name}.jsonl", "computed_by": by} if kept else {}
        answers = ask(ref, task, examples, decoding, **few, **where)
        began = time.perf_counter() - sum(one["seconds"] for one in answers)
        stage = score_answers(name, answers, task)
        metrics = {**stage.metrics, "decoding": asdict(decoding)}
        metrics |= {"shots": [one.id for one in few["shots"]]} if few else {}
        evaluated.append(replace(stage, metrics=metrics, seconds=time.perf_counter() - began))
    give_back_memory()
    return tuple(evaluated)


def stage_of_rule(
    name: str,
    rule: Callable[[Example], str],
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
) -> Stage:
    """Return a stage of completions that a rule writes, such as a baseline without a model."""
    limit = {"truncated": False, "tokens": 0, "max_new_tokens": decoding.max_new_tokens}
    prompts = task_prompts(task, examples)
    answers = [
        _question(one, prompt) | {"completion": rule(one), **limit}
        for one, prompt in zip(examples, prompts, strict=True)
    ]
    return score_answers(name, answers, task)


def make_probe(
    ref: RefModel,
    task: Task,
    examples: Sequence[Example],
    *,
    max_new_tokens: int,
) -> Callable[[nnx.Module], float]:
    """Return a function from a model to its mean headline on these questions, asked greedily.

    It shows during a training what the rewards alone cannot: whether the answers get better. Give
    it questions of the train split, and a model as `ref` is, with other weights: all measurements
    share what is compiled.
    """
    decoding = Decoding(max_new_tokens=max_new_tokens, batch_size=len(examples))

    def mean_headline(model: nnx.Module) -> float:
        answers = ask(replace(ref, model=model), task, examples, decoding)
        scores = score_all(answers, task)
        return sum(score.values[task.headline] for score in scores) / len(scores)

    return mean_headline


def _question(example: Example, prompt: str) -> dict[str, Any]:
    return {
        "id": example.id,
        "group": example.group,
        "question": example.prompt,
        "prompt": prompt,
        "reference": to_jsonable(example.reference),
        **({SPECS_KEY: to_jsonable(example.slot_specs)} if example.slot_specs else {}),
    }


def _example(answer: Record) -> Example:
    return Example(
        id=answer["id"],
        prompt=answer.get("question", ""),
        completion="",  # no score may depend on it
        reference=answer["reference"],
        group=answer.get("group", ""),
        slot_specs=answer.get(SPECS_KEY, {}),
    )
