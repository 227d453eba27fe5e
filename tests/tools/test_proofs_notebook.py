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
    **{"PROFILE": "smoke", "TASK": "text_proofs", "SHOTS": "1", "NUM_SAMPLES": "-1"},
    **{"PACKING": "on", "BATCH_TOKENS": "1024"},  # one shape to compile
    "EVAL_AT_END": "False",  # what is evaluated, and a judge's word, have tests of their own
}


@pytest.fixture
def judged(serve, tmp_path, monkeypatch):
    """A file that a verifier who knows has judged."""
    texts = known_proofs(ROWS, 60, 40, seed=4)
    _, known = make_verifier(Client(Endpoint(url="http://x", model="v")))
    right = {one.claim for one in (*texts, *known) if one.right}
    server = serve(lambda body, nth: say("right" if claim_of(body) in right else "wrong"))
    verifier, cases = make_verifier(Client(Endpoint(url=server.url, model="verifier")))
    rows = [{"statement": one.claim.statement, "proof": one.claim.proof} for one in texts]
    rows.append({"statement": "a^2 >= 0 for real a", "proof": "", "reason": "truncated"})
    path = tmp_path / "judged.jsonl"
    verify(rows, Sieve(held_out=HeldOut({}), free_text=True), path, verifier=verifier, known=cases)
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
    in_train = sum(row["verdict"] == "judged" and row["split"] == "train" for row in rows)
    notebook = json.dumps(read_json(run / "notebook.ipynb"))
    wanted = f"{in_train - round(0.05 * in_train)} to train, {round(0.05 * in_train)} to validate"
    assert f"{wanted}, {kept - in_train} held out" in notebook
    assert Path(run, "export", "config.json").is_file()
