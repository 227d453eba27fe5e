"""Candidates: how they are written, asked once, kept, and read from files."""

import json
from pathlib import Path

import jax
import pytest
from flax import nnx

from nblib.evaluation import answers as module
from nblib.evaluation.answers import Decoding, score_answers
from nblib.evaluation.candidates import (
    Asking,
    Candidate,
    answer_all,
    how_asked,
    parse_candidate,
    read_answers,
    varied_shots,
)
from nblib.files import to_jsonable
from nblib.models.adapters import AdapterMismatch, save_adapters
from nblib.models.gemma3 import save_model
from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model, merge_lora
from nblib.models.names import model_sha256
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example

DECODING = Decoding(max_new_tokens=20, batch_size=2)


@pytest.fixture(scope="module")
def examples(pens):
    return GSM8K.examples(pens)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, overfitted, new_model, tokenizer):
    """A model that has learnt the questions, and one that has not."""
    models = {"learnt": overfitted[0], "fresh": new_model(num_layers=2, embed_dim=32, head_dim=16)}
    paths = {name: tmp_path_factory.mktemp(name) / "export" for name in models}
    for name, model in models.items():
        save_model(model, tokenizer, paths[name], manifest={})
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture
def asking(monkeypatch):
    """The first prompts of the stages that were really asked, in order."""
    asked = []
    really = module.generate

    def generate(ref, prompts, *how):
        asked.append(prompts[0])
        return really(ref, prompts, *how)

    monkeypatch.setattr(module, "generate", generate)
    return asked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base=embedded", Candidate(name="base", source="embedded")),
        ("few=a/b@few-shot", Candidate(name="few", source="a/b", style="few-shot")),
        ("old=a/p.jsonl:tuned", Candidate(name="old", source="a/p.jsonl", stage="tuned")),
        ("old=p.jsonl", Candidate(name="old", source="p.jsonl")),
        ("old=p.jsonl.gz", Candidate(name="old", source="p.jsonl.gz")),
        ("old=a/p.jsonl.gz:v1", Candidate(name="old", source="a/p.jsonl.gz", stage="v1")),
        ("old=p.jsonl:a:b", Candidate(name="old", source="p.jsonl", stage="a:b")),
        ("x=runs@corp/model", Candidate(name="x", source="runs@corp/model")),
        ("x=me@corp/p.jsonl", Candidate(name="x", source="me@corp/p.jsonl")),
        ("x=me@corp.jsonl", Candidate(name="x", source="me@corp.jsonl")),
        ("x=a@b/c@question", Candidate(name="x", source="a@b/c", style="question")),
        ("x=a@b/lora::c@d/e", Candidate(name="x", source="a@b/lora::c@d/e")),
    ],
)
def test_a_candidate_is_written_as_one_text(text, expected):
    assert parse_candidate(text) == expected


def test_a_folder_whose_name_ends_like_a_style_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me@corp").mkdir()
    assert parse_candidate("x=me@corp") == Candidate(name="x", source="me@corp")
    assert parse_candidate("x=me@corp@question").style == "question"


@pytest.mark.parametrize("name", ["../../evil", "a/b", "a\\b", "a\0b", "two\nlines"])
def test_a_name_that_leads_to_another_folder_is_refused(name):
    with pytest.raises(ValueError, match="kept under this name, expected one without slashes"):
        parse_candidate(f"{name}=embedded")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embedded", "'embedded': expected name=model"),
        ("=embedded", "stage ''"),
        ("base=", "source ''"),
        ("base=embedded@loud", "style 'loud', expected one of question, format, few-shot"),
    ],
)
def test_another_form_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_candidate(text)


def test_each_style_asks_its_own_prompt_and_nothing_is_asked_twice(
    folders, examples, mesh, tmp_path, asking
):
    candidates = [
        parse_candidate(f"{name}={folders['learnt']}@{style}")
        for name, style in (("base", "question"), ("form", "format"), ("few", "few-shot"))
    ]
    how = Asking(shots=examples[2:], folder=tmp_path, mesh=mesh)
    stages = answer_all(candidates, GSM8K, examples, DECODING, how)
    assert [stage.name for stage in stages] == ["base", "form", "few"]
    prompts = [stage.records[0]["prompt"] for stage in stages]
    assert [prompt.count("<reasoning>") for prompt in prompts] == [0, 1, 2]
    assert prompts[2].count("<start_of_turn>user") == 2
    # "1 + 2 = 3" is in no format, and the last number is right in two of three.
    assert stages[0].metrics["answer_accuracy"] == 0.0
    assert stages[0].metrics["lenient_accuracy"] == pytest.approx(2 / 3)
    assert len(asking) == 3
    assert answer_all(candidates, GSM8K, examples, DECODING, how) == stages
    assert len(asking) == 3  # all were kept
    answer_all(candidates[:1], GSM8K, examples[:2], DECODING, how)
    assert len(asking) == 4  # other questions: not what was kept


