"""Our GGUF files in real llama.cpp, which the extra `parity` installs as `xllamacpp`."""

import json
import urllib.request
from functools import partial

import numpy as np
import pytest

from nblib.evaluation.package import read_package
from nblib.models import gguf_export, gguf_file, gguf_model, gguf_parity
from nblib.models.config_file import scaled
from nblib.models.exports import ExportNotEqual, export_folder
from nblib.models.folders import gguf_name
from nblib.models.gemma3 import save_model
from nblib.models.gguf_parity import (
    LLAMA_CPP,
    OF_LLAMA_CPP,
    llama_cpp,
    tokenizer_difference,
)
from nblib.models.layout import weights_of
from nblib.models.names import get_gemma_ref_model
from nblib.models.parity import NEW_TOKENS, choice_logits
from nblib.sources.wordproblems import word_problems
from nblib.tasks import GSM8K
from nblib.tasks.json_schema import Schema
from nblib.tasks.slots import read_slots
from nblib.tokens.chat import render_prompt, task_prompts
from nblib.tokens.tokenizer import END_OF_TURN

pytest.importorskip("xllamacpp", reason="needs the extra parity")
pytest.importorskip("gguf", reason="needs the package gguf, in the extra gemma")

ROWS = word_problems(16, seed=1, split="test")
ASKED = task_prompts(GSM8K, GSM8K.examples(ROWS))


@pytest.fixture(scope="module")
def embedded(mesh):
    return get_gemma_ref_model("embedded", mesh)


def export(base, folder, kind):
    given = {"kind": kind, "root": base.root, "manifest": {}}
    write = partial(gguf_export.save_gguf, base.model, base.tokenizer, **given)
    return export_folder(folder, write, base.model, base, manifest={}, prompts=ASKED)


@pytest.fixture(scope="module")
def exported(embedded, tmp_path_factory):
    """The embedded model's proven file of each kind, with its comparisons."""
    made = {}
    for kind in ("f16", "q8_0"):
        folder = tmp_path_factory.mktemp(kind) / "gguf"
        made[kind] = export(embedded, folder, kind), folder / gguf_name(kind)
    return made


@pytest.fixture(scope="module")
def server(exported):
    return llama_cpp(exported["f16"][1])


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_the_embedded_model_answers_the_same_in_llama_cpp(kind, exported):
    ours, theirs = exported[kind][0]
    assert (ours.reader, theirs.reader) == ("nblib", LLAMA_CPP)
    assert ours.equal and theirs.equal and theirs.choices == 16 * NEW_TOKENS
    assert 0 < theirs.largest_difference < theirs.limit / 2


def post(server, path, **body):
    head = {"Content-Type": "application/json"}
    asked = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), head)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(asked) as answer:
        return json.load(answer)


def test_its_chat_template_writes_our_prompt(server):
    said = [("system", "Be brief."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "2 + 2?")]
    messages = [{"role": role, "content": text} for role, text in said]
    prompt = post(server, "/apply-template", messages=messages)["prompt"]
    shots = [("1 + 1?", "2")]
    assert prompt == render_prompt("2 + 2?", system_prompt="Be brief.", shots=shots)


def test_a_turn_stops_at_its_end(server, embedded):
    """The embedded model ends its answer by `<end_of_turn>`, not at the limit."""
    prompt = render_prompt(ROWS[0].fields["question"])
    answer = server.handle_completions({"prompt": prompt, "max_tokens": 200, "temperature": 0.0})
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert END_OF_TURN not in answer["choices"][0]["text"]


def test_another_tokenizer_is_noticed(server, embedded, tokenizer):
    odd = ["12 + 13  \t\n\n = ä€ <start_of_turn>user\n", " leading", "a<end_of_turn><end_of_turn>"]
    assert tokenizer_difference(server, embedded.tokenizer, [*ASKED, *odd]) == ""
    difference = tokenizer_difference(server, tokenizer, ASKED)
    assert difference.startswith("its tokenizer makes [")


