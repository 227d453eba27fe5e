"""Small things that several rooms share, made once: a task, tokenizer, mesh, tiny models.

jax is imported inside the fixtures, so that the tests of rows and tasks start without it.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nblib.sources.rows import Row
from nblib.tasks.task import Example, Metric, Score, Task

# Tiny models are compiled for longer than they run: these flags halve the time.
COMPILE_FAST = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
# Each is a question and the completion to learn for it.
EIGHT = {f"{n} pens and {n + 1}?": f"{n} + {n + 1} = {2 * n + 1}" for n in range(1, 9)}


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_user(tmp_path_factory):
    """What notebooks and commands keep for later ones is this session's; a test may set its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="session")
def published_gsm8k():
    """The folder of GSM8K's two published files; without them their tests are skipped."""
    folder = os.environ.get("NBLIB_GSM8K_DIR")
    if not folder:
        pytest.skip("NBLIB_GSM8K_DIR is not set: the repository does not hold GSM8K's files")
    return Path(folder)


@pytest.fixture(scope="session")
def published_inequalities():
    """The file of 154 inequalities in Lean; without it their tests are skipped."""
    folder = os.environ.get("NBLIB_INEQUALITIES_DIR")
    if not folder:
        pytest.skip("NBLIB_INEQUALITIES_DIR is not set: the repository does not hold neqlips.jsonl")
    return Path(folder, "neqlips.jsonl")


def slots_score(completion, example):
    """F1 of the slots of a JSON object; a reference that is none cannot be scored against."""
    if not isinstance(example.reference, dict):
        raise ValueError(f"unreadable reference {example.reference!r}: expected an object")
    try:
        found = json.loads(completion)
    except ValueError:
        found = None
    is_object = isinstance(found, dict)
    right = len(found.items() & example.reference.items()) if is_object else 0
    slots = len(found) + len(example.reference) if is_object else 1
    f1 = 2 * right / slots
    return Score(
        values={"slot_f1": f1, "schema_valid": is_object, "prose": not is_object},
        answer=found if is_object else None,
        failure=None if f1 == 1 else "wrong slots" if is_object else "no object",
        details={"right": right, "empty": found == {}},
    )


def slots_examples(rows):
    return tuple(
        Example(
            id=row.id,
            prompt=row.fields["text"],
            completion=json.dumps(row.fields["slots"]),
            reference=row.fields["slots"],
            group=row.group,
        )
        for row in rows
    )


@pytest.fixture(scope="session")
def slots():
    """A task nothing like GSM8K: JSON answers, a mean as the headline, no fallback."""
    return Task(
        name="slots",
        system_prompt="Answer with one JSON object.",
        metrics=(
            Metric(name="slot_f1", meaning="F1 of the slots", kind="mean"),
            Metric(name="schema_valid", meaning="one JSON object"),
            Metric(name="prose", meaning="no object", better="lower"),
        ),
        headline="slot_f1",
        form="schema_valid",
        examples=slots_examples,
        score=slots_score,
        reward_weights={"slot_f1": 1.0},
    )


# jax reads its flags once: when a module of tests first computes, which may be as it is collected.
flags = pytest.MonkeyPatch()
flags.setenv("XLA_FLAGS", COMPILE_FAST)


