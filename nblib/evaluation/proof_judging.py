"""A judge of free-text proofs: what a model wrote is read by another, after the evaluation.

The judge is a verifier (`verifier`), calibrated in the same run as for training data. What it says
stands in `judge.json`, apart from the metrics of the stages, which are exact.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.evaluation.answers import Stage
from nblib.evaluation.closed_questions import Verdict
from nblib.evaluation.intervals import rate_difference_test, wilson_interval
from nblib.evaluation.proof_verification import make_verifier
from nblib.evaluation.verifier import VerifierCalibration, calibrate_verifier
from nblib.files import write_json
from nblib.sources.endpoint import Client, endpoint_from_environment
from nblib.sources.endpoint_cache import Budget
from nblib.tasks.known_proofs import Claim
from nblib.tasks.task import Task
from nblib.tasks.text_proofs import TEXT_PROOFS


@dataclass(frozen=True, kw_only=True)
class JudgedProofs:
    """What a judge said of the free texts of some stages, and how far it is to be believed.

    Attributes:
        stages: Stage -> item -> "right", "wrong", "unsure", "failed", "unsent", or "no proof".
    """

    model: str
    calibration: VerifierCalibration
    stages: Mapping[str, Mapping[str, str]]
    sent: int
    stopped: str

    def rate(self, stage: str) -> dict[str, Any]:
        """Return the share of a stage's items that are judged right; nothing without trust."""
        words = [*self.stages[stage].values()]
        hits, n = words.count("right"), len(words)
        trusted = self.calibration.is_trusted
        figures = {"judged_right": hits / n, "judged_right_ci95": wilson_interval(hits, n)}
        return {"n": n, **Counter(words), **(figures if trusted else dict.fromkeys(figures))}

    @property
    def gain(self) -> dict[str, Any] | None:
        """The first stage against the last, paired; None without trust or a second stage."""
        if len(self.stages) < 2 or not self.calibration.is_trusted:
            return None
        before, after = ([word == "right" for word in one.values()] for one in self._ends)
        gained = sum(now and not then for then, now in zip(before, after, strict=True))
        lost_ = sum(then and not now for then, now in zip(before, after, strict=True))
        ci95, p_value = rate_difference_test(gained, lost_, len(before))
        difference = (gained - lost_) / len(before)
        return {"difference": difference, "ci95": ci95, "p_value": p_value}

    @property
    def _ends(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        first, *_, last = self.stages.values()
        return first, last

    @property
    def record(self) -> dict[str, Any]:
        """What `judge.json` holds."""
        return {
            **{"model": self.model, "requests": self.sent, "stopped": self.stopped},
            **{"calibration": self.calibration.record, "gain": self.gain},
            "stages": {name: self.rate(name) for name in self.stages},
        }


def judge_proofs(
    name: str, task: Task, stages: Sequence[Stage], *, folder: Path, requests: int
) -> JudgedProofs | None:
    """Calibrate a judge, then have it read the free texts of stages of the same items.

    `name` is a notebook's parameter JUDGE, `folder` its run's, which keeps what was asked, and
    takes `judge.json`; `requests` are all that the run may send. A judge that is not trusted reads
    nothing. None without a judge or stages, and of a task whose proofs are checked exactly.
    """
    if task is not TEXT_PROOFS or not name or not stages:
        is_exact = "every proof is checked exactly" if task is not TEXT_PROOFS else ""
        print(f"no judge is asked: {is_exact or 'set JUDGE to have the texts read'}")
        return None
    client = Client(endpoint_from_environment("JUDGE"), path=folder / "judge.jsonl")
    client.budget = Budget(requests=requests, sent=client.transcript.sent)
    verifier, known = make_verifier(client)
    asked = {
        one.name: {
            record["id"]: Claim(statement=record["reference"], proof=record["answer"])
            if record["answer"]
            else None
            for record in one.records
        }
        for one in stages
    }
    claims = dict.fromkeys(claim for of in asked.values() for claim in of.values() if claim)
    verifier.check_context([*claims])
    calibration = calibrate_verifier(verifier, known)
    words = verifier.ask(claims) if calibration.is_trusted else {}
    unsent = Verdict(word="unsent", reason="not trusted")
    judged = JudgedProofs(
        model=client.endpoint.model,
        calibration=calibration,
        stages={
            stage: {
                id_: words.get(claim, unsent).word if claim else "no proof"
                for id_, claim in of.items()
            }
            for stage, of in asked.items()
        },
        sent=client.budget.sent,
        stopped=verifier.stopped,
    )
    write_json(folder / "judge.json", judged.record)
    return judged
