"""A judge: a model behind an endpoint, asked of each pair of unequal values whether they agree.

A deterministic comparison comes first: asked is only what it leaves unequal in slots whose
comparator is "judge" (`tasks.judging`). One slot, one question, one verdict. A judge is calibrated
before it is believed (`evaluation.calibration`): of one that is not, nothing is asked about stages.

Three things are kept apart from "not equivalent": `unsure`, which the judge says itself; `failed`,
where it gave no verdict; and what was not asked. Each leaves the answer as wrong as it was, so a
judged figure has an upper end, at which all of them were equivalent.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.evaluation.answers import Stage, score_answers
from nblib.evaluation.calibration import Calibration, calibrate
from nblib.evaluation.closed_questions import ClosedQuestions, Verdict
from nblib.evaluation.kept import SPECS_KEY
from nblib.files import write_json
from nblib.sources.endpoint import Client, endpoint_from_environment
from nblib.tasks.judging import Pair, accepted_specs, pairs_of
from nblib.tasks.task import Example, Task

JUDGES = ("", "endpoint")
VERDICTS = ("equivalent", "not_equivalent", "unsure")
OUTCOMES = (*VERDICTS, "failed", "unsent")
_KEPT, _RESULT = "judge.jsonl", "judge.json"  # in a run's folder
_ASKED = """\
Two people read the same page and filled in the same slot of a form. Do both values say the same?
Letters' case, punctuation, white space and an article do not matter. Another number, another name \
and a detail more or less do.

Slot: {slot}
First value: {gold}
Second value: {answer}

Answer with one JSON object and nothing else: {{"verdict": "equivalent"}}, \
{{"verdict": "not_equivalent"}}, or {{"verdict": "unsure"}} where it cannot be told."""


class Judge(ClosedQuestions[Pair]):
    """Gives verdicts on pairs; what its client's file holds is not asked again."""

    words = VERDICTS

    def text(self, one: Pair) -> str:
        """Return what is asked of a pair; its values stay within their quotes."""
        slot = f"{one.slot} ({one.meaning})" if one.meaning else one.slot
        gold, answer = (json.dumps(text, ensure_ascii=False) for text in (one.gold, one.answer))
        return _ASKED.format(slot=slot, gold=gold, answer=answer)


def find_judge(name: str, folder: Path, *, requests: int) -> Judge | None:
    """Return the judge that a notebook's parameter names; None, and a line why, for none.

    `folder` is the run's, which keeps what was asked; `requests` are what the run may send in all,
    what it sent before it was killed included. Raises ValueError where the endpoint is not set.
    """
    if not name:
        print(
            'no judge: unequal values of slots with "compare": "judge" count as wrong. Set JUDGE = '
            '"endpoint", and NBLIB_JUDGE_URL, NBLIB_JUDGE_MODEL and NBLIB_JUDGE_KEY in the '
            "environment or in .env"
        )
        return None
    client = Client(endpoint_from_environment("JUDGE"), path=folder / _KEPT)
    client.limit(requests=requests)
    return Judge(client)


