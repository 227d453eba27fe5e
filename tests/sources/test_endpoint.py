"""A client against a chat server on loopback, with all the faults a server has."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from nblib.files import read_jsonl, to_jsonable
from nblib.sources import endpoint as endpoint_module
from nblib.sources.endpoint import Client, Endpoint, endpoint_from_environment, retry_after_s
from nblib.sources.endpoint_cache import Budget, Reply, Request
from tests.sources.chat_server import ChatServer, asked, chat

KEY = "sk-secret-of-this-test"
WAITS = "_pause"


def say(text, **parameters):
    return Request(messages=({"role": "user", "content": text},), parameters=parameters)


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The waits of clients, which do not wait."""
    found = []
    monkeypatch.setattr(Client, WAITS, lambda self, seconds: found.append(seconds))
    return found


@pytest.fixture(autouse=True)
def variables(tmp_path, monkeypatch):
    """No endpoint is set, and no file `.env` is here."""
    monkeypatch.chdir(tmp_path)
    for name in ("ENDPOINT", "JUDGE"):
        for end in ("URL", "MODEL", "KEY"):
            monkeypatch.delenv(f"NBLIB_{name}_{end}", raising=False)
    for name in ("LITELLM_API_BASE", "LITELLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def client_of(server, path=None, budget=None, **more):
    endpoint = Endpoint(url=server.url, model="m", key=SecretStr(KEY), **more)
    return Client(endpoint, path=path, budget=budget)


def echo(body, nth):
    return chat(asked(body).upper())


def only(batch):
    (reply,) = batch.replies
    return reply


def test_replies_come_in_the_order_of_requests_and_equal_ones_are_sent_once(serve, tmp_path):
    server = serve(echo)
    words = [f"word {n % 7}" for n in range(20)]
    batch = client_of(server, tmp_path / "kept.jsonl").ask([say(one) for one in words])
    assert [one.text for one in batch.replies] == [one.upper() for one in words]
    assert all(one.is_complete and one.tokens == (10, 2) for one in batch.replies)
    assert (batch.left, batch.stopped) == (0, "")
    assert len(server.received) == len(read_jsonl(tmp_path / "kept.jsonl")) == 7
    path, body = server.received[0]
    assert path == "/v1/chat/completions" and body["model"] == "m"
    assert {head["Authorization"] for head in server.heads} == {f"Bearer {KEY}"}


def test_as_many_requests_are_under_way_as_the_concurrency_says(serve):
    import threading

    together = threading.Barrier(3)

    def answer(body, nth):
        together.wait(30)  # three must be here at once
        return chat("x")

    batch = client_of(serve(answer), concurrency=3).ask([say(str(n)) for n in range(3)])
    assert all(one.is_complete for one in batch.replies)


def test_other_parameters_or_another_model_are_another_request(serve, tmp_path):
    server, path = serve(echo), tmp_path / "kept.jsonl"
    client = client_of(server, path)
    client.ask([say("a"), say("a", seed=1), say("a", seed=2)])
    assert len(server.received) == 3
    again = Client(Endpoint(url=serve(echo).url, model="m"), path=path)  # at another address
    assert [one.kept for one in again.ask([say("a"), say("a", seed=2)]).replies] == [True] * 2
    other = Client(Endpoint(url=server.url, model="n"), path=path)
    assert not only(other.ask([say("a")])).kept


BUSY = (429, {"Retry-After": "7"}, b"busy", "")


@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        (408, {}, b"", ""),
        (500, {}, b"<html>oh", ""),
        (503, {"Retry-After": "soon"}, b"", ""),
        (200, {}, chat("A"), "short"),
        (200, {}, b"", "drop"),
    ],
    ids=["429", "408", "500", "503", "short", "drop"],
)
def test_what_may_pass_is_asked_again(fault, serve, tmp_path, waits):
    server = serve(lambda body, nth: fault if nth < 3 else chat("A"))
    reply = only(client_of(server, tmp_path / "kept.jsonl").ask([say("a")]))
    assert (reply.kind, reply.text, reply.attempts) == ("complete", "A", 3)
    assert len(server.received) == 3
    least = 7 if fault is BUSY else 0.5
    assert len(waits) == 2 and waits[0] >= least and waits[1] >= 2 * 0.5
    assert waits[0] <= max(least, 1) and waits[1] <= max(least, 2)


