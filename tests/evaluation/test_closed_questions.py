"""Questions with a closed list of answers; the judge's tests hold how a reply is read."""

import json

import pytest

from nblib.evaluation.closed_questions import ClosedQuestions, Verdict
from nblib.sources.endpoint import Client, Endpoint
from tests.sources.chat_server import asked, chat


class Colours(ClosedQuestions[str]):
    words = ("red", "blue")
    max_tokens = 7

    def text(self, one):
        return f"Which colour has {one}?"


def answer(body, nth):
    return chat(json.dumps({"verdict": "red" if "rose" in asked(body) else "green"}))


def colours_at(server):
    return Colours(Client(Endpoint(url=server.url, model="m", retries=0)))


def test_the_list_is_in_the_format_and_another_word_is_none(serve):
    server = serve(answer)
    found = colours_at(server).ask(["a rose", "grass", "a rose"])
    assert found["a rose"] == Verdict(word="red")
    assert found["grass"].word == "failed" and "green" in found["grass"].reason
    bodies = [body for _, body in server.received]
    assert [asked(body) for body in bodies] == [
        *("Which colour has a rose?", "Which colour has grass?")
    ]
    for body in bodies:
        schema = body["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["verdict"]["enum"] == ["red", "blue"]
        assert (body["max_tokens"], body["temperature"]) == (7, 0)


def test_nothing_is_sent_for_nothing_and_a_question_must_have_a_text(serve):
    server = serve(answer)
    assert colours_at(server).ask([]) == {} and server.received == []
    with pytest.raises(NotImplementedError):
        ClosedQuestions(Client(Endpoint(url=server.url, model="m"))).ask(["a rose"])
