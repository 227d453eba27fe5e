"""The parity gate of a GGUF file: is each tensor as it was rounded, and does llama.cpp agree?

Rounded weights answer a little differently than the model in memory. So three things are compared:
every tensor of the file, read back, with its rounding, bit by bit; the answers of these weights
with those in memory; and the answers of llama.cpp with those of this library on these same weights,
where the package `xllamacpp` (the extra `parity`) is installed. Its tokenizer must agree, too.
"""

import importlib.util
import json
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sentencepiece as spm
from jaxtyping import Float, Int
from safetensors import safe_open
from tunix.models.gemma3.model import Gemma3

from nblib.models.folders import GGUF_KINDS, WEIGHTS_FILE, gguf_files, gguf_name
from nblib.models.gguf_export import stored_tensors
from nblib.models.gguf_file import blocks, tensor_names
from nblib.models.gguf_model import convert
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.models.parity import (
    NEW_TOKENS,
    PROMPTS,
    Parity,
    choice_logits,
    compare,
    greedy,
    in_fp32,
    prompt_rows,
)

LLAMA_CPP = "llama.cpp"
TOP = 10  # tokens that llama.cpp gives the probability of, for each choice
# Shares of the largest logit. By rounded weights 0.0009 and 0.024 were measured (Gemma 3 270M), by
# llama.cpp, which rounds activations as well, 0.0013 (the embedded model) and 0.018 (270M).
ROUNDING = {"f16": 0.01, "q8_0": 0.1}
OF_LLAMA_CPP = {"f16": 0.005, "q8_0": 0.06}
TIE = 0.2  # of that limit: likely tokens differ less; a twentieth was the most that was measured


def compare_gguf(
    model: Gemma3, base: RefModel, folder: Path, prompts: Sequence[str]
) -> tuple[Parity, ...]:
    """Compare a model in memory with what this library and llama.cpp make of its GGUF folder."""
    (file,) = gguf_files(folder)
    (kind,) = [kind for kind in GGUF_KINDS if file.name == gguf_name(kind)]
    tokens, logits = greedy(in_fp32(model), prompt_rows(base.tokenizer, prompts), mesh=base.mesh)
    try:
        found = _read_back(file, kind, model, base, tokens)
    except ValueError as error:
        return (Parity.failed("nblib", str(error)),)
    ours = compare(tokens, logits, found, reader="nblib", tolerance=ROUNDING[kind])
    if not importlib.util.find_spec("xllamacpp"):
        return (ours,)
    try:
        server = llama_cpp(file)
    except RuntimeError as error:
        return ours, Parity.failed(LLAMA_CPP, str(error))
    if failure := tokenizer_difference(server, base.tokenizer, prompts[:PROMPTS]):
        return ours, Parity.failed(LLAMA_CPP, failure)
    (digit,) = base.tokenizer.encode("1")
    top = top_choices(server, tokens, digit=digit)
    return ours, compare_top(found, top, tolerance=OF_LLAMA_CPP[kind])


def _read_back(
    file: Path, kind: str, model: Gemma3, base: RefModel, tokens: Int[np.ndarray, "P T"]
) -> Float[np.ndarray, "P N V"]:
    """Return the logits of what this library reads; the model and its folder are gone again.

    Raises ValueError naming a tensor that is not as it was rounded.
    """
    with tempfile.TemporaryDirectory(dir=file.parents[1], prefix=".gguf-read-") as place:
        folder = Path(place) / "read"
        convert(file, folder)
        check_tensors(folder / WEIGHTS_FILE, model, kind)
        read = get_gemma_ref_model(str(folder), base.mesh)
        return choice_logits(read.model, tokens, mesh=base.mesh)


def check_tensors(weights: Path, model: Gemma3, kind: str) -> None:
    """Raise ValueError naming a tensor that is not, bit by bit, the model's, rounded."""
    names = tensor_names(model.config.num_layers)
    with safe_open(weights, "numpy") as file:
        for name, stored in stored_tensors(model, kind).items():
            expected = np.concatenate(list(blocks(stored)))
            if not np.array_equal(file.get_tensor(names[name]), expected):
                raise ValueError(f"{name} is not the model's tensor rounded to {kind}")


def llama_cpp(file: Path, *, context: int = 512) -> Any:
    """Return llama.cpp's server for a model, on this machine alone; its cache is in fp32.

    Raises RuntimeError where it does not take the file.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel = context, 1
    params.verbosity, params.warmup, params.swa_full = 0, False, True
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)


def tokenizer_difference(
    server: Any, tokenizer: spm.SentencePieceProcessor, prompts: Sequence[str]
) -> str:
    """Return how llama.cpp's tokens of a prompt differ from the tokenizer's; "" where none do."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for prompt in prompts:
        body = json.dumps({"content": prompt, "add_special": False, "parse_special": True})
        address, head = f"{server.listening_address}/tokenize", {"Content-Type": "application/json"}
        with direct.open(urllib.request.Request(address, body.encode(), head)) as answer:
            theirs = json.load(answer)["tokens"]
        if theirs != (ours := tokenizer.encode(prompt)):
            return f"its tokenizer makes {theirs} of {prompt!r}, expected {ours}"
    return ""


def top_choices(
    server: Any, tokens: Int[np.ndarray, "P T"], *, digit: int
) -> list[list[dict[int, float]]]:
    """Return llama.cpp's `TOP` log-probabilities for each of the last `NEW_TOKENS` of each row.

    They are those from before the choice. An end or a part of a character would come without them,
    so `digit`, a token with text, is what it has to choose.
    """
    asked = {"max_tokens": 1, "temperature": 0.0, "logprobs": TOP, "logit_bias": [[digit, 1e6]]}

    def ask(prompt: list[int]) -> dict[int, float]:
        answer = server.handle_completions({"prompt": prompt, **asked})
        (only,) = answer["choices"][0]["logprobs"]["content"]
        return {one["id"]: one["logprob"] for one in only["top_logprobs"]}

    starts = range(tokens.shape[1] - NEW_TOKENS, tokens.shape[1])
    return [[ask(row[:start].tolist()) for start in starts] for row in tokens]


def compare_top(
    logits: Float[np.ndarray, "P N V"],
    top: Sequence[Sequence[Mapping[int, float]]],
    *,
    tolerance: float,
) -> Parity:
    """Compare logits with another reader's largest log-probabilities for the same choices.

    A choice differs when the reader prefers another token than the logits do by more than `TIE` of
    the limit.
    """
    ours = np.asarray(jax.nn.log_softmax(logits))
    limit = tolerance * max(1.0, float(np.abs(logits).max()))
    differences, lost = [], []
    for row, expected in zip(top, ours, strict=True):
        for found, values in zip(row, expected, strict=True):
            differences += [abs(value - values[token]) for token, value in found.items()]
            lost.append(max(found.values()) - found.get(int(values.argmax()), -np.inf))
    return Parity(
        reader=LLAMA_CPP,
        prompts=len(top),
        choices=len(lost),
        limit=limit,
        largest_difference=float(np.max(differences)),
        different_choices=sum(one > TIE * limit for one in lost),
    )