@pytest.mark.parametrize("fault", ["stall", "drip"])
def test_an_answer_that_does_not_come_is_given_up(fault, serve):
    server = serve(lambda body, nth: (200, {}, b" ", fault))
    reply = only(client_of(server, timeout_s=0.2, retries=1).ask([say("a")]))
    assert (reply.kind, reply.attempts) == ("failed", 2)
    assert "imed out" in reply.reason or "no whole answer within 0.2 s" in reply.reason


def test_waits_double_with_a_chance_by_the_seed_and_have_an_end(serve, waits):
    server = serve(lambda body, nth: (500, {"Retry-After": "9999" * (nth == 7)}, b"", ""))
    reply = only(client_of(server, retries=6).ask([say("a")]))
    assert reply.kind == "failed" and reply.status == 500
    for n, wait in enumerate(waits[:5]):
        assert 2**n / 2 <= wait <= 2**n
    first, waits[:] = [*waits], []
    only(client_of(server, retries=6).ask([say("a")]))
    assert waits == first
    server = serve(lambda body, nth: (429, {"Retry-After": "9999"}, b"", ""))
    waits.clear()
    only(client_of(server, retries=1).ask([say("a")]))
    assert waits == [60]


def test_the_head_retry_after_is_a_number_or_a_date():
    assert retry_after_s(None) == retry_after_s("soon") == 0
    assert retry_after_s(" 12 ") == 12
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert 3500 < retry_after_s(format_datetime(soon, usegmt=True)) <= 3600
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_where_nobody_ever_answers_the_batch_ends():
    with closing(ChatServer(echo)) as server:
        url = server.url
    client = Client(Endpoint(url=url, model="m", retries=1, concurrency=1))
    batch = client.ask([say(str(n)) for n in range(5)])
    first = batch.replies[0]
    assert (first.kind, first.attempts) == ("failed", 2) and "refused" in first.reason
    assert batch.left == 4 and batch.stopped.startswith(f"no server answers at {url} (")
    assert client.budget.sent == 2


def test_one_who_answered_before_may_be_away_for_a_while(serve):
    server = serve(lambda body, nth: echo(body, nth) if nth != 2 else (200, {}, b"", "drop"))
    client = client_of(server, retries=0, concurrency=1)
    batch = client.ask([say(str(n)) for n in range(4)])
    assert [one.kind for one in batch.replies] == ["complete", "failed", "complete", "complete"]


@pytest.mark.parametrize("status", [400, 404, 302])
def test_what_will_not_pass_is_not_asked_again(status, serve, tmp_path, waits):
    path = tmp_path / "kept.jsonl"
    server = serve(lambda body, nth: (status, {"Location": "/"}, b"no such model", ""))
    batch = client_of(server, path).ask([say("a"), say("b")])
    assert [one.kind for one in batch.replies] == ["failed"] * 2
    assert batch.replies[0].status == status and "no such model" in batch.replies[0].reason
    assert len(server.received) == 2 and not waits
    client_of(server, path).ask([say("a")])  # a failure is no answer to keep
    assert len(server.received) == 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_stops_the_batch_with_one_message(status, serve, capfd, tmp_path):
    path = tmp_path / "kept.jsonl"
    echoed = json.dumps({"error": f"Incorrect API key: {KEY}"}).encode()
    server = serve(lambda body, nth: (status, {}, echoed, ""))
    client = client_of(server, path, concurrency=1)
    batch = client.ask([say(str(n)) for n in range(9)])
    assert len(server.received) == 1 and batch.left == 8
    assert f"answered {status}: it does not take the key; set NBLIB_ENDPOINT_KEY" in batch.stopped
    assert batch.replies[0].kind == "failed" and "***" in batch.replies[0].reason
    assert client.ask([say("more")]).left == 1 and len(server.received) == 1
    said = capfd.readouterr()
    shown = (repr(batch), repr(client.endpoint), repr(vars(client.endpoint)), said.out, said.err)
    assert not [text for text in (*shown, path.read_text()) if KEY in text]