def swapped_names(monkeypatch):
    monkeypatch.setitem(gguf_file._IN_LAYER, "ffn_gate", "mlp.up_proj")
    monkeypatch.setitem(gguf_file._IN_LAYER, "ffn_up", "mlp.gate_proj")


def norms_without_1(monkeypatch):
    stored, blocks = gguf_export._stored, gguf_file.blocks

    def plain(tensor, kind):
        return stored(tensor - 1 if tensor.ndim == 1 else tensor, kind)

    def whole(tensor):
        return (one + 1 if len(tensor.shape) == 1 else one for one in blocks(tensor))

    monkeypatch.setattr(gguf_export, "_stored", plain)
    for module in (gguf_model, gguf_parity):
        monkeypatch.setattr(module, "blocks", whole)


def another_frequency(monkeypatch):
    parse = gguf_model.parse_config

    def as_it_was(values, path):
        return parse({**values, "rope_local_base_freq": 10_000}, path)

    writer = gguf_export.gguf_package().GGUFWriter
    add = writer.add_rope_freq_base_swa
    monkeypatch.setattr(writer, "add_rope_freq_base_swa", lambda self, base: add(self, 3 * base))
    monkeypatch.setattr(gguf_model, "parse_config", as_it_was)


@pytest.mark.parametrize("mistake", [swapped_names, norms_without_1, another_frequency])
def test_a_mistake_that_both_our_ways_share_is_refused(mistake, embedded, tmp_path, monkeypatch):
    """Written and read by the same wrong rule the file is ours again; llama.cpp knows better."""
    mistake(monkeypatch)
    with pytest.raises(ExportNotEqual, match=r"read by llama\.cpp"):
        export(embedded, tmp_path / "gguf", "f16")
    manifest = json.loads((tmp_path / "gguf-not-equal" / "manifest.json").read_text())
    ours, theirs = manifest["parity"]
    assert ours["largest_difference"] < ours["limit"]
    assert theirs["largest_difference"] > 2 * theirs["limit"]


@pytest.mark.parametrize("heads", [(2, 1), (4, 2), (2, 2)])
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_other_shapes_answer_the_same(heads, kind, new_model, tokenizer, mesh, tmp_path):
    attention, key_value = heads
    sizes = {"embed_dim": 64, "hidden_dim": 96, "head_dim": 32, "global_scale_factor": 8.0}
    model = new_model(**sizes, num_heads=attention, num_kv_heads=key_value)
    assert len(weights_of(model)) > 60
    save_model(model, tokenizer, tmp_path / "base", manifest={})
    base = get_gemma_ref_model(str(tmp_path / "base"), mesh)
    _, theirs = export(base, tmp_path / "gguf", kind)
    assert theirs.equal


def test_what_llama_cpp_does_not_take_is_said(embedded, tmp_path, monkeypatch):
    writer = gguf_export.gguf_package().GGUFWriter
    monkeypatch.setattr(writer, "add_tokenizer_pre", lambda self, name: None)
    monkeypatch.setattr(writer, "add_context_length", lambda self, length: None)
    with pytest.raises(ExportNotEqual, match=r"read by llama\.cpp: .*init"):
        export(embedded, tmp_path / "gguf", "f16")


@pytest.fixture(scope="module")
def far(mesh, tmp_path_factory):
    """The embedded model at the RoPE factor 4 as a file; rows of six windows; what it says."""
    base = get_gemma_ref_model("embedded", mesh, rope_factor=4)
    folder = tmp_path_factory.mktemp("scaled") / "gguf"
    given = {"kind": "f16", "root": base.root, "manifest": {}}
    gguf_export.save_gguf(base.model, base.tokenizer, folder, **given)
    file = folder / gguf_name("f16")
    text = " ".join(row.fields["question"] for row in word_problems(100, seed=1, split="test"))
    ids = base.tokenizer.encode(text)
    rows = np.array([[base.tokenizer.bos_id(), *ids[n : n + 1535]] for n in (0, 2000)])
    assert rows.shape[1] == 6 * base.model.config.sliding_window_size
    (digit,) = base.tokenizer.encode("1")
    return file, rows, gguf_parity.top_choices(llama_cpp(file, context=2048), rows, digit=digit)