@dataclass(frozen=True, kw_only=True)
class JudgedStage:
    """A stage with the verdicts on its pairs."""

    name: str
    verdicts: Mapping[Pair, Verdict]  # "unsent" where the judge is not calibrated
    before: Mapping[str, Any]  # the stage's metrics, without a judge
    after: Mapping[str, Any] | None = None  # with what is equivalent; None: not calibrated
    at_most: Mapping[str, Any] | None = None  # with what is unsure, failed or unsent as well
    unsure: tuple[Mapping[str, Any], ...] = ()  # records: stage, id, slot, gold, answer, verdict

    @property
    def counts(self) -> dict[str, int]:
        """How many different pairs have each outcome."""
        found: Counter[str] = Counter(one.word for one in self.verdicts.values())
        return {word: found[word] for word in OUTCOMES}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a judge said of a run, and how far it is to be believed."""

    model: str
    headline: str
    calibration: Calibration
    stages: tuple[JudgedStage, ...]
    sent: int  # requests, attempts again included
    stopped: str  # why not all was asked; "" where it was

    @property
    def unsure(self) -> list[Mapping[str, Any]]:
        """The pairs that a person should look at, as records."""
        return [record for stage in self.stages for record in stage.unsure]

    @property
    def record(self) -> dict[str, Any]:
        """What `judge.json` holds; the figures with a judge are None where it is not calibrated."""
        names = (self.headline, f"{self.headline}_ci95")
        return {
            **{"model": self.model, "requests": self.sent, "stopped": self.stopped},
            "calibration": self.calibration.record,
            "stages": {
                one.name: {
                    **{"pairs": len(one.verdicts), **one.counts},
                    **{name: one.before[name] for name in names},
                    **{f"judged_{name}": one.after and one.after[name] for name in names},
                    f"judged_{names[0]}_at_most": one.at_most and one.at_most[names[0]],
                }
                for one in self.stages
            },
            "unsure": self.unsure,
        }


def judge_stages(
    judge: Judge | None,
    task: Task,
    stages: Sequence[Stage],
    examples: Sequence[Example],
    *,
    folder: Path,
    seed: int,
) -> Judged | None:
    """Calibrate a judge on the examples' gold, then have it judge stages; None without a judge.

    `judge.json` in the run's folder takes all of it. The stages stay as they are, and so does what
    is in `result.json`.
    """
    if judge is None or not stages:
        return None
    calibration = calibrate(judge, examples, seed=seed)
    found = {stage.name: _pairs_by_item(stage) for stage in stages}
    asked = {pair for of in found.values() for pairs in of.values() for pair in pairs}
    ordered = sorted(asked, key=lambda pair: (pair.slot, pair.gold, pair.answer))
    verdicts = dict.fromkeys(ordered, Verdict(word="unsent", reason="not calibrated"))
    if calibration.is_calibrated:
        verdicts = judge.ask(ordered)
    judged = Judged(
        model=judge.client.endpoint.model,
        headline=task.headline,
        calibration=calibration,
        stages=tuple(
            judged_stage(stage, task, verdicts, believed=calibration.is_calibrated)
            for stage in stages
        ),
        sent=judge.client.budget.sent,
        stopped=judge.stopped,
    )
    write_json(folder / _RESULT, judged.record)
    return judged


def judged_stage(
    stage: Stage, task: Task, verdicts: Mapping[Pair, Verdict], *, believed: bool
) -> JudgedStage:
    """Return a stage with the verdicts on its pairs, scored again by the task where believed."""
    by_item = _pairs_by_item(stage)
    own = {pair: verdicts[pair] for pairs in by_item.values() for pair in pairs}
    unsure = tuple(
        {
            **{"stage": stage.name, "id": id_, "slot": pair.slot},
            **{"gold": pair.gold, "answer": pair.answer, "verdict": "unsure"},
        }
        for id_, pairs in by_item.items()
        for pair in pairs
        if own[pair].word == "unsure"
    )
    right = {pair for pair, one in own.items() if one.word == "equivalent"}
    open_ = {pair for pair, one in own.items() if one.word not in ("equivalent", "not_equivalent")}
    after = _scored_again(stage, task, right) if believed else None
    return JudgedStage(
        name=stage.name,
        verdicts=own,
        before=stage.metrics,
        after=after,
        at_most=_scored_again(stage, task, right | open_) if believed and open_ else after,
        unsure=unsure,
    )


def _scored_again(stage: Stage, task: Task, right: set[Pair]) -> Mapping[str, Any]:
    """Return a stage's metrics where these pairs are accepted: by the task's own score alone."""
    if not right:
        return stage.metrics
    records = [
        {**one, SPECS_KEY: accepted_specs(one, right.__contains__)} if one.get(SPECS_KEY) else one
        for one in stage.records
    ]
    return score_answers(stage.name, records, task).metrics


def _pairs_by_item(stage: Stage) -> dict[str, list[Pair]]:
    return {one["id"]: pairs_of(one) for one in stage.records}