def test_adapters_over_a_base_are_a_stage_like_any_other(
    overfitted, folders, examples, tokenizer, mesh, tmp_path
):
    adapted = get_lora_model(overfitted[0], mesh, LoraConfig(rank=2, alpha=4.0))
    for _, adapter in nnx.to_flat_state(nnx.state(adapted, LORA_PARAMETER)):
        noise = jax.random.normal(
            jax.random.key(adapter.get_value().size), adapter.get_value().shape
        )
        adapter.set_value(0.3 * noise)
    learnt = {"name": "of another machine", "sha256": model_sha256(folders["learnt"])}
    lora, manifest = LoraConfig(rank=2, alpha=4.0), {"base": learnt}
    save_adapters(adapted, tokenizer, tmp_path / "adapters", lora, manifest=manifest)
    merged = merge_lora(adapted, LoraConfig(rank=2, alpha=4.0))
    save_model(merged, tokenizer, tmp_path / "merged", manifest={})
    asking = Asking(folder=tmp_path / "answers", mesh=mesh)
    over = f"{tmp_path}/adapters::{folders['learnt']}"
    texts = (f"base={folders['learnt']}", f"merged={tmp_path}/merged", f"lora={over}")
    base, expected, found = answer_all(
        [parse_candidate(f"{text}@question") for text in texts], GSM8K, examples, DECODING, asking
    )
    completions = [record["completion"] for record in found.records]
    assert completions == [record["completion"] for record in expected.records]
    assert completions != [record["completion"] for record in base.records]
    wrong = parse_candidate(f"wrong={tmp_path}/adapters::{folders['fresh']}")
    with pytest.raises(AdapterMismatch, match="was made over of another machine"):
        answer_all([wrong], GSM8K, examples, DECODING, asking)


def test_another_model_behind_the_same_name_is_asked_again(
    folders, examples, mesh, tmp_path, asking
):
    how = Asking(folder=tmp_path, mesh=mesh)
    learnt, fresh = (
        answer_all([parse_candidate(f"x={folders[which]}")], GSM8K, examples, DECODING, how)[0]
        for which in ("learnt", "fresh")
    )
    assert len(asking) == 2
    assert learnt.records[0]["completion"] != fresh.records[0]["completion"]


def test_predictions_of_a_run_are_a_candidate_themselves(folders, examples, mesh, tmp_path):
    model = parse_candidate(f"live={folders['learnt']}@question")
    how = Asking(folder=tmp_path, mesh=mesh)
    (stage,) = answer_all([model], GSM8K, examples, DECODING, how)
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in stage.records))
    (read,) = answer_all([parse_candidate(f"old={path}:live")], GSM8K, (), DECODING, how)
    assert {**read.metrics} == {**stage.metrics}
    assert {record["stage"] for record in read.records} == {"old"}


def line(**fields):
    return json.dumps({"id": "a", "completion": "4", "reference": "4"} | fields) + "\n"


@pytest.mark.parametrize(
    ("content", "stage", "message"),
    [
        (line(), "tuned", r"has no answers of stage 'tuned'"),
        (line(stage="one") + line(stage="two"), "", "holds the stages one, two: name one"),
        (line() + "{", "", r"p.jsonl:2: expected one JSON value"),
        (line() + line(completion=None), "", r"p.jsonl:2: completion is None, expected text"),
        (line() + '{"id": "b", "id": "c"}\n', "", r"p.jsonl:2: .* the key 'id' is given twice"),
        (line() + "[1]\n", "", r"p.jsonl:2: id is None, expected text"),
        (line() + '{"id": "b", "completion": "4"}\n', "", "p.jsonl:2: no reference, expected one"),
        ("", "", "has no answers"),
    ],
)
def test_a_broken_file_of_answers_is_named_with_its_line(tmp_path, content, stage, message):
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_answers(path, stage)


def test_of_a_file_what_is_known_is_taken_and_a_level_is_a_group(tmp_path):
    """As the records were once: with a level and the score's fields of then."""
    path = tmp_path / "p.jsonl"
    old = {"level": 2, "truncated": False, "format": True, "correct": True, "stage": "x"}
    path.write_text(line(**old) + line(level=None) + line(group="easy", reference={"x": [1]}))
    content = path.read_text().replace('"reference": {"x"', '"stage": "x", "reference": {"x"')
    path.write_text(content)
    first, *_, last = read_answers(path, "x")
    known = {"id": "a", "completion": "4", "reference": "4"}
    assert first == known | {"truncated": False, "group": "2"}
    assert last == known | {"reference": {"x": [1]}, "group": "easy"}


def test_how_each_stage_was_asked_is_recorded(examples):
    candidates = [Candidate(name="a", source="m"), parse_candidate("b=m@few-shot")]
    how = Asking(shots=examples[:2], folder=Path(), mesh=None)
    record = how_asked(candidates, how, ["1 item"])
    found = record["asked"]
    assert record["mismatches"] == ["1 item"]
    assert found["a"]["style"] == "format" and "shots" not in found["a"]
    assert found["b"]["shots"] == ["pens/1", "pens/2"]


def test_answers_of_a_file_keep_what_their_slots_are_compared_by(tmp_path):
    """13 is 12.5 by the slot's tolerance alone."""
    specs = {"price": {"type": "number", "compare": "number", "tolerance": 1}}
    asked = {"id": "1", "reference": {"price": 12.5}, "completion": '{"price": 13}'}
    stage = score_answers("tuned", [{**asked, "slot_specs": specs}], EXTRACTION)
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(to_jsonable(stage.records[0])) + "\n")
    again = score_answers("again", read_answers(path), EXTRACTION)
    assert again.metrics == stage.metrics and again.metrics["slot_f1"] == 1


def test_worked_examples_are_of_different_groups_and_the_same_for_a_seed():
    made = [
        Example(id=f"{group}{n}", prompt="", completion="", reference="", group=group)
        for group in "aabbccdd"
        for n in range(3)
    ]
    drawn = varied_shots(made, 3, seed=1)
    assert len({one.group for one in drawn}) == 3 and drawn == varied_shots(made, 3, seed=1)
    draws = [varied_shots(made, 3, seed=seed) for seed in range(8)]
    assert len({tuple(shot.id for shot in draw) for draw in draws}) > 4
    assert {shot.group for draw in draws for shot in draw} == set("abcd")
    assert len(varied_shots(made, 9, seed=1)) == 4 and varied_shots(made, 0, seed=1) == ()