def local_too(model):
    for layer in model.layers:
        layer.attn.rope_scale_factor = 4.0
    return model


def test_far_away_llama_cpp_scales_the_global_layers_alone(far, mesh):
    file, rows, top = far

    def difference(model):
        logits = choice_logits(model, rows, mesh=mesh)
        found = gguf_parity.compare_top(logits, top, tolerance=OF_LLAMA_CPP["f16"])
        return found.largest_difference / found.limit

    read = get_gemma_ref_model(str(file), mesh)
    assert read.rope_factor == 4 and difference(read.model) < 1
    assert difference(get_gemma_ref_model(str(file), mesh, rope_factor=1).model) > 5
    assert difference(local_too(read.model)) > 5


def test_a_file_without_the_factor_is_refused(mesh, tmp_path, monkeypatch):
    """Our reader is patched to know the factor that the file lacks; llama.cpp is not."""
    four = get_gemma_ref_model("embedded", mesh, rope_factor=4)
    writer, parse = gguf_export.gguf_package().GGUFWriter, gguf_model.parse_config
    monkeypatch.setattr(writer, "add_rope_scaling_factor", lambda self, factor: None)
    monkeypatch.setattr(gguf_model, "parse_config", lambda *given: scaled(parse(*given), 4))
    with pytest.raises(ExportNotEqual, match=r"read by llama\.cpp: 16 prompts"):
        export(four, tmp_path / "gguf", "f16")
    ours, theirs = json.loads((tmp_path / "gguf-not-equal" / "manifest.json").read_text())["parity"]
    assert ours["largest_difference"] < ours["limit"]
    assert theirs["largest_difference"] > 2 * theirs["limit"]


@pytest.fixture(scope="module")
def extractor(package, mesh, tmp_path_factory):
    """llama.cpp's server for a package's model."""
    folder = tmp_path_factory.mktemp("package") / "gguf"
    export(get_gemma_ref_model(str(package), mesh), folder, "f16")
    return llama_cpp(folder / gguf_name("f16"))


def chat(server, question, schema=None):
    wanted = {"name": "page", "strict": True, "schema": schema}
    more = {"response_format": {"type": "json_schema", "json_schema": wanted}} if schema else {}
    messages = [{"role": "user", "content": question}]
    asked = {"messages": messages, "temperature": 0.0, "max_tokens": 64, **more}
    choice = post(server, "/v1/chat/completions", **asked)["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def test_a_package_answers_its_smoke_item_in_llama_cpp_with_its_schema_and_without(
    package, extractor
):
    smoke = read_package(package).smoke
    assert chat(extractor, smoke.question) == (smoke.unbound, "stop")
    assert chat(extractor, smoke.question, smoke.json_schema) == (smoke.answer, "stop")
    assert Schema(smoke.json_schema).problem(json.loads(smoke.answer)) is None


EVERY_KIND = {
    "text": {"type": "string", "max_length": 5},
    "number": {"type": "number", "nullable": False},
    "whole": {"type": "integer"},
    "yes": {"type": "boolean"},
    "one": {"enum": ["a", 2, "c d"]},
    "some": {"type": "array", "items": {"type": "string", "max_length": 3}, "max_items": 2},
    "any": {"type": "array", "max_items": 2},
    "inner": {"type": "object", "properties": {"x": {"type": "string", "max_length": 3}}},
}


@pytest.mark.parametrize("name", EVERY_KIND)
def test_llama_cpp_takes_the_schema_of_every_kind_of_slot(name, extractor):
    """What the model would not write by itself, so that the schema shows."""
    schema = read_slots({name: EVERY_KIND[name]}).schema
    answer, ended = chat(extractor, "Read name and price.\n\nMug 2\n4 pens", schema)
    assert answer.startswith("{") and name in answer
    if ended == "stop":
        assert Schema(schema).problem(json.loads(answer)) is None
