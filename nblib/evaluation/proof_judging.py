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
from nblib.tasks.known_proofs import Claim
from nblib.tasks.task import Task
from nblib.tasks.text_proofs import TEXT_PROOFS

_OPEN = ("failed", "unsent")  # no verdict: neither right nor wrong


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
        """Return the words on a stage's items, and the share that is right of those decided.

        No share without trust, or where nothing was decided.
        """
        words = Counter(self.stages[stage].values())
        n, hits = words.total() - sum(words[one] for one in _OPEN), words["right"]
        figures: dict[str, Any] = {"judged_right": None, "judged_right_ci95": None}
        if self.calibration.is_trusted and n:
            figures = {"judged_right": hits / n, "judged_right_ci95": wilson_interval(hits, n)}
        return {"n": words.total(), "decided": n, **words, **figures}

    @property
    def gain(self) -> dict[str, Any] | None:
        """The first stage against the last, paired on the items that are decided in both.

        None without trust, a second stage or such items.
        """
        stages = [*self.stages.values()]
        first, last = stages[0], stages[-1]
        both = [id_ for id_ in first if not {first[id_], last[id_]} & {*_OPEN}]
        if len(stages) < 2 or not self.calibration.is_trusted or not both:
            return None
        gained = sum(last[one] == "right" != first[one] for one in both)
        lost = sum(first[one] == "right" != last[one] for one in both)
        ci95, p_value = rate_difference_test(gained, lost, len(both))
        difference = (gained - lost) / len(both)
        return {"n": len(both), "difference": difference, "ci95": ci95, "p_value": p_value}

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
    client.limit(requests=requests)
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
    # Item by item: a budget that is spent leaves the same items open in all stages.
    pairs = zip(*(of.values() for of in asked.values()), strict=True)
    claims = dict.fromkeys(claim for pair in pairs for claim in pair if claim)
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
