"""A file of proofs of known truth: what passes, what is lost where, and what a verifier may do."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from nblib.evaluation.answers import score_answers
from nblib.evaluation.proof_judging import judge_proofs
from nblib.evaluation.proof_verification import make_verifier, read_known, read_proofs, verify
from nblib.files import read_jsonl, write_jsonl
from nblib.sources.endpoint import Client, Endpoint
from nblib.sources.inequalities import inequalities
from nblib.sources.rows import Row
from nblib.tasks.contamination import HeldOut
from nblib.tasks.known_proofs import Claim, known_proofs
from nblib.tasks.proof_sieve import Sieve
from nblib.tasks.proofs import PROOFS
from nblib.tasks.text_proofs import TEXT_PROOFS
from tests.evaluation.test_verifier import claim_of, say

BUILT_IN = make_verifier(Client(Endpoint(url="http://x", model="v")))[1]
ROWS = inequalities(130, seed=9, split="train")
KNOWN = known_proofs(ROWS, 60, 60, seed=4)
RIGHT_TEXTS = {one.claim for one in KNOWN if one.right}
IN_LANGUAGE = [{k: row.fields[k] for k in ("statement", "proof")} for row in ROWS[:40]]
SMALL = {"shots": 4, "right": 30, "wrong": 60}


def texts():
    """Rows of free texts whose truth is known; what has no text is left out."""
    return [
        {"statement": one.claim.statement, "proof": one.claim.proof, "models": ["strong"]}
        for one in KNOWN
        if one.claim.proof.strip(": ")
    ]


def sieve():
    return Sieve(held_out=HeldOut({}), free_text=True)


@pytest.fixture
def verifier_of(serve, tmp_path):
    """Make a verifier behind a server that answers by `accepts(claim)`, and count what it gets."""

    def make(accepts, path=tmp_path / "asked.jsonl", **more):
        right = {one.claim for one in BUILT_IN if one.right} | RIGHT_TEXTS
        server = serve(
            lambda body, nth: say("right" if accepts(claim_of(body), right) else "wrong")
        )
        client = Client(Endpoint(url=server.url, model="verifier", retries=0), path=path)
        return (*make_verifier(client, **{**SMALL, **more}), server)

    return make


def knows(claim, right):
    return claim in right


def test_a_verifier_that_knows_is_trusted_and_only_what_it_accepts_is_judged(verifier_of, tmp_path):
    verifier, known, server = verifier_of(knows)
    out = tmp_path / "judged.jsonl"
    found = verify(texts(), sieve(), out, verifier=verifier, known=known)
    assert found.calibration.is_trusted and found.calibration.false_accepts[0] == 0
    rows = read_jsonl(out)
    assert rows == [*found.rows] and len(rows) == len(texts())
    judged = [row for row in rows if row["verdict"] == "judged"]
    assert {Claim(statement=r["statement"], proof=r["proof"]) for r in judged} <= RIGHT_TEXTS
    # One proof of each statement is kept.
    assert len(judged) == len({one.statement for one in RIGHT_TEXTS})
    assert {row["false_accepts_at_most"] for row in judged} == {found.calibration.at_most}
    assert {row["verifier"] for row in judged} == {"verifier"}
    lost = Counter(row["reason"] for row in rows if row["verdict"] == "lost")
    assert (
        set(lost) <= {"judged wrong", "duplicate", "false statement"} and lost["judged wrong"] > 30
    )
    assert {row["split"] for row in judged} == {"train", "test"}
    examples = TEXT_PROOFS.examples(
        TEXT_PROOFS.normalise([Row(id=str(n), fields=row) for n, row in enumerate(rows)])
    )
    assert len(examples) == len(judged)
    sent = len(server.received)
    verifier, known, server = verifier_of(knows)
    again = verify(texts(), sieve(), out, verifier=verifier, known=known)
    assert again.rows == found.rows and len(server.received) == 0 and sent == found.sent


def test_a_faulty_server_loses_no_verdict_and_none_is_paid_twice(serve, tmp_path, monkeypatch):
    """The first attempt of half of the claims fails: 429, a reset, half an answer, 503."""
    monkeypatch.setattr(Client, "_pause", lambda self, seconds: None)
    right = {one.claim for one in BUILT_IN if one.right} | RIGHT_TEXTS
    faults = (
        (429, {}, {}, ""),
        None,
        (200, {}, {}, "drop"),
        None,
        (200, {}, {}, "short"),
        (503, {}, {}, ""),
    )
    tries = Counter()

    def answer(body, nth):
        claim = claim_of(body)
        tries[claim] += 1
        fault = faults[len(tries) % len(faults)] if tries[claim] == 1 else None
        return fault or say("right" if claim in right else "wrong")

    server, path, out = serve(answer), tmp_path / "asked.jsonl", tmp_path / "judged.jsonl"
    endpoint = Endpoint(url=server.url, model="verifier", concurrency=1, retries=2)
    found = []
    for _ in range(2):
        verifier, known = make_verifier(Client(endpoint, path=path), **SMALL)
        found.append(verify(texts(), sieve(), out, verifier=verifier, known=known))
        assert len(server.received) == sum(tries.values())
    assert {*tries.values()} == {1, 2} and found[1].sent == 0 < found[0].sent == sum(tries.values())
    assert found[0].rows == found[1].rows and len(found[0].rows) == len(texts())
    assert found[0].counts["judged"] == len({one.statement for one in RIGHT_TEXTS})


def test_statements_of_a_template_are_in_one_split(verifier_of, tmp_path):
    rows = [
        {"statement": f"{n}a^2+{n}b^2 >= {n}ab for a, b > 0", "proof": "Clear."} for n in (2, 3, 5)
    ]
    claims = {n: f"a^2+{n * n} >= {2 * n}a" for n in range(2, 30)}
    rows += [
        {"statement": f"{claim} for real a", "proof": f"Square a-{n}: {claim}"}
        for n, claim in claims.items()
    ]
    found = verify(rows, sieve(), tmp_path / "out.jsonl", verifier=None)
    assert len({row["split"] for row in found.rows[:3]}) == 1
    assert {row["split"] for row in found.rows[3:]} == {"test"}  # at least one that is kept is
    assert found.counts == {"unjudged": 1, "lost": 2, "verified": 28}


@pytest.mark.parametrize(
    ("accepts", "problem"),
    [
        (lambda claim, right: True, r"it accepts \d+ of \d+ wrong proofs"),
        (lambda claim, right: claim in right or "rigorous" in claim.proof, "wrong proofs"),
        (lambda claim, right: False, "not clearly more than of wrong ones"),
    ],
)
def test_one_that_is_not_trusted_is_asked_of_no_row_and_nothing_can_be_learnt(
    accepts, problem, verifier_of, tmp_path
):
    verifier, known, server = verifier_of(accepts)
    found = verify(texts(), sieve(), tmp_path / "out.jsonl", verifier=verifier, known=known)
    assert not found.calibration.is_trusted and len(server.received) == len(
        {k.claim for k in known}
    )
    assert found.counts["judged"] == found.counts["verified"] == 0
    waiting = [row for row in found.rows if row["verdict"] == "unjudged"]
    assert {row["reason"] for row in waiting} == {"verifier not trusted"}
    assert re.search(problem, waiting[0]["detail"])
    rows = [Row(id=str(n), fields=row) for n, row in enumerate(found.rows)]
    with pytest.raises(
        ValueError, match=r"none of \d+ rows can be learnt \(\d+ unjudged: verifier"
    ):
        TEXT_PROOFS.normalise(rows)


def test_proofs_in_the_language_need_no_verifier_and_the_exact_check_has_the_last_word(
    verifier_of, tmp_path
):
    wrong = {**IN_LANGUAGE[0], "proof": IN_LANGUAGE[0]["proof"].replace(": ", ": 7+", 1)}
    rows = [wrong, *IN_LANGUAGE, *IN_LANGUAGE]
    verifier, known, server = verifier_of(lambda claim, right: True)
    found = verify(rows, sieve(), tmp_path / "out.jsonl", verifier=verifier, known=known)
    assert found.counts == {"verified": 40, "lost": 41} and found.calibration is None
    assert server.received == [] and found.rows[0]["reason"] == "not proved"


def test_a_generators_own_wrong_proofs_are_among_those_it_is_calibrated_on():
    broken = {"statement": "a^2+1 >= 2a for real a", "proof": "Square a-1: a^2+2 >= 2a"}
    client = Client(Endpoint(url="http://x", model="v"))
    _, known = make_verifier(client, rows=[broken, *IN_LANGUAGE[:3], {**broken, "proof": "So (1)"}])
    own = [one for one in known if one.made == "a generator's own"]
    assert [(one.claim.statement, one.right) for one in own] == [(broken["statement"], False)]


def test_of_a_statement_the_next_proof_is_asked_of_only_where_one_was_not_accepted(
    verifier_of, tmp_path
):
    """Nor any of a statement that another row proves exactly."""
    right, wrong = "As (x-2)^2 >= 0.", "Clear."
    claim = "x^2+4 >= 4x for real x"
    free = [{"statement": claim, "proof": text} for text in (wrong, right, "Well, (x-2)^2 >= 0.")]
    exact = IN_LANGUAGE[0]
    rows = [*free, {**exact, "proof": "By AM-GM, clearly."}, exact]
    verifier, known, server = verifier_of(lambda one, known: one in known or one.proof == right)
    found = verify(rows, sieve(), tmp_path / "out.jsonl", verifier=verifier, known=known)
    verdicts = [(row["verdict"], row["reason"]) for row in found.rows]
    assert verdicts == [
        ("lost", "judged wrong"),
        ("judged", ""),
        ("lost", "duplicate"),
        ("lost", "duplicate"),
        ("verified", ""),
    ]
    assert len(server.received) == len({one.claim for one in known}) + 2


@pytest.mark.parametrize("models", ["strong", 5, [1]])
def test_names_of_a_model_that_are_no_list_are_refused(models, tmp_path):
    path = tmp_path / "proofs.jsonl"
    write_jsonl(path, [{"statement": "s", "proof": "p", "models": models}])
    with pytest.raises(ValueError, match=r"line 1: 'models' is .*, expected a list"):
        read_proofs(path)


def test_files_are_read_by_line(tmp_path):
    path = tmp_path / "proofs.jsonl"
    write_jsonl(path, [{"statement": "a >= 0 for a > 0", "proof": 3}])
    with pytest.raises(ValueError, match=r"proofs.jsonl line 1: expected 'proof', a text"):
        read_proofs(path)
    write_jsonl(path, [{"statement": "s", "proof": "p"}])
    with pytest.raises(ValueError, match=r"proof 1 has no 'right': expected true or false"):
        read_known(path)
    write_jsonl(path, [{"statement": "s", "proof": "p", "right": False}])
    assert read_known(path)[0].right is False
    path.write_text("\n")
    with pytest.raises(ValueError, match="no proof in it"):
        read_proofs(path)


def command(*words, **variables):
    return subprocess.run(
        [sys.executable, "-m", "nblib", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=300,
    )


def test_the_command_refuses_the_model_that_wrote_the_proofs(serve, tmp_path):
    server, path = serve(lambda body, nth: say("right")), tmp_path / "proofs.jsonl"
    write_jsonl(path, [{**texts()[0], "models": ["org/Strong-70B-AWQ"]}])
    names = {"NBLIB_VERIFIER_URL": server.url, "NBLIB_VERIFIER_MODEL": "strong-70b"}
    done = command("verify", path, "--out", tmp_path / "out.jsonl", **names)
    assert done.returncode == 1 and server.received == []
    assert "the verifier strong-70b is the model that wrote the proofs" in done.stderr


def test_the_command_says_what_became_of_all(serve, tmp_path):
    server, path = serve(lambda body, nth: say("right")), tmp_path / "proofs.jsonl"
    write_jsonl(path, [*IN_LANGUAGE[:5], *texts()[:8], {"statement": "s", "proof": "", "reason":
                       "truncated", "verdict": "lost"}])  # fmt: skip
    names = {"NBLIB_VERIFIER_URL": server.url, "NBLIB_VERIFIER_MODEL": "lenient"}
    out = tmp_path / "out.jsonl"
    sizes = ("--shots", 2, "--right", 10, "--wrong", 20)
    done = command("verify", path, "--out", out, *sizes, **names)
    assert done.returncode == 0, done.stderr
    for words in ("not trusted: it accepts 20 of 20 wrong", "5  verified", "1  lost: truncated",
                  "5 verified exactly, 0 judged right by a model"):  # fmt: skip
        assert words in done.stdout
    assert Counter(row["verdict"] for row in read_jsonl(out))["judged"] == 0
    assert len(server.received) == len(read_jsonl(tmp_path / "out.jsonl.asked.jsonl"))


def test_the_command_writes_over_nothing_that_is_read_or_judged(tmp_path):
    path, out = tmp_path / "proofs.jsonl", tmp_path / "out.jsonl"
    write_jsonl(path, texts()[:2])
    done = command("verify", path, "--out", path)
    assert done.returncode == 2 and "is read and would be written over" in done.stderr
    write_jsonl(out, [{**texts()[0], "verdict": "judged"}])
    done = command("verify", path, "--out", out, NBLIB_VERIFIER_URL="", NBLIB_ENDPOINT_URL="")
    assert done.returncode == 1 and "holds 1 judged rows: no endpoint" in done.stderr
    assert len(read_jsonl(out)) == 1


def stage(name, answers):
    records = [
        {"id": str(n), "completion": text, "question": "", "reference": claim.statement,
         "group": "x", "truncated": False}
        for n, (claim, text) in enumerate(answers)
    ]  # fmt: skip
    return score_answers(name, records, TEXT_PROOFS)


def judged_stages():
    right = [claim for claim in RIGHT_TEXTS][:20]
    block = [(one, f"<proof>{one.proof}</proof>") for one in sorted(right, key=str)]
    wrong = [(one, f"<proof>{one.proof} It is clear.</proof>") for one, _ in block]
    return stage(
        "base", [*wrong[:15], *block[15:18], *[(one, "?") for one, _ in block[18:]]]
    ), stage("tuned", [*wrong[:2], *block[2:]])


def test_texts_of_a_model_are_judged_apart_from_what_is_exact(verifier_of, tmp_path, monkeypatch):
    *_, server = verifier_of(knows, path=None)
    monkeypatch.setenv("NBLIB_JUDGE_URL", server.url)
    monkeypatch.setenv("NBLIB_JUDGE_MODEL", "judge")
    stages = judged_stages()
    found = judge_proofs("endpoint", TEXT_PROOFS, stages, folder=tmp_path, requests=1000)
    base, tuned = (found.rate(name) for name in ("base", "tuned"))
    assert (base["right"], base["wrong"], base["no proof"], base["n"]) == (3, 15, 2, 20)
    assert tuned["judged_right"] == 0.9 and found.gain["difference"] == pytest.approx(0.75)
    assert json.loads((tmp_path / "judge.json").read_text())["stages"]["tuned"]["right"] == 18
    assert stages[1].metrics["format_accuracy"] == 1.0
    assert judge_proofs("endpoint", PROOFS, stages, folder=tmp_path, requests=9) is None
    assert judge_proofs("", TEXT_PROOFS, stages, folder=tmp_path, requests=9) is None


def test_a_judge_that_is_not_trusted_gives_no_figure(verifier_of, tmp_path, monkeypatch):
    *_, server = verifier_of(lambda claim, right: True, path=None)
    monkeypatch.setenv("NBLIB_JUDGE_URL", server.url)
    monkeypatch.setenv("NBLIB_JUDGE_MODEL", "judge")
    found = judge_proofs("endpoint", TEXT_PROOFS, judged_stages(), folder=tmp_path, requests=1000)
    assert found.gain is None and found.rate("tuned")["judged_right"] is None
    assert found.rate("tuned")["unsent"] == 20
