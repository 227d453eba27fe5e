"""Proofs from a chat server on loopback: what is asked, sorted, planned, and never asked twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing

import pytest

from nblib.evaluation.proof_generation import Plan, generate
from nblib.files import read_jsonl
from nblib.sources.endpoint import Client, Endpoint
from nblib.sources.endpoint_cache import Budget
from nblib.sources.inequalities import inequalities
from nblib.tasks.contamination import HeldOut
from nblib.tasks.generated_proofs import Seed
from nblib.tasks.proof_sieve import Sieve
from tests.sources.chat_server import ChatServer, asked, chat

_SORT = Sieve(held_out=HeldOut({}), free_text=False).sort  # leaves out what needs no proof
ROWS = [
    row
    for row in inequalities(30, seed=0, split="train")
    if _SORT(row.fields["statement"], row.fields["proof"]).verdict == "verified"
][:24]
PROOFS = {row.fields["statement"]: row.fields["proof"] for row in ROWS}
SEEDS = tuple(Seed(name=row.id, statement=row.fields["statement"]) for row in ROWS)
SHOT = ("b^2 >= 0 for real b", "Square b: b^2 >= 0")


def plan(**more):
    return Plan(**{"seeds": SEEDS, "shots": (SHOT,), "samples": 1, "target": 100, **more})


def seed_of(body):
    return asked(body).rpartition("Statement: ")[2]


def proved(body, nth):
    """The server's answer: the proof of the seed that is asked."""
    return chat(f"<proof>\n{PROOFS[seed_of(body)]}\n</proof>")


def client(server, path=None, **more):
    endpoint = Endpoint(url=server.url, model="strong", first_wait_s=0.01, **more)
    return Client(endpoint, path=path)


def sieve(*held_out, free_text=False):
    return Sieve(held_out=HeldOut(dict(enumerate(held_out))), free_text=free_text)


def chats(server):
    return [body for path, body in server.received if path.endswith("/chat/completions")]


def test_every_seed_is_asked_once_a_sample_and_what_is_proved_is_kept_once(serve, tmp_path):
    server, said = serve(proved), []
    out, kept = tmp_path / "rows.jsonl", tmp_path / "asked.jsonl"
    two = plan(samples=2, temperatures=(0.5, 1.0))
    made = generate(client(server, kept), two, sieve(), out, say=said.append)
    rows = read_jsonl(out)
    assert Counter(row["verdict"] for row in rows) == {"verified": 24, "lost": 24}
    assert {row["reason"] for row in rows[24:]} == {"duplicate"}
    assert [row["temperature"] for row in rows] == [0.5] * 24 + [1.0] * 24
    assert made.sent == len(chats(server)) == 48 and rows[0]["models"] == ["strong"]
    assert "24 of 100 verified; yield 0.500 [0.364, 0.636] of 48 replies, 24 lost" in said[-1]
    assert "24 statements asked or stated again; about 152 more requests" in said[-1]
    assert "0 are left, for about 24: more seeds or samples" in said[-1]
    again = generate(client(server, kept), two, sieve(), out, say=said.append)
    assert again.sent == 0 and len(chats(server)) == 48 and read_jsonl(out) == rows


def test_it_stops_at_the_target_and_says_so(serve, tmp_path):
    server, said = serve(proved), []
    few = plan(target=8)
    made = generate(
        client(server, concurrency=1), few, sieve(), tmp_path / "rows.jsonl", say=said.append
    )
    assert made.useful(few) == 16 == made.sent and said[-1].endswith("enough")


def test_a_finished_run_sends_nothing_more_at_a_time_nor_is_less_written_over_it(serve, tmp_path):
    server, kept, out = serve(proved), tmp_path / "asked.jsonl", tmp_path / "rows.jsonl"
    few, said = plan(target=8), []
    generate(client(server, kept, concurrency=1), few, sieve(), out, say=str)
    assert len(read_jsonl(out)) == 16
    again = generate(client(server, kept, concurrency=4), few, sieve(), out, say=str)
    assert again.sent == 0 and len(again.rows) == 16
    other = client(serve(lambda body, nth: (401, {}, {}, "")))
    assert generate(other, few, sieve(), out, say=said.append).stopped
    assert len(read_jsonl(out)) == 16
    assert "is left as it was: it holds 16 rows, and this start made " in said[-1]


def test_replies_of_all_kinds_have_their_reason(serve, tmp_path):
    wrong = "AM-GM 1, 2: 3 >= 4"
    kinds = [
        (chat("<proof>\nSquare", finish="length"), "truncated"),
        (chat(""), "empty"),
        (chat(None, refusal="no"), "refused"),
        (chat("<think>hm <proof>"), "unfinished thought"),
        (chat("a draft <proof>x</proof> no. </think>By AM-GM."), "no proof block"),
        (chat("By AM-GM."), "no proof block"),
        (chat("<proof></proof>"), "empty proof"),
        (chat("<proof>By AM-GM it holds.</proof>"), "not in the language"),
        (chat(f"<proof>{wrong}</proof>"), "not proved"),
        (chat("<proof>Square <end_of_turn>: 1 >= 0</proof>"), "control piece"),
    ]
    answers = dict(zip([one.statement for one in SEEDS], kinds, strict=False))
    server = serve(lambda body, nth: answers[seed_of(body)][0])
    out = tmp_path / "rows.jsonl"
    generate(client(server), plan(seeds=SEEDS[: len(kinds)]), sieve(), out, say=str)
    assert [row["reason"] for row in read_jsonl(out)] == [reason for _, reason in kinds]


