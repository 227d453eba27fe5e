"""A client of any server with OpenAI's chat API: POST {URL}/chat/completions.

For a judge, a generator or a verifier. The settings are environment variables, or lines of a file
`.env` in the checkout or its folder `notebooks`; a variable wins over the file:

    NBLIB_JUDGE_URL, NBLIB_JUDGE_MODEL, NBLIB_JUDGE_KEY            of one among several endpoints
    NBLIB_ENDPOINT_URL, NBLIB_ENDPOINT_MODEL, NBLIB_ENDPOINT_KEY   of those that have none
    LITELLM_API_BASE, LITELLM_API_KEY                              where those say nothing

A key is sent to the server whose address stands beside it, or less closely, and to no other. It is
never shown nor written: not in a message, a file or a `repr`. Proxies of the environment are not
used. https://platform.openai.com/docs/api-reference/chat
"""

import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import urllib3
from pydantic import SecretStr

from nblib.files import shown
from nblib.sources.endpoint_cache import Budget, Reply, Request, Transcript, failed, read_reply

_PATH = "/chat/completions"
_RETRIED = (408, 429, *range(500, 600))
_NO_KEY = (401, 403)
_LONGEST_WAIT_S = 60.0
_MOST_BYTES = 32 * 2**20  # of one answer
_NO_SECRET = SecretStr("")
_SHORTEST_KEY = 8  # a shorter one is a placeholder, and may stand anywhere in a text


class NoEndpoint(ValueError):
    """The variables of an endpoint are not set."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model is asked, and how patiently.

    Attributes:
        url: `http://host:8000`, with or without `/v1`; another path is taken as it is.
        model: As the server calls it.
        key: Sent as a bearer token; "" sends none.
        key_variable: Where it came from, for messages.
        concurrency: Requests at a time.
        retries: Attempts after the first.
        first_wait_s: Before the second attempt; it doubles each time, less up to half by chance.
        connect_s: To reach the server.
        timeout_s: From a request to the last byte of its answer.
    """

    url: str
    model: str
    key: SecretStr = _NO_SECRET
    key_variable: str = "NBLIB_ENDPOINT_KEY"
    concurrency: int = 4
    retries: int = 4
    first_wait_s: float = 1.0
    connect_s: float = 10.0
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse what no request can be sent to."""
        try:
            parts = urllib3.util.parse_url(self.url.strip())
        except urllib3.exceptions.LocationValueError:  # whose message may hold a password
            raise ValueError("endpoint URL cannot be read, expected http(s)://host") from None
        if parts.scheme not in ("http", "https") or not parts.host or parts.auth or parts.query:
            came = shown(self.url) if not parts.auth else "one with a password in it"
            raise ValueError(f"endpoint URL is {came}, expected http(s)://host, port and path")
        if not self.model.strip():
            raise ValueError("endpoint model is empty, expected its name as the server calls it")
        key = self.key.get_secret_value()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(f"{self.key_variable} holds white space or other signs than a key has")
        numbers = (self.concurrency - 1, self.retries, self.first_wait_s)
        seconds = (self.connect_s, self.timeout_s)
        if min(numbers) < 0 or not all(0 < one <= threading.TIMEOUT_MAX for one in seconds):
            raise ValueError("endpoint: concurrency and seconds must be above 0, retries 0 or more")

    @property
    def address(self) -> str:
        """The URL that requests are posted to."""
        parts = urllib3.util.parse_url(self.url.strip())
        path = (parts.path or "").rstrip("/").removesuffix(_PATH) or "/v1"
        return parts._replace(path=path + _PATH, fragment=None).url

    def hidden(self, text: str) -> str:
        """Return the text with stars in place of the key: a server may echo it."""
        key = self.key.get_secret_value()
        return text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text


def endpoint_from_environment(name: str = "ENDPOINT", **more: Any) -> Endpoint:
    """Return the endpoint that the variables NBLIB_<name>_URL, _MODEL and _KEY say.

    `more` are other fields of `Endpoint`. Raises NoEndpoint saying which variables to set.
    """
    values = {**_dotenv(), **{name: one for name, one in os.environ.items() if one}}
    sets = [*(f"NBLIB_{one}" for one in dict.fromkeys((name, "ENDPOINT"))), "LITELLM_API"]
    urls = [f"{one}_BASE" if one == "LITELLM_API" else f"{one}_URL" for one in sets]
    at = next((place for place, one in enumerate(urls) if values.get(one)), None)
    models = [f"{one}_MODEL" for one in sets[:-1]]
    model = next((values[one] for one in models if values.get(one)), None)
    missing = [
        *([f"the URL in {' or '.join(urls)}"] if at is None else []),
        *([f"the model's name in {' or '.join(models)}"] if model is None else []),
    ]
    if at is None or model is None:
        raise NoEndpoint(
            f"no endpoint: set {' and '.join(missing)}, in the environment or in a file .env "
            "beside the notebooks"
        )
    # Not one of a set that names another server.
    keys = [f"{one}_KEY" for one in sets[: at + 1]]
    variable = next((one for one in keys if values.get(one)), keys[0])
    key = SecretStr((values.get(variable) or "").strip())
    return Endpoint(url=values[urls[at]], model=model, key=key, key_variable=variable, **more)


def _dotenv() -> dict[str, str]:
    from dotenv import dotenv_values

    places = [Path(".env"), Path("notebooks/.env")]
    if Path.cwd().name == "notebooks":
        places.append(Path("../.env"))
    found = next((one for one in places if one.is_file()), None)
    values = dotenv_values(found, interpolate=False) if found else {}
    return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The replies to a batch of requests, in their order."""

    replies: tuple[Reply, ...]
    left: int  # different requests that were not sent, or not often enough
    stopped: str = ""  # why; "" where all were