@pytest.fixture(scope="session", autouse=True)
def compile_fast():
    """Start jax by the flags, if a test has imported it; child processes get none of them."""
    if jax := sys.modules.get("jax"):
        jax.devices()
    flags.undo()


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory):
    """Compile fast and once for the whole session; returns the environment for child processes."""
    import jax

    with pytest.MonkeyPatch.context() as patch:  # where only a fixture imports it
        patch.setenv("XLA_FLAGS", COMPILE_FAST)
        jax.devices()
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker's folder lies in the session's
        folder = folder.parent
    settings = {
        "jax_compilation_cache_dir": str(folder / "jax"),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
    environment = {name.upper(): str(value) for name, value in settings.items()}
    return {"XLA_FLAGS": COMPILE_FAST, **environment}


@pytest.fixture(scope="session")
def mesh(compilation_cache):
    from nblib.models.mesh import device_mesh

    return device_mesh()


@pytest.fixture(scope="session")
def texts():
    """What a tokenizer is trained on: a few hundred built-in problems."""
    from nblib.sources.wordproblems import word_problems
    from nblib.tokens.corpus import corpus_texts, foundation_documents

    rows = word_problems(300, seed=0, split="train")
    return tuple(corpus_texts(foundation_documents(rows, seed=0), most=10_000))


@pytest.fixture(scope="session")
def tokenizer(texts):
    from nblib.tokens.tokenizer import train_tokenizer

    return train_tokenizer(texts, vocab_size=544)


@pytest.fixture(scope="session")
def tiny_config():
    from tests.tiny_model import TINY

    return TINY


@pytest.fixture(scope="session")
def new_model(compilation_cache, tiny_config):
    """Build a fresh tiny model: `new_model(num_layers=2, ...)` changes its configuration.

    `new_model(alternating=True)` has two layers, the first with a sliding window and the second
    global: what six have, for a third of the compilation. Once saved, it is not read as such.
    """
    from tunix.models.gemma3 import model as tunix

    from nblib.models.gemma3 import init_model

    pattern = (tunix.AttentionType.LOCAL_SLIDING, tunix.AttentionType.GLOBAL)

    def build(seed=0, *, alternating=False, **changes):
        with pytest.MonkeyPatch.context() as patch:
            if alternating:
                patch.setattr(tunix, "GEMMA3_ATTENTION_PATTERN", pattern)
                changes = {"num_layers": 2, **changes}
            return init_model(replace(tiny_config, **changes), seed=seed)

    return build


@pytest.fixture(scope="session")
def logits(compilation_cache):
    """Return a model's logits [B, T, V] for two fixed rows of 24 tokens."""
    from flax import nnx
    from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

    tokens = np.random.default_rng(0).integers(4, 544, (2, 24))
    tokens[1, 20:] = 0
    mask = tokens != 0

    @nnx.jit
    def run(model):
        positions = build_positions_from_mask(mask)
        return model(tokens, positions, None, make_causal_attn_mask(mask))[0]

    return lambda model: np.asarray(run(model))


@pytest.fixture(scope="session")
def eight_examples(tokenizer):
    """Eight short chats, tokenised."""
    from nblib.tokens.batches import encode_example
    from nblib.tokens.chat import render_prompt

    return tuple(
        encode_example(tokenizer, id=question, prompt=render_prompt(question), completion=answer)
        for question, answer in EIGHT.items()
    )


@pytest.fixture(scope="session")
def overfitted(tmp_path_factory, new_model, eight_examples, mesh):
    """A tiny model trained in full on the eight chats: (model, metrics records, config)."""
    from nblib.runs import start_run
    from nblib.tokens.batches import collate
    from nblib.training.sft import SftConfig, train

    run = start_run("overfitted", {}, root=tmp_path_factory.mktemp("overfitted"))
    model = new_model(num_layers=2, embed_dim=32, head_dim=16)
    config = SftConfig(learning_rate=2e-2, warmup_share=0.1, evaluations=2, save_interval="9 min")
    batch = collate(eight_examples, range(8), 64, 8)
    texts = SimpleNamespace(batches=[batch] * 100, val_batches=[batch])
    trained = train(model, texts, config, run, hashes={"tokenizer": "tiny"}, mesh=mesh)
    return model, trained.history, config


@pytest.fixture(scope="session")
def eight():
    """The questions and completions that `overfitted` has learnt."""
    return EIGHT


@pytest.fixture(scope="session")
def pens():
    """Rows of three questions that `overfitted` has learnt; the second has a wrong reference."""
    return [
        Row(
            id=f"pens/{n}",
            fields={"question": f"{n} pens and {n + 1}?", "answer": f"So.\n#### {right}"},
        )
        for n, right in ((1, 3), (2, 99), (3, 7))
    ]


@pytest.fixture(scope="session")
def package(tmp_path_factory, new_model, tokenizer, mesh):
    """A run's export of a tiny model that has learnt eight pages by heart, with its tokenizer.

    Two kinds: products, which are read into JSON, and pages that lead to others, YES, or not, NO.
    """
    from nblib.evaluation.answers import Decoding
    from nblib.evaluation.package import package_files
    from nblib.models.exports import export_run
    from nblib.models.lora import ALL_WEIGHTS, LoraConfig
    from nblib.models.names import RefModel
    from nblib.runs import start_run
    from nblib.sources.examples_table import split_records
    from nblib.tasks.extraction import EXTRACTION
    from nblib.tasks.extraction_kinds import page_kinds
    from nblib.tokens.batches import collate, encode_task
    from nblib.tokens.chat import task_prompts
    from nblib.training.sft import SftConfig, train

    data = split_records("pages", "made here", [page_record(n) for n in range(10)])
    examples = EXTRACTION.examples(data.train)
    encoded = encode_task(tokenizer, EXTRACTION, examples)
    run = start_run("extraction", {}, root=tmp_path_factory.mktemp("package"))
    # Sizes that llama.cpp takes.
    model = new_model(embed_dim=64, hidden_dim=96, head_dim=32, num_heads=2)
    config = SftConfig(learning_rate=1e-2, warmup_share=0.1, evaluations=1, save_interval="9 min")
    length = -(-max(len(one.tokens) for one in encoded) // 32) * 32
    batch = collate(encoded, range(len(encoded)), length, len(encoded))
    texts = SimpleNamespace(batches=[batch] * 60, val_batches=[batch])
    trained = train(model, texts, config, run, hashes={"tokenizer": "tiny"}, mesh=mesh)
    assert trained.history[-1]["val_loss"] < 0.02
    ref = RefModel(
        name="tiny", folder=Path(), model=model, tokenizer=tokenizer, mesh=mesh, sha256="", root=""
    )
    export_run(
        run,
        ref,
        model,
        LoraConfig(rank=ALL_WEIGHTS, alpha=1.0),
        data=data,
        steps=60,
        steps_left=0,
        prompts=task_prompts(EXTRACTION, examples),
        files=package_files(
            EXTRACTION, page_kinds(examples, data.train), examples, Decoding(max_new_tokens=64)
        ),
    )
    return run.export


def page_record(n):
    """A page as the table of examples has it; the last two of ten are held out."""
    split = "train" if n < 8 else "test"
    is_product = n % 2 == 0
    body = f"<h1>Mug {n}</h1><p>{n + 2} pens</p>" if is_product else f"<ul><li>Page {n}</li></ul>"
    asked = "Read name and price." if is_product else "Does it lead on?"
    specs = {"name": {"type": "string", "max_length": 20}, "price": {"type": "integer"}}
    response = {"name": f"Mug {n}", "price": n + 2} if n != 4 else {"name": "Mug 4", "price": None}
    return {
        "id": f"pages/{n}",
        "task": "product" if is_product else "leads",
        "prompt_text": f"{asked}\n\n<html><body>{body}</body></html>",
        "response_strong": response if is_product else ("YES", "NO")[n % 4 == 1],
        "metadata": {"domain": f"shop{n}.example", "split": split},
        "slot_specs": specs if is_product else {},
    }


@pytest.fixture
def serve():
    """Start chat servers on loopback: `serve(answer)`, with `answer(body, number)`."""
    from tests.sources.chat_server import ChatServer

    servers = []

    def start(answer):
        servers.append(ChatServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
