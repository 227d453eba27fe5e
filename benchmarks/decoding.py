"""Decoding on this CPU beside `transformers` and llama.cpp: the same weights, prompts and work.

Each way is a process of its own, and they take turns. The embedded model, and Gemma 3 270M where
its weights are. Needs the extra `parity`, and `gemma` for the files of llama.cpp.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import PEAK, SECONDS, answer, in_turns, worker
from nblib.models.decode import Sampling, decode, left_padded
from nblib.models.folders import gguf_name
from nblib.models.gguf_export import save_gguf
from nblib.models.mesh import device_mesh
from nblib.models.names import get_gemma_ref_model
from nblib.models.published import EMBEDDED, ModelNotFound, find_model
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import PAD_ID, load_tokenizer

_MODELS = (EMBEDDED, "gemma3-270m")
_PROMPTS, _NEW = 16, 64  # each is continued by so many tokens, whatever they are
_NEEDED = ("gguf", "torch", "transformers", "xllamacpp")
Prompts = Sequence[Sequence[int]]
Continue = Callable[[int], Any]  # by so many tokens
_TURNS = 3
_WAYS = ("nblib", "nblib-top-p", "transformers", "llama-cpp")


def decoding() -> dict[str, float]:
    """Continue sixteen prompts greedily, and once by top-p, in one batch; llama.cpp has Q8_0.

    The seconds are of prefill and decode together.
    """
    if missing := [name for name in _NEEDED if not find_spec(name)]:
        print(f"decoding: left out, {missing[0]} is not installed: it needs '.[gemma,parity]'")
        return {}
    figures: dict[str, float] = {}
    for model in _MODELS:
        try:
            find_model(model)
        except ModelNotFound as error:
            print(f"decoding: left out, {error}")
            continue
        figures |= _decoding(model)
    return figures


def _decoding(model: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="nblib-") as folder:
        file = str(Path(folder) / "gguf" / gguf_name("q8_0"))
        with worker(__spec__.name, "write", model, file, as_a_kernel=False) as ask:
            ask(0)  # in a process of its own: its peak of memory would be that of all its children
        seconds, peak = _turns(model, file)
    tokens = _PROMPTS * _NEW
    names = {way: f"decoding_{model}_{way}".replace("-", "_") for way in _WAYS}
    figures = {f"{name}_tokens_per_s": tokens / seconds[way] for way, name in names.items()}
    for way in _WAYS[1:]:
        figures[f"{names[way]}_ratio"] = seconds[way] / seconds["nblib"]
        figures[f"{names[way]}_peak_memory_ratio"] = peak[way] / peak["nblib"]
    return figures


def _turns(model: str, file: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return each way's median seconds, and the peak of its memory in bytes."""
    works, ours = {way: [(_NEW,)] for way in _WAYS}, [way for way in _WAYS if "nblib" in way]
    taken = in_turns(__spec__.name, works, model, file, turns=_TURNS, kernels=ours)
    rows = {way: found[_NEW,] for way, found in taken.items()}
    seconds = {way: float(np.median(one[1:, SECONDS])) for way, one in rows.items()}
    return seconds, {way: float(one[-1, PEAK]) for way, one in rows.items()}


def _write(model: str, file: Path, _: int) -> None:
    ref = get_gemma_ref_model(model, device_mesh())
    save_gguf(ref.model, ref.tokenizer, file.parent, kind="q8_0", root=ref.root, manifest={})


def _work(way: str, model: str, file: str) -> None:
    tokenizer = load_tokenizer(find_model(model))
    texts = task_prompts(GSM8K, GSM8K.examples(word_problems(_PROMPTS, seed=0, split="test")))
    prompts = [[tokenizer.bos_id(), *tokenizer.encode(text)] for text in texts]
    continued: Continue
    match way:
        case "write":
            continued = partial(_write, model, Path(file))
        case "nblib":
            continued = _nblib(model, prompts, temperature=0.0, top_p=1.0)
        case "nblib-top-p":
            continued = _nblib(model, prompts, temperature=0.7, top_p=0.95)
        case "transformers":
            continued = _transformers(model, prompts)
        case _:
            continued = _llama_cpp(prompts, file)

    def once(new: int) -> tuple[()]:
        continued(new)
        return ()

    answer(once)


def _nblib(model: str, prompts: Prompts, *, temperature: float, top_p: float) -> Continue:
    ref = get_gemma_ref_model(model, device_mesh())
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=0)
    given: dict[str, Any] = {"stop": [], "batch_size": _PROMPTS, "mesh": ref.mesh}
    return lambda new: decode(ref.model, prompts, sampling, max_new_tokens=new, **given)


def _transformers(name: str, prompts: Prompts) -> Continue:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(find_model(name), dtype=torch.float32).eval()
    longest = max(map(len, prompts))
    tokens = left_padded(prompts, longest)
    given = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(tokens != PAD_ID)}

    def continued(new: int) -> Any:
        count = {"min_new_tokens": new, "max_new_tokens": new}
        with torch.no_grad():
            return model.generate(**given, do_sample=False, **count)

    return continued


def _llama_cpp(prompts: Prompts, file: str) -> Continue:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.verbosity = file, 0
    params.n_parallel, params.n_ctx = _PROMPTS, 512 * _PROMPTS
    server = xllamacpp.Server(params)
    threads = ThreadPoolExecutor(_PROMPTS)

    def ask(prompt: Sequence[int], new: int) -> None:
        given = {"max_tokens": new, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        answer = server.handle_completions({"prompt": list(prompt), **given})
        if answer["usage"]["completion_tokens"] != new:
            raise RuntimeError(f"llama.cpp wrote {answer['usage']}, expected {new} tokens")

    return lambda new: list(threads.map(ask, prompts, [new] * len(prompts)))


if __name__ == "__main__":
    _work(*sys.argv[1:])
