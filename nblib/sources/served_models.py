"""What a server says of its model: GET {URL}/models; and whether two names mean one model.

    vLLM        {"data": [{"id": "judge", "root": "Qwen/Qwen2.5-72B-Instruct-AWQ",
                           "parent": null, "max_model_len": 32768}]}
    llama.cpp   {"data": [{"id": "gemma", "meta": {"n_ctx": 4096, "n_ctx_train": 32768}}]}

Two served names may be of one model: then they share a `root`, or one is an adapter whose `parent`
is the other. A server that lists nothing says nothing, which is no error.
https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from nblib.files import parse_json
from nblib.sources.endpoint import Endpoint, exchange

_CHAT = "/chat/completions"
_CACHED = re.compile(r"models--[^/]+--([^/]+)")  # a folder of the Hugging Face cache
# What may stand behind a model's name: how its weights are packed, not which model it is.
_PACKED = re.compile(
    r"[-_.:](?:awq|gptq|gguf|exl[23]|mlx|bnb|dynamic|quantized|marlin|unsloth|qat|autoround|hqq|imat"
    r"|ud|free|latest|(?:nv|mx)?fp[48]|bf16|fp?16|fp?32|int[48]|w\d+a\d+|[2-8]bit|\d+g"
    r"|\d+(?:\.\d+)?bpw|i?q\d(?:_[a-z\d]+)*|\d{4}-\d{2}-\d{2}|\d{5}-of-\d{5})$"
)
_SIGNS = re.compile(r"[^a-z\d]")


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model as its server lists it; what it does not say is "" or None."""

    id: str
    root: str = ""  # where its weights come from
    parent: str = ""  # of an adapter, its base model
    context: int | None = None  # tokens of a prompt and its answer together


def served_model(endpoint: Endpoint) -> ServedModel | None:
    """Return what the server lists of an endpoint's model; None where it lists no such model.

    A server that lists one model alone serves that, by any name.
    """
    address = endpoint.address.removesuffix(_CHAT) + "/models"
    try:
        status, _, content = exchange(urllib3.PoolManager(), endpoint, "GET", address)
        listed = parse_json(content)["data"] if status == 200 else []
        models = [one for one in listed if isinstance(one["id"], str)]
    except (urllib3.exceptions.HTTPError, TimeoutError, ValueError, LookupError, TypeError):
        return None
    named = [one for one in models if one["id"] == endpoint.model] or models
    return _served(named[0]) if len(named) == 1 else None


def names_of(endpoint: Endpoint) -> tuple[str, ...]:
    """Return all names that an endpoint's model is known by: served ones, its root, its parent."""
    found = served_model(endpoint)
    names = (endpoint.model, *((found.id, found.root, found.parent) if found else ()))
    return tuple(dict.fromkeys(filter(None, names)))


def plain_name(name: str) -> str:
    """Return the letters and digits of a model's name, without folder and how it is packed.

    >>> plain_name("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4"), plain_name("qwen2.5:72b-instruct-q4_K_M")
    ('qwen2572binstruct', 'qwen2572binstruct')
    """
    path = name.strip().replace("\\", "/").rstrip("/")
    cached = _CACHED.search(path)
    short = (cached[1] if cached else path.rpartition("/")[2]).partition("@")[0].casefold()
    while (shorter := _PACKED.sub("", short)) != short:
        short = shorter
    return _SIGNS.sub("", short)


def _served(entry: Mapping[str, Any]) -> ServedModel:
    meta = entry.get("meta")
    sizes = [entry.get("max_model_len")]
    sizes += [meta.get(name) for name in ("n_ctx", "n_ctx_train")] if isinstance(meta, dict) else []
    texts = {name: entry.get(name) for name in ("root", "parent")}
    return ServedModel(
        id=entry["id"],
        context=next((one for one in sizes if type(one) is int and one > 0), None),
        **{name: one for name, one in texts.items() if isinstance(one, str)},
    )
