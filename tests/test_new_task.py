"""A track is a task and rows: a JSON task that nblib has never seen goes through SFT and GRPO."""

import json
from pathlib import Path

from nblib.evaluation.answers import Decoding, evaluate_stages
from nblib.evaluation.comparison import compare_stages
from nblib.files import parse_json, read_json
from nblib.models.lora import ALL_WEIGHTS, LoraConfig, get_trainable_model, merge_lora
from nblib.models.names import RefModel
from nblib.report import Page, finish, stage_table
from nblib.runs import start_run
from nblib.sources.rows import Row, split_validation
from nblib.tasks.rewards import reward_function, reward_weights
from nblib.tasks.task import Metric, Score, Task, choose_examples, example_of
from nblib.tokens.batches import encode_task
from nblib.tokens.batching import Batching, training_data
from nblib.training.grpo import train_grpo
from nblib.training.grpo_config import GrpoConfig
from nblib.training.sft import SftConfig, train


def score(completion, example):
    try:
        found = parse_json(completion)
    except ValueError:
        found = None
    fields, wanted = found if isinstance(found, dict) else {}, example.reference
    share = sum(fields.get(name) == value for name, value in wanted.items()) / len(wanted)
    return Score(values={"json_valid": bool(fields), "fields_right": share}, answer=found)


def example(row):
    text, found = row.fields["text"], row.fields["found"]
    made = {"prompt": text, "completion": json.dumps(found), "reference": found}
    return example_of(row, **made, group=row.group)


VALID = Metric(name="json_valid", meaning="a JSON object")
FIELDS = Metric(name="fields_right", meaning="share of right fields", kind="mean")
OPTIONS = {"profile": "smoke", "seed": 0}
WEIGHTS = {"fields_right": 1.0, "json_valid": 0.5}
TOY = Task(name="toy", system_prompt="JSON.", metrics=(VALID, FIELDS), headline="fields_right",
           form="json_valid", score=score, examples=lambda rows: tuple(map(example, rows)),
           grouped_by="parity", reward_weights=WEIGHTS)  # fmt: skip
FOUND = [{"n": n, "thing": "pens"} for n in range(10, 50)]
ROWS = [Row(id=str(one["n"]), fields={"text": f"{one['n']} pens", "found": one}, group="odd" if
        one["n"] % 2 else "even") for one in FOUND]  # fmt: skip


def test_an_unknown_json_task_goes_through_sft_and_grpo(new_model, tokenizer, mesh, tmp_path):
    ask, lora = Decoding(max_new_tokens=24), LoraConfig(rank=ALL_WEIGHTS, alpha=1.0)
    parts = {"model": new_model(num_layers=1), "tokenizer": tokenizer, "mesh": mesh}
    base = RefModel(name="tiny", folder=Path(), sha256="", root="tiny", **parts)
    run = start_run("toy", OPTIONS, root=tmp_path)
    parts = split_validation(choose_examples(TOY, ROWS, -1, seed=0)[0])
    encoded = [encode_task(base.tokenizer, TOY, part) for part in parts]
    sizes = {"max_length": 128, "batch_tokens": 512}
    batching = Batching(**sizes, packing="off", epochs=8, seed=0)
    texts, model = training_data(*encoded, batching), get_trainable_model(base.model, mesh, lora)
    options = {"hashes": {}, "mesh": mesh}
    trained = train(model, texts, SftConfig(learning_rate=2e-2), run, **options)
    tuned = base.with_model(merge_lora(model, lora), name="tuned")
    stages = evaluate_stages(base, {"base": (TOY, ask)}, parts[0])
    stages += evaluate_stages(tuned, {"tuned": (TOY, ask)}, parts[0])
    page = Page(title="Toy", task=TOY, seed=0)
    page.table(stage_table(TOY, stages))
    about = {"model": "tiny", "data": "made here", "hashes": {}, "trained": trained}
    finish(run, stages, page, comparison=compare_stages(stages, TOY), **about)
    before, after = read_json(run.path / "result.json")["stages"].values()
    assert after["json_valid"] > 0.5 > before["json_valid"] and after["fields_right"] > 0.2
    assert "share of right fields" in (run.path / "report.html").read_text()
    sizes = {"prompts_per_step": 4, "max_prompt_length": 64, "max_new_tokens": 24}
    config, rewards = GrpoConfig(learning_rate=1e-4, steps=2, **sizes), reward_weights(TOY)
    run = start_run("toy_grpo", OPTIONS, root=tmp_path)
    earned = reward_function(TOY, rewards, max_new_tokens=24)
    asked = (base.tokenizer, TOY, parts[0], earned, config, run)
    trained = train_grpo(model, None, *asked, **options)
    assert trained.history[-1]["fields_right"] > 0
