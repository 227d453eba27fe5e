"""The notebook `proofs` on a file of generated free texts whose truth is known, run to its end."""

import json
from pathlib import Path

import pytest

from nblib.evaluation.proof_verification import make_verifier, verify
from nblib.files import read_json, read_jsonl
from nblib.sources.endpoint import Client, Endpoint
from nblib.sources.inequalities import inequalities
from nblib.tasks.contamination import HeldOut
from nblib.tasks.known_proofs import known_proofs
from nblib.tasks.proof_sieve import Sieve
from nblib.tools.execution import run_notebook
from tests.evaluation.test_verifier import claim_of, say

ROWS = inequalities(150, seed=9, split="train")
SMALL = {
    **{"PROFILE": "smoke", "TASK": "text_proofs", "EVAL_SAMPLES": "4", "COMPOSED_SAMPLES": "2"},
    **{"SHOTS": "1", "MAX_NEW_TOKENS": "48", "NUM_SAMPLES": "-1", "JUDGE": "endpoint"},
}


@pytest.fixture
def judged(serve, tmp_path, monkeypatch):
    """A file that a verifier who knows has judged; a judge who accepts everything is set."""
    texts = known_proofs(ROWS, 60, 40, seed=4)
    _, known = make_verifier(Client(Endpoint(url="http://x", model="v")))
    right = {one.claim for one in (*texts, *known) if one.right}
    server = serve(lambda body, nth: say("right" if claim_of(body) in right else "wrong"))
    verifier, cases = make_verifier(Client(Endpoint(url=server.url, model="verifier")))
    rows = [{"statement": one.claim.statement, "proof": one.claim.proof} for one in texts]
    rows.append({"statement": "a^2 >= 0 for real a", "proof": "", "reason": "truncated"})
    path = tmp_path / "judged.jsonl"
    verify(rows, Sieve(held_out=HeldOut({}), free_text=True), path, verifier=verifier, known=cases)
    lenient = serve(lambda body, nth: say("right"))
    monkeypatch.setenv("NBLIB_JUDGE_URL", lenient.url)
    monkeypatch.setenv("NBLIB_JUDGE_MODEL", "lenient")
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    return path


def test_it_learns_only_what_passed_and_says_how_many_were_lost_where(judged):
    rows = read_jsonl(judged)
    counts = {}
    for row in rows:
        name = (row["verdict"], row["reason"])
        counts[name] = counts.get(name, 0) + 1
    kept = counts["judged", ""]
    assert kept >= 40 and counts["lost", "judged wrong"] >= 20 and len(counts) >= 5
    run = run_notebook("proofs", {**SMALL, "DATA": str(judged)})
    page = (run / "report.md").read_text()
    for (verdict, reason), count in counts.items():
        row = f"| {verdict} | {reason} | {count} | {count / len(rows):.3f} |"
        assert row in page, row
    learnt = {row["statement"] for row in rows if row["verdict"] == "judged"}
    in_train = sum(row["verdict"] == "judged" and row["split"] == "train" for row in rows)
    notebook = json.dumps(read_json(run / "notebook.ipynb"))
    assert f"{in_train - round(0.05 * in_train)} to train" in notebook
    asked = {record["reference"] for record in read_jsonl(run / "predictions.jsonl")
             if record["stage"] in ("base", "tuned")}  # fmt: skip
    assert asked <= learnt and 1 <= len(asked) <= 4
    found = read_json(run / "judge.json")
    assert not found["calibration"]["trusted"] and found["stages"]["tuned"]["judged_right"] is None
    assert "not trusted" in page and "How far the verifier lenient is to be believed" in page
    assert Path(run, "export", "config.json").is_file()
