"""Questions to a model behind an endpoint, each answered with one word of a closed list.

    asked    ... Answer with one JSON object: {"verdict": "right"}, {"verdict": "wrong"}, ...
    answer   {"verdict": "right"}

A server that takes a `response_format` is held to the list by it; one that refuses it is asked
without. Thoughts before the answer are left out. Then it is read strictly: anything but one JSON
object with one of the words is a failure, and no word. For most uses prefer `judge` or `verifier`.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nblib.files import shown
from nblib.sources.endpoint import Client
from nblib.sources.endpoint_cache import Reply, Request
from nblib.tasks.json_schema import object_schema
from nblib.tasks.json_text import read_json_text

_REFUSED = (400, 415, 422, 501)  # by servers that do not know a parameter
Asked = TypeVar("Asked", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a question: one of the words, or "failed" or "unsent" with the reason."""

    word: str
    reason: str = ""


class ClosedQuestions(Generic[Asked]):
    """Asks the same of many things; what its client's file holds is not asked again.

    Attributes:
        words: The answers that there are.
        max_tokens: Of an answer; some models think first.
    """

    words: tuple[str, ...]
    max_tokens: int = 1024

    def __init__(self, client: Client) -> None:
        self.client, self.stopped = client, ""
        self._formatted: bool | None = None  # None: not tried yet

    def text(self, one: Asked) -> str:
        """Return what is asked of one thing."""
        raise NotImplementedError

    def ask(self, things: Iterable[Asked]) -> dict[Asked, Verdict]:
        """Return a verdict of each different thing; each is asked once, at temperature 0."""
        asked = list(dict.fromkeys(things))
        if not asked:
            return {}
        if self._formatted is None:
            self._formatted = self._takes_a_format(asked)
        batch = self.client.ask([self._request(one, formatted=self._formatted) for one in asked])
        self.stopped = self.stopped or batch.stopped
        return {one: self._verdict(reply) for one, reply in zip(asked, batch.replies, strict=True)}

    def _takes_a_format(self, asked: Sequence[Asked]) -> bool:
        """Return whether the server takes a `response_format`; not one that refused it."""
        if any(self.client.find(self._request(one, formatted=False)) for one in asked):
            return False  # as an earlier session of this run found out
        (reply,) = self.client.ask([self._request(asked[0], formatted=True)]).replies
        return reply.status not in _REFUSED

    def _request(self, one: Asked, *, formatted: bool) -> Request:
        parameters: dict[str, Any] = {"temperature": 0, "max_tokens": self.max_tokens}
        if formatted:
            schema = object_schema({"verdict": {"type": "string", "enum": [*self.words]}})
            named = {"name": "verdict", "strict": True, "schema": schema}
            parameters["response_format"] = {"type": "json_schema", "json_schema": named}
        message = {"role": "user", "content": self.text(one)}
        return Request(messages=(message,), parameters=parameters)

    def _verdict(self, reply: Reply) -> Verdict:
        if reply.kind == "unsent":
            return Verdict(word="unsent", reason=reply.reason)
        if not reply.is_complete:
            return Verdict(word="failed", reason=f"{reply.kind}: {reply.reason}")
        text = read_json_text(reply.text.rpartition("</think>")[2])
        match text.value if text.strict else None:
            case {"verdict": str(word), **more} if word in self.words and not more:
                return Verdict(word=word)
        return Verdict(word="failed", reason=f"no verdict: {shown(reply.text)}")
