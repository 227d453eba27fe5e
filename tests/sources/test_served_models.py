"""What servers list of their models, on loopback; and which names mean one model."""

import re

import pytest
from pydantic import SecretStr

from nblib.sources.endpoint import Endpoint
from nblib.sources.served_models import ServedModel, names_of, plain_name, served_model

KEY = "sk-secret-of-this-test"
ROOT = "Qwen/Qwen2.5-72B-Instruct-AWQ"
VLLM = {"id": "judge", "object": "model", "root": ROOT, "parent": None, "max_model_len": 32768}
ADAPTER = {"id": "tuned", "root": "/adapters/tuned", "parent": "judge", "max_model_len": None}
LLAMA = {"id": "/m/gemma.gguf", "meta": {"n_ctx": 2048, "n_ctx_train": 32768}}


def listing(*models):
    return {"object": "list", "data": [*models]}


def endpoint(server, model="judge"):
    return Endpoint(url=server.url, model=model, key=SecretStr(KEY))


@pytest.mark.parametrize(
    ("listed", "model", "found"),
    [
        (listing(VLLM), "judge", ServedModel(id="judge", root=ROOT, context=32768)),
        (
            listing(VLLM, ADAPTER),
            "tuned",
            ServedModel(id="tuned", root="/adapters/tuned", parent="judge"),
        ),
        (listing(LLAMA), "any", ServedModel(id="/m/gemma.gguf", context=2048)),
        (
            listing({"id": "x", "meta": {"n_ctx_train": 512}}),
            "x",
            ServedModel(id="x", context=512),
        ),
        (
            listing({"id": "x", "root": 3, "max_model_len": True, "meta": [1]}),
            "x",
            ServedModel(id="x"),
        ),
        (listing({"id": "a"}, {"id": "b"}), "c", None),  # a gateway without this name
        (listing({"id": "a"}, {"id": "a"}), "a", None),
        (listing(), "judge", None),
        (listing({"name": "judge"}), "judge", None),
        (listing("judge"), "judge", None),
        ({"data": None}, "judge", None),
        ([1], "judge", None),
        (b"<html>", "judge", None),
        (None, "judge", None),
    ],
)
def test_a_model_is_found_in_a_servers_list(listed, model, found, serve):
    server = serve(None)
    server.listed = listed
    assert served_model(endpoint(server, model)) == found


def test_the_key_is_sent_and_nothing_is_asked_of_the_model(serve):
    server = serve(None)
    server.listed = listing(VLLM)
    served_model(endpoint(server))
    assert [one["Authorization"] for one in server.lists] == [f"Bearer {KEY}"]
    assert server.received == []


def test_a_server_that_is_not_there_says_nothing(serve):
    server = serve(None)
    server.close()
    assert served_model(endpoint(server)) is None
    assert names_of(endpoint(server)) == ("judge",)


def test_all_names_of_a_model(serve):
    server = serve(None)
    server.listed = listing(VLLM, ADAPTER)
    assert names_of(endpoint(server)) == ("judge", ROOT)
    assert names_of(endpoint(server, "tuned")) == ("tuned", "/adapters/tuned", "judge")


@pytest.mark.parametrize(
    ("names", "plain"),
    [
        (
            (
                *("Qwen/Qwen2.5-72B-Instruct", "qwen2.5-72b-instruct", " Qwen2.5-72B-Instruct/ "),
                *(ROOT, "Qwen2.5-72B-Instruct-GPTQ-Int4", "Qwen2.5-72B-Instruct-FP8-dynamic"),
                *("mlx/Qwen2.5-72B-Instruct-4bit", "x/Qwen2.5-72B-Instruct-GGUF"),
                *(
                    "/m/Qwen2.5-72B-Instruct.Q4_K_M.gguf",
                    "C:\\m\\Qwen2.5-72B-Instruct-IQ2_XXS.gguf",
                ),
                *("qwen2.5-72b-instruct-q4_k_m-00001-of-00012.gguf",),
                *("Qwen2.5-72B-Instruct-bnb-4bit", "Qwen2.5-72B-Instruct-quantized.w4a16"),
                *("/hub/models--Qwen--Qwen2.5-72B-Instruct/snapshots/0a1b2c",),
            ),
            "qwen2.5-72b-instruct",
        ),
        (("google/gemma-3-27b-it", "gemma-3-27b-it-bf16", "gemma-3-27b-it.Q8_0"), "gemma-3-27b-it"),
        (("Qwen/Qwen2.5-Math-7B-Instruct",), "qwen2.5-math-7b-instruct"),
        (("Qwen/Qwen2.5-7B-Instruct",), "qwen2.5-7b-instruct"),
        (("deepseek-ai/DeepSeek-V3.1",), "deepseek-v3.1"),
        (("openai/gpt-4o", "gpt-4o"), "gpt-4o"),
        (("int4",), "int4"),
    ],
)
def test_a_name_without_how_the_weights_are_packed(names, plain):
    assert {plain_name(one) for one in names} == {re.sub(r"[^a-z0-9]", "", plain)}