class Client:
    """Asks an endpoint; what its file holds already is not asked again.

    ```
    client = Client(endpoint_from_environment("JUDGE"), path=run.path / "judge.jsonl")
    batch = client.ask([Request(messages=({"role": "user", "content": "1 + 1?"},))])
    ```

    Args:
        endpoint: Where to ask.
        path: The cache and transcript; None keeps replies in memory.
        budget: What may be spent; no limit where there is none.
        seed: Of the waits between attempts.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        path: Path | None = None,
        budget: Budget | None = None,
        seed: int = 0,
    ) -> None:
        self.endpoint, self.transcript = endpoint, Transcript(path)
        self.budget = Budget() if budget is None else budget
        self._seed, self._stop, self._refusal = seed, threading.Event(), ""
        self._is_there = False  # whether the server has answered, with any status
        self._pool = urllib3.PoolManager(maxsize=endpoint.concurrency)

    def limit(self, *, requests: int | None = None, tokens: int | None = None) -> None:
        """Set what may be spent in all: what the file knows of, of earlier starts too, counts."""
        spent = self.transcript
        self.budget = Budget(requests=requests, tokens=tokens, sent=spent.sent, used=spent.used)

    def find(self, request: Request) -> Reply | None:
        """Return the reply that is kept of a request."""
        return self.transcript.find(request.key(self.endpoint.model))

    def ask(self, requests: Sequence[Request]) -> Batch:
        """Return the replies to all requests; equal ones are sent once.

        Nothing more is sent after a reply that refuses the key, or if the server never answers.
        """
        if not self._refusal:
            self._stop.clear()  # of an interrupt
        keys = [one.key(self.endpoint.model) for one in requests]
        asked = dict(zip(keys, requests, strict=True))
        replies = {key: one for key in asked if (one := self.transcript.find(key))}
        missing = [key for key in asked if key not in replies]
        with ThreadPoolExecutor(self.endpoint.concurrency) as threads:
            try:
                found = threads.map(self._ask, missing, (asked[key] for key in missing))
                replies |= zip(missing, found, strict=True)
            except BaseException:  # an interrupt too: what waits is not sent
                self._stop.set()
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        unsent = [one.reason for one in replies.values() if one.kind == "unsent"]
        stopped = unsent[0] if unsent else ""
        return Batch(replies=tuple(replies[key] for key in keys), left=len(unsent), stopped=stopped)

    def _ask(self, key: str, request: Request) -> Reply:
        """Send a request until it is answered, or cannot be."""
        began, body = time.monotonic(), request.body(self.endpoint.model)
        draws = random.Random(f"{self._seed}/{key}")
        reply, attempts = failed("not sent"), 0
        for attempt in range(self.endpoint.retries + 1):
            if reason := self._why_not():
                reply = Reply(kind="unsent", reason=reason)
                break
            attempts += 1
            reply, wait_s = self._attempt(body, request)
            if wait_s is None or attempt == self.endpoint.retries:
                break
            backoff = self.endpoint.first_wait_s * 2**attempt * draws.uniform(0.5, 1)
            self._pause(min(max(wait_s, backoff), _LONGEST_WAIT_S))
        if reply.kind == "failed" and not self._is_there:
            self._refuse(f"no server answers at {self.endpoint.url} ({reply.reason})")
        reply = replace(reply, attempts=attempts, seconds=time.monotonic() - began)
        if attempts:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.transcript.add(key, body, reply, time=now)
        return reply

    def _why_not(self) -> str:
        """Count the next request; return why it may not be sent, "" where it may."""
        interrupted = "interrupted" if self._stop.is_set() else ""
        return self._refusal or interrupted or self.budget.take()

    def _attempt(self, body: Mapping[str, Any], request: Request) -> tuple[Reply, float | None]:
        """Return a reply, and the least seconds to wait before the next attempt; None for none."""
        try:
            sent, address = json.dumps(body).encode(), self.endpoint.address
            status, head, content = exchange(self._pool, self.endpoint, "POST", address, sent)
        except (urllib3.exceptions.HTTPError, TimeoutError) as error:
            return failed(self.endpoint.hidden(f"{type(error).__name__}: {error}")), 0.0
        self._is_there = True
        content = self.endpoint.hidden(content.decode(errors="replace")).encode()
        if status == 200:
            reply = read_reply(content, request)
            self.budget.pay(reply.tokens)
            return reply, None
        reply = failed(f"status {status}: {shown(content[:200].decode(errors='replace'))}")
        reply = replace(reply, status=status)
        if status in _NO_KEY:
            key = f"it does not take the key; set {self.endpoint.key_variable}"
            self._refuse(f"{self.endpoint.url} answered {status}: {key}")
        return reply, retry_after_s(head.get("Retry-After")) if status in _RETRIED else None

    def _refuse(self, reason: str) -> None:
        """Send nothing more, and wake what waits."""
        self._refusal = self._refusal or f"{reason}; nothing more was sent"
        self._stop.set()

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)


def exchange(
    pool: urllib3.PoolManager, endpoint: Endpoint, method: str, address: str, body: bytes = b""
) -> tuple[int, Mapping[str, str], bytes]:
    """Send one request; return status, head and body of its answer, within the time limit.

    Raises urllib3's HTTPError, or TimeoutError.
    """
    limit_s, key = endpoint.timeout_s, endpoint.key.get_secret_value()
    head = {"Authorization": f"Bearer {key}"} if key else {}
    asked: dict[str, Any] = {"retries": False, "redirect": False, "preload_content": False}
    asked["timeout"] = urllib3.Timeout(connect=endpoint.connect_s, read=limit_s)
    asked["headers"] = {"Content-Type": "application/json", **head}
    ends, content = time.monotonic() + limit_s, b""
    answer = pool.request(method, address, body=body or None, **asked)
    try:
        while part := answer.read1(2**16, decode_content=True):
            content += part
            if len(content) > _MOST_BYTES:
                raise urllib3.exceptions.ProtocolError(f"over {_MOST_BYTES:,} bytes")
            if time.monotonic() > ends:  # some servers send blanks to keep a line open
                raise TimeoutError(f"no whole answer within {limit_s:g} s")
    except (urllib3.exceptions.HTTPError, TimeoutError):
        answer.close()
        raise
    answer.release_conn()
    return answer.status, answer.headers, content


def retry_after_s(value: str | None) -> float:
    """Return the seconds that a head `Retry-After` asks for: a number of them, or a date."""
    if value is None:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