def test_a_key_has_no_way_into_a_file(serve, tmp_path):
    server = serve(lambda body, nth: chat(f"I was given {KEY}."))
    client = client_of(server, tmp_path / "kept.jsonl")
    assert only(client.ask([say("a")])).text == "I was given ***."
    assert KEY not in (tmp_path / "kept.jsonl").read_text()
    with pytest.raises(TypeError):
        json.dumps(to_jsonable(client.endpoint))
    assert KEY not in str(asdict(client.endpoint))
    with pytest.raises(ValueError, match="NBLIB_JUDGE_KEY holds white space") as error:
        Endpoint(url="http://h", model="m", key=SecretStr("a\nb"), key_variable="NBLIB_JUDGE_KEY")
    assert "a\nb" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (chat("half an ans", finish="length"), "truncated", "raise max_tokens"),
        (chat(None, finish="length"), "truncated", "raise max_tokens"),
        (chat(None), "empty", "no text"),
        (chat(" \n"), "empty", "no text"),
        (chat("", refusal="I cannot"), "refused", "I cannot"),
        (chat("He", finish="content_filter"), "refused", "content_filter"),
        (chat("a", finish="tool_calls"), "failed", "tool_calls"),
        (chat("a", finish=None), "failed", "finish_reason is None"),
        (chat(["a"]), "failed", "content ['a']"),
        (b"<html>Log in</html>", "failed", "no chat completion: '<html>Log in"),
        (b"\xff\xfe", "failed", "no chat completion"),
        (b"[" * 10_000, "failed", "no chat completion"),
        (b"", "failed", "no chat completion"),
        ({"error": {"message": "overloaded"}}, "failed", "overloaded"),
        ({"choices": []}, "failed", "no chat completion"),
        ({"choices": [3]}, "failed", "no chat completion"),
        ([1], "failed", "no chat completion"),
    ],
)
def test_a_half_answer_is_never_taken_for_one(body, kind, reason, serve, tmp_path):
    server = serve(lambda _, nth: body)
    path = tmp_path / "kept.jsonl"
    reply = only(client_of(server, path).ask([say("a")]))
    assert reply.kind == kind and reason in reply.reason and not reply.is_complete
    again = only(client_of(server, path).ask([say("a")]))
    assert again.kept == (kind != "failed") and again.kind == kind
    assert len(server.received) == 1 + (kind == "failed")


def test_a_body_in_chunks_and_half_a_character_are_read(serve, tmp_path):
    body = b'{"choices": [{"message": {"content": "a\\ud83d"}, "finish_reason": "stop"}]}'
    server = serve(lambda _, nth: (200, {}, body, "chunked"))
    reply = only(client_of(server, tmp_path / "kept.jsonl").ask([say("a")]))
    assert (reply.kind, reply.text) == ("complete", "a?")


def test_tokens_are_the_servers_or_guessed_from_characters(serve):
    server = serve(lambda _, nth: chat("four" * 2, usage=None))
    budget = Budget()
    reply = only(client_of(server, budget=budget).ask([say("12345")]))
    assert (reply.tokens, reply.estimated, budget.used) == ((2, 2), True, (2, 2))


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_budget_of_requests_is_never_passed(concurrency, serve, tmp_path):
    server, path = serve(echo), tmp_path / "kept.jsonl"
    requests = [say(str(n)) for n in range(30)]
    budget = Budget(requests=11)
    batch = client_of(server, path, budget, concurrency=concurrency).ask([*requests, *requests])
    assert len(server.received) == budget.sent == 11
    assert batch.left == 19 and batch.stopped == "the budget of 11 requests is spent"
    kinds = [one.kind for one in batch.replies]
    assert kinds.count("complete") == 22 and kinds.count("unsent") == 38
    batch = client_of(server, path, Budget(requests=11)).ask(requests)
    assert batch.left == 8 and len(server.received) == 22  # what was answered is kept


def test_retries_are_of_the_budget_too(serve, tmp_path):
    server, path = serve(lambda body, nth: (500, {}, b"", "")), tmp_path / "kept.jsonl"
    batch = client_of(server, path, Budget(requests=3)).ask([say("a")])
    assert len(server.received) == 3 and batch.left == 1
    assert only(batch).attempts == 3
    later = client_of(server, path)  # knows what the run has spent
    assert later.transcript.sent == 3 and later.find(say("a")) is None