def test_invented_statements_are_read_checked_and_compared(serve, tmp_path):
    replies = [
        ("x^2+y^2 >= 2xy for real x, y", "Square x-y: x^2+y^2 >= 2xy", "verified", ""),
        ("2uv <= u^2+v^2 for real u, v", "Square u-v: u^2+v^2 >= 2uv", "lost", "duplicate"),
        ("a^2 >= 3a for a > 0", "Square a: a^2 >= 3a", "lost", "false statement"),
        ("p^2+9 >= 6p for real p", "Square p-3: p^2+9 >= 6p", "lost", "held out"),
        ("let a be big", "Square a: a^2 >= 0", "lost", "statement not read"),
    ]
    texts = [f"Statement: {one}\n<proof>\n{proof}\n</proof>" for one, proof, *_ in replies]
    answers = dict(zip([one.statement for one in SEEDS], texts, strict=False))
    server = serve(lambda body, nth: chat(answers[inspired(body)]))
    out, chosen = tmp_path / "rows.jsonl", plan(seeds=SEEDS[: len(replies)], invent=True)
    generate(client(server), chosen, sieve("3+q^2/3 >= 2q for real q"), out, say=str)
    rows = read_jsonl(out)
    assert [(row["verdict"], row["reason"]) for row in rows] == [one[2:] for one in replies]
    assert rows[2]["detail"].startswith("at a = ")


def inspired(body):
    return asked(body).rpartition("Here is a statement: ")[2].splitlines()[0]


def test_free_texts_go_on_to_be_judged_and_count_apart(serve, tmp_path):
    texts = iter(["By AM-GM.", "By AM-GM!", "A square is not negative."])
    answers = {one.statement: next(texts) for one in SEEDS[:3]}
    server = serve(lambda body, nth: chat(f"<proof>{answers[seed_of(body)]}</proof>"))
    out, chosen = tmp_path / "rows.jsonl", plan(seeds=SEEDS[:3], form="text")
    made = generate(client(server), chosen, sieve(free_text=True), out, say=str)
    assert made.verdicts == {"unjudged": 3} and made.useful(chosen) == 3
    assert {row["technique"] for row in read_jsonl(out)} == {"free text"}


def test_a_faulty_server_loses_no_row_and_no_reply_is_paid_twice(serve, tmp_path):
    """Half of the first attempts fail: 429, a reset, a stall, half an answer."""
    tries = Counter()

    def faulty(body, nth):
        seed = seed_of(body)
        tries[seed] += 1
        number = [one.statement for one in SEEDS].index(seed)
        faults = {
            1: (429, {"Retry-After": "0"}, {}, ""),
            3: (200, {}, proved(body, nth), "drop"),
            5: (200, {}, proved(body, nth), "short"),
            7: (503, {}, {}, ""),
            9: (200, {}, proved(body, nth), "stall"),
        }
        return faults[number] if number in faults and tries[seed] == 1 else proved(body, nth)

    server, kept = serve(faulty), tmp_path / "asked.jsonl"
    out = tmp_path / "rows.jsonl"
    patient = {"timeout_s": 2.0, "retries": 2}
    made = generate(client(server, kept, **patient), plan(), sieve(), out, say=str)
    assert made.verdicts == {"verified": 24} and len({*map(json.dumps, read_jsonl(out))}) == 24
    assert len(chats(server)) == made.sent == 24 + 5
    generate(client(server, kept, **patient), plan(), sieve(), out, say=str)
    assert len(chats(server)) == 29


def test_a_budget_stops_it_and_the_next_start_sends_what_is_missing(serve, tmp_path):
    server, kept, out = serve(proved), tmp_path / "asked.jsonl", tmp_path / "rows.jsonl"
    first = client(server, kept)
    first.budget = Budget(requests=10)
    made = generate(first, plan(), sieve(), out, say=str)
    assert made.stopped == "the budget of 10 requests is spent" and made.verdicts["verified"] == 10
    second = client(server, kept)
    assert generate(second, plan(), sieve(), out, say=str).sent == 14
    assert len(read_jsonl(out)) == 24 and second.transcript.used == (240, 48)


def test_a_killed_command_goes_on_and_sends_only_what_is_missing(tmp_path):
    """SIGKILL while it asks; what was sent is counted at the server."""
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"statement": one.statement}) + "\n" for one in SEEDS))
    process = None

    def answer(body, nth):
        if nth == 9 and process is not None:
            os.kill(process.pid, signal.SIGKILL)
        return proved(body, nth)

    with closing(ChatServer(answer)) as server:
        out = tmp_path / "rows.jsonl"
        command = [sys.executable, "-m", "nblib", "generate", str(out), "--seeds", str(seeds)]
        command += ["--samples", "1", "--concurrency", "1"]
        names = {"NBLIB_GENERATOR_URL": server.url, "NBLIB_GENERATOR_MODEL": "strong"}
        how = {"env": {**os.environ, **names}, "cwd": tmp_path, "text": True}
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **how)
        assert process.wait(120) == -signal.SIGKILL and not out.exists()
        process = None
        done = subprocess.run(command, capture_output=True, timeout=120, **how)
        assert done.returncode == 0 and "24 rows of use" in done.stdout, done.stderr
        assert Counter(row["verdict"] for row in read_jsonl(out)) == {"verified": 24}
        # The one that was under way at the kill is asked again.
        assert len(chats(server)) == 25


@pytest.mark.parametrize("wrong", [{"seeds": ()}, {"samples": 0}, {"temperatures": (-1.0,)}])
def test_a_plan_that_asks_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"seed is left|too small"):
        plan(**wrong)
