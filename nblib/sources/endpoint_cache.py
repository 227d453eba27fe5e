"""Requests to an endpoint, what they may cost, what came of them, and the file that keeps it.

The file is cache and transcript in one: a JSON line a request, added in one write when its reply is
there, so that a killed process loses at most the line that it was writing.

    {"key": "9f2c...", "model": "gemma", "messages": [...], "parameters": {"temperature": 0},
     "kind": "complete", "text": "...", "finish_reason": "stop", "tokens": [41, 7], ...}

A request is known by its hash: model, messages and parameters. The address is no part of it: a port
that changes, or a gateway in front of the same model, asks nothing again. What the server answered
is kept, also where it is cut, empty or refused: it would be answered, and paid for, once more. What
failed stands in the file, and is asked again.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from nblib.files import append_jsonl, naming, parse_json, read_jsonl, shown

Kind = Literal["complete", "truncated", "empty", "refused", "failed", "unsent"]
_KEPT = ("complete", "truncated", "empty", "refused")
_BEGINS = b'{"time": '  # a record
_A_TOKEN = 4  # characters, where the server does not count


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a chat model.

    Several answers to the same messages are several requests: give each a "seed" of its own.
    """

    messages: tuple[Mapping[str, str], ...]  # {"role": "user", "content": "..."}
    parameters: Mapping[str, Any] = field(default_factory=dict)  # as the API names them

    def body(self, model: str) -> dict[str, Any]:
        """Return what is sent."""
        return {"model": model, "messages": [*map(dict, self.messages)], **self.parameters}

    def key(self, model: str) -> str:
        """Return the hash that its reply is found by."""
        text = json.dumps([model, [*map(dict, self.messages)], self.parameters], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of a request. Only a `complete` one is an answer.

    Attributes:
        kind: "complete"; "truncated" at the token limit; "empty" text; "refused" by the model or a
            filter; "failed", for a reason; "unsent", as the budget was spent or the key is wrong.
        text: What the model wrote; of a truncated reply its beginning.
        reason: Why it is not complete.
        status: Of HTTP; None where no answer came.
        finish_reason: In the server's words.
        tokens: Of the prompt and of the completion.
        estimated: Whether the server did not count them.
        seconds: From the first attempt to the reply.
        attempts: Requests that were sent for it.
        kept: Whether it was in the file already.
    """

    kind: Kind
    text: str = ""
    reason: str = ""
    status: int | None = None
    finish_reason: str | None = None
    tokens: tuple[int, int] = (0, 0)
    estimated: bool = False
    seconds: float = 0.0
    attempts: int = 0
    kept: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the text is a whole answer."""
        return self.kind == "complete"


_IN_FILE = tuple(one.name for one in fields(Reply) if one.name != "kept")


def failed(reason: str, *, status: int | None = None) -> Reply:
    """Return the reply of a request that got none."""
    return Reply(kind="failed", reason=reason, status=status)


def read_reply(content: bytes, request: Request) -> Reply:
    """Return what the body of an answer with the status 200 says; it may be anything."""
    try:
        body = parse_json(content)
        choice = body["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
    except (ValueError, LookupError, TypeError, AttributeError):
        return failed(f"no chat completion: {shown(content[:200].decode(errors='replace'))}")
    if not isinstance(text, str | None) or not isinstance(ended, str | None):
        return failed(f"content {shown(text)}, finish_reason {shown(ended)}: expected texts")
    kind, reason = _kind(text, ended, refusal)
    tokens, estimated = _tokens(body.get("usage"), request, text or "")
    # Half a character is none for a file in UTF-8.
    written = (text or "").encode(errors="replace").decode()
    counted: dict[str, Any] = {"tokens": tokens, "estimated": estimated}
    return Reply(kind=kind, text=written, reason=reason, status=200, finish_reason=ended, **counted)


def _kind(text: str | None, ended: str | None, refusal: Any) -> tuple[Kind, str]:
    if refusal or ended == "content_filter":
        return "refused", f"refused: {shown(refusal or ended)}"
    if ended == "length":
        return "truncated", "cut at the token limit: raise max_tokens"
    if ended != "stop":
        return "failed", f"finish_reason is {shown(ended)}, expected 'stop': the text may be a part"
    return ("complete", "") if text and text.strip() else ("empty", "no text")


def _tokens(usage: Any, request: Request, text: str) -> tuple[tuple[int, int], bool]:
    """Return the tokens of prompt and completion, and whether they are guessed from characters."""
    match usage:
        case {"prompt_tokens": int(asked), "completion_tokens": int(written)}:
            return (max(0, asked), max(0, written)), False
    prompt = sum(len(one["content"]) for one in request.messages)
    return (-(-prompt // _A_TOKEN), -(-len(text) // _A_TOKEN)), True


@dataclass(kw_only=True)
class Budget:
    """What may be spent, by all clients that share it; None sets no limit.

    Requests are counted when they are sent, attempts again included, and never exceed their limit.
    Tokens and money are known afterwards: what is under way when a limit is reached is still paid.
    """

    requests: int | None = None
    tokens: int | None = None
    money: float | None = None
    price_in: float = 0.0  # of a million tokens of prompts, in any currency
    price_out: float = 0.0  # of a million tokens of completions
    sent: int = 0
    used: tuple[int, int] = (0, 0)  # tokens of prompts, of completions
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def cost(self) -> float:
        """What was paid."""
        return (self.used[0] * self.price_in + self.used[1] * self.price_out) / 1e6

    def take(self) -> str:
        """Count one request; return why none may be sent, "" where it may."""
        limits = {"requests": self.requests, "tokens": self.tokens, "money": self.money}
        with self._lock:
            spent = {"requests": self.sent, "tokens": sum(self.used), "money": self.cost}
            for name, limit in limits.items():
                if limit is not None and spent[name] >= limit:
                    return f"the budget of {limit:,} {name} is spent"
            self.sent += 1
        return ""

    def pay(self, tokens: tuple[int, int]) -> None:
        """Count the tokens of a reply."""
        with self._lock:
            self.used = (self.used[0] + tokens[0], self.used[1] + tokens[1])


class Transcript:
    """The file of all requests and replies; without a path they are kept in memory alone.

    Raises ValueError, by file and line, for a file that is none; a last line that was cut off is
    taken out of it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self._lock = path, threading.Lock()
        self._replies: dict[str, Reply] = {}
        self.sent, self.used = 0, (0, 0)  # requests and tokens that the file knows of
        for record in _read_whole_lines(path) if path and path.exists() else ():
            try:
                key, reply = record["key"], Reply(**{name: record[name] for name in _IN_FILE})
                prompt, completion = reply.tokens
            except (LookupError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path} is no transcript of an endpoint: remove it, or name another file"
                ) from error
            self._count(reply)
            if reply.kind in _KEPT:
                self._replies[key] = replace(reply, tokens=(prompt, completion), kept=True)

    def find(self, key: str) -> Reply | None:
        """Return the reply to a request that was asked before."""
        return self._replies.get(key)

    def add(self, key: str, body: Mapping[str, Any], reply: Reply, *, time: str) -> None:
        """Write a request and its reply; `body` is as it was sent."""
        parameters = {k: v for k, v in body.items() if k not in ("model", "messages")}
        record = {"time": time, "key": key, "model": body["model"], "messages": body["messages"]}
        record |= {"parameters": parameters, **asdict(reply)}
        del record["kept"]
        with self._lock:
            if self.path:
                append_jsonl(self.path, record)
            self._count(reply)
            if reply.kind in _KEPT:
                self._replies[key] = replace(reply, kept=True)

    def _count(self, reply: Reply) -> None:
        self.sent += reply.attempts
        self.used = (self.used[0] + reply.tokens[0], self.used[1] + reply.tokens[1])


def _read_whole_lines(path: Path) -> list[Any]:
    """Return the records of a file whose last line may be a part, which is cut off.

    A file that does not begin as a transcript is left as it is.
    """
    with naming(path), path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content) and content.startswith(_BEGINS[: len(content)]):
            file.truncate(whole)
    return read_jsonl(path)