def test_tokens_and_money_end_a_batch(serve):
    server = serve(echo)
    requests = [say(str(n)) for n in range(9)]
    batch = client_of(server, budget=Budget(tokens=30), concurrency=1).ask(requests)
    assert batch.left == 6 and batch.stopped == "the budget of 30 tokens is spent"
    prices = Budget(money=2.0, price_in=100_000.0, price_out=0.0)  # 10 tokens cost 1
    batch = client_of(serve(echo), budget=prices, concurrency=1).ask(requests)
    assert batch.left == 7 and prices.cost == 2.0


KILLED = """
import sys
from pathlib import Path
from nblib.sources.endpoint import Client, Endpoint
from nblib.sources.endpoint_cache import Request
url, path = sys.argv[1:]
client = Client(Endpoint(url=url, model="m", concurrency=1), path=Path(path))
client.ask([Request(messages=({"role": "user", "content": str(n)},)) for n in range(12)])
"""


def test_after_a_kill_only_what_is_missing_is_sent(serve, tmp_path):
    """The server kills the client while it waits for the sixth answer."""
    path, processes = tmp_path / "kept.jsonl", []

    def answer(body, nth):
        if nth == 6:
            processes[0].kill()
            processes[0].wait()
        return echo(body, nth)

    server = serve(answer)
    command = [sys.executable, "-c", KILLED, server.url, str(path)]
    checkout = Path(endpoint_module.__file__).parents[2]
    processes.append(subprocess.Popen(command, cwd=checkout))
    assert processes[0].wait(60) == -9
    assert len(server.received) == 6 and len(read_jsonl(path)) == 5
    batch = client_of(server, path).ask([say(str(n)) for n in range(12)])
    assert [one.text for one in batch.replies] == [str(n) for n in range(12)]
    assert len(server.received) == 6 + 7 and len(read_jsonl(path)) == 12


def test_a_line_that_was_cut_off_is_taken_out(serve, tmp_path):
    server, path = serve(echo), tmp_path / "kept.jsonl"
    client_of(server, path).ask([say("a"), say("b")])
    first, second = path.read_bytes().splitlines(keepends=True)
    for cut in (1, len(second) // 2, len(second) - 1):
        path.write_bytes(first + second[:cut])
        client = client_of(server, path)
        assert path.read_bytes() == first
        before = len(server.received)
        assert len(client.ask([say("a"), say("b")]).replies) == 2
        assert len(server.received) == before + 1
    path.write_bytes(b'{"id": 1}\n')
    with pytest.raises(ValueError, match="no transcript of an endpoint"):
        client_of(server, path)


def test_the_file_tells_what_was_asked_and_what_came(serve, tmp_path):
    path = tmp_path / "kept.jsonl"
    client_of(serve(echo), path).ask([say("a", temperature=0)])
    (record,) = read_jsonl(path)
    assert datetime.fromisoformat(record.pop("time")) and record.pop("seconds") > 0
    assert record.pop("key") == say("a", temperature=0).key("m")
    assert record == {
        **{"model": "m", "messages": [{"role": "user", "content": "a"}]},
        **{"parameters": {"temperature": 0}, "kind": "complete", "text": "A", "reason": ""},
        **{"status": 200, "finish_reason": "stop", "tokens": [10, 2], "estimated": False},
        "attempts": 1,
    }
    assert Reply(kind="complete").is_complete


def test_an_interrupt_leaves_what_was_answered(serve, tmp_path, monkeypatch):
    server = serve(lambda body, nth: (500, {}, b"", "") if nth == 3 else echo(body, nth))
    path = tmp_path / "kept.jsonl"

    def interrupt(self, seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, WAITS, interrupt)
    client = client_of(server, path, concurrency=1)
    with pytest.raises(KeyboardInterrupt):
        client.ask([say(str(n)) for n in range(9)])
    sent = len(server.received)
    assert sent < 9
    assert client.ask([say(str(n)) for n in range(9)]).left == 0
    assert len(server.received) == 9 + 1


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/", "http://h:1/v1/chat/completions"),
        (" https://h/v1 ", "https://h/v1/chat/completions"),
        ("https://h/v1/", "https://h/v1/chat/completions"),
        ("https://h/api/v1/chat/completions", "https://h/api/v1/chat/completions"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai/chat/completions"),
    ],
)
def test_a_url_may_end_as_it_likes(url, address):
    assert Endpoint(url=url, model="m").address == address


@pytest.mark.parametrize(
    "url", ["", "h:1", "ftp://h", "file:///etc", "http://", "http://u:p@h", "http://u:p@h:1e9"]
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match=r"endpoint URL .*expected http\(s\)") as error:
        Endpoint(url=url, model="m")
    assert "u:p" not in str(error.value)


@pytest.mark.parametrize(
    "wrong", [{"model": " "}, {"concurrency": 0}, {"retries": -1}, {"timeout_s": 0}]
)
def test_other_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match="endpoint"):
        Endpoint(**{"url": "http://h", "model": "m", **wrong})


def test_what_is_missing_is_said_in_one_message(monkeypatch):
    with pytest.raises(ValueError, match="no endpoint") as error:
        endpoint_from_environment("JUDGE")
    assert str(error.value) == (
        "no endpoint: set the URL in NBLIB_JUDGE_URL or NBLIB_ENDPOINT_URL or LITELLM_API_BASE and "
        "the model's name in NBLIB_JUDGE_MODEL or NBLIB_ENDPOINT_MODEL, in the environment or in a "
        "file .env beside the notebooks"
    )
    monkeypatch.setenv("LITELLM_API_BASE", "http://h")
    with pytest.raises(ValueError, match="set the model's name in NBLIB_ENDPOINT_MODEL, in the"):
        endpoint_from_environment()


def found(name="ENDPOINT"):
    one = endpoint_from_environment(name)
    return one.url, one.model, one.key.get_secret_value(), one.key_variable


def test_own_names_win_and_a_variable_wins_over_the_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text(
        "LITELLM_API_BASE=http://lite\nLITELLM_API_KEY='k-${HOME}'\nNBLIB_ENDPOINT_MODEL=filed\n"
    )
    assert found() == ("http://lite", "filed", "k-${HOME}", "LITELLM_API_KEY")
    monkeypatch.setenv("NBLIB_ENDPOINT_MODEL", "set")
    assert found()[1] == "set" and found("JUDGE")[1] == "set"
    monkeypatch.setenv("NBLIB_JUDGE_MODEL", "judge")
    assert found()[1] == "set" and found("JUDGE")[1] == "judge"
    monkeypatch.setenv("NBLIB_JUDGE_URL", "http://judge")
    assert found()[0] == "http://lite" and found("JUDGE")[0] == "http://judge"


@pytest.mark.parametrize("runs_in", ["", "notebooks"])
@pytest.mark.parametrize("lies_in", ["", "notebooks"])
def test_the_file_lies_beside_the_notebooks_or_above(lies_in, runs_in, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / runs_in)
    (tmp_path / lies_in / ".env").write_text("NBLIB_JUDGE_URL=http://h\nNBLIB_JUDGE_MODEL=m\n")
    assert found("JUDGE") == ("http://h", "m", "", "NBLIB_JUDGE_KEY")


def test_a_key_goes_to_no_server_but_its_own(monkeypatch):
    monkeypatch.setenv("LITELLM_API_KEY", "of-lite-llm")
    monkeypatch.setenv("NBLIB_ENDPOINT_URL", "http://mine")
    monkeypatch.setenv("NBLIB_ENDPOINT_MODEL", "m")
    assert found()[2] == found("JUDGE")[2] == ""
    monkeypatch.setenv("NBLIB_ENDPOINT_KEY", "of-mine")
    assert found()[2] == found("JUDGE")[2] == "of-mine"
    monkeypatch.setenv("NBLIB_JUDGE_KEY", "of-judge")  # another account at the same server
    assert found("JUDGE")[2] == "of-judge"
    monkeypatch.setenv("NBLIB_JUDGE_URL", "http://judge")
    monkeypatch.delenv("NBLIB_JUDGE_KEY")
    assert found("JUDGE")[2] == ""
