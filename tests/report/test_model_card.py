import json

import pytest

from nblib.evaluation.answers import Stage
from nblib.report.model_card import foundation_manifest, write_model_card
from nblib.sources.foundation import FoundationRows
from nblib.tasks.gsm8k import GSM8K

RATES = {name: 0.5 for name in (*GSM8K.metric_names, "truncation_rate")}
TUNED = Stage(
    name="tuned",
    metrics={
        "n": 200,
        **RATES,
        **{f"{name}_ci95": [0.4, 0.6] for name in RATES},
        "answer_accuracy": 0.66,
        "answer_accuracy_ci95": [0.5918, 0.7221],
        "decoding": {"temperature": 0.0, "max_new_tokens": 120},
    },
    by_group={},
    records=(),
)
MANIFEST = {
    "notebook": "v1_sft_format",
    "command": "python -m nblib run v1_sft_format",
    "parameters": {"learning_rate": 0.01, "lora_rank": 16},
    "base": {"name": "embedded", "sha256": "0123456789abcdef", "root": "embedded"},
    "data": {"origin": "built-in problems of levels 1, 2", "sha256": {"train": "aaaa"}},
    "steps": 150,
    "parity": [
        {
            "reader": "transformers",
            "prompts": 16,
            "choices": 256,
            "limit": 1e-3,
            "largest_difference": 1.8e-05,
            "different_choices": 0,
        }
    ],
}


def card(folder, stages=(), *, task=GSM8K, **changes):
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | changes))
    write_model_card(folder, task, stages, title="A title")
    return (folder / "README.md").read_text()


def test_card_says_where_it_is_from_what_it_can_do_and_what_not(tmp_path):
    text = card(tmp_path, [TUNED])
    head, body = text.removeprefix("---\n").split("\n---\n")
    assert head.splitlines() == [
        'license: "apache-2.0"',
        'library_name: "transformers"',
        'pipeline_tag: "text-generation"',
    ]
    assert body.strip().startswith("# A title\n\nA Gemma 3, whole, fine-tuned from `embedded`")
    for words in (
        "(weights `0123456789ab`)",
        "Made by `python -m nblib run v1_sft_format`, 150 steps.",
        "## Data\n\nbuilt-in problems of levels 1, 2\n\n- train: `aaaa`",
        '"lora_rank": 16',
        "| answer accuracy (the number is right) | 0.660 [0.592, 0.722] (n=200) |",
        '- tuned: {"temperature": 0.0, "max_new_tokens": 120}',
        "- read by transformers: 16 prompts, largest logit difference 1.8e-05 (limit 1.0e-03)",
        "- Measured on held-out questions of built-in problems of levels 1, 2, in English",
        "- 34.0% of its greedy answers there are wrong.",
        "- Its base is a toy",
        *(f"- {limit}" for limit in GSM8K.limits),
        "## Licence\n\nApache-2.0",
    ):
        assert words in body, words


def test_card_says_the_context_and_adapters_what_their_base_needs(tmp_path):
    scaled = {"rope_factor": 4.0, "context": 131_072}
    line = "Context: 131,072 tokens, RoPE factor 4 (of the global layers alone)."
    text = card(tmp_path, **scaled)
    assert line in text and "adapters" not in text
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "_METADATA").write_text("{}")
    said = "ignores it needs `global_scale_factor` 4."
    assert line.removesuffix(".") in card(tmp_path, **scaled) and said in card(tmp_path, **scaled)
    (tmp_path / "checkpoint" / "_METADATA").unlink()
    (tmp_path / "adapter_config.json").write_text("{}")
    text = card(tmp_path, **scaled)
    assert f"{line} These adapters were trained over their base with this factor" in text
    assert '`rope_scaling` `{"rope_type": "linear", "factor": 4}`.' in text
    plain = card(tmp_path, rope_factor=1.0, context=32_768)
    assert "Context: 32,768 tokens, RoPE factor 1" in plain and "rope_scaling" not in plain
    assert "Context" not in card(tmp_path)  # of a folder from before it was recorded


@pytest.mark.parametrize("root", ["gemma3-1b", "kaggle,huggingface:gemma3-1b"])
def test_derivative_of_gemma_names_its_terms_and_its_base(root, tmp_path):
    base = MANIFEST["base"] | {"name": "runs/v1/export", "root": root}
    text = card(tmp_path, base=base)
    assert text.startswith('---\nlicense: "gemma"\n')
    assert 'base_model: "google/gemma-3-1b-pt"' in text
    assert "https://ai.google.dev/gemma/terms" in text
    assert "toy" not in text


def test_unknown_origin_claims_no_licence(tmp_path):
    text = card(tmp_path, base={"name": "/a/folder", "sha256": "a", "root": "/a/folder"})
    assert text.startswith('---\nlicense: "other"\n')
    assert "base_model" not in text


def test_adapters_say_that_they_are_adapters(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    text = card(tmp_path, [TUNED], parity=[])
    assert 'library_name: "peft"' in text
    assert "LoRA adapters for `peft`, over `embedded`" in text
    assert "Same answers" not in text


def test_without_an_evaluation_it_says_so(tmp_path):
    assert "## Evaluation\n\nNothing was evaluated." in card(tmp_path)


def test_newer_card_replaces_the_older(tmp_path):
    card(tmp_path)
    assert "Nothing was evaluated" not in card(tmp_path, [TUNED])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "manifest.json"]


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        write_model_card(tmp_path, GSM8K, (), title="A title")
    assert list(tmp_path.iterdir()) == []


def test_a_mean_is_no_share_of_wrong_answers(tmp_path, slots, slot_stage):
    text = card(tmp_path, [slot_stage("tuned", ['{"a": 1, "b": 3}'])], task=slots)
    assert "| slot f1 (F1 of the slots) | 0.500 [" in text
    assert "- Slot f1 of its greedy answers: 0.500. Check what it answers." in text
    assert "wrong" not in text


def test_the_manifest_of_a_foundation_says_how_to_make_it_again_and_what_it_can_do():
    rows = FoundationRows(
        train=(), practice=(), validation=(), test=(), sha256="ab12", notes=("built-in",)
    )
    by_group = {"1": {"answer_accuracy": 0.5}, "2": {"answer_accuracy": 0.0}}
    stage = Stage(name="base", metrics={}, by_group=by_group, records=())
    losses = [{"step": n, "loss": 1.0, "seconds": 3.0} for n in range(1, 5)]
    history = [*losses, {"step": 2, "val_loss": 1.5}, {"step": 4, "val_loss": 1.25}]
    parameters = {"recipe": "full", "seed": 0}
    assert foundation_manifest(parameters, rows, stage, history) == {
        "command": "python -m nblib run v0_foundation -p RECIPE full",
        "parameters": parameters,
        "data": {"origin": "built-in", "sha256": "ab12"},
        "steps": 4,
        "training_minutes": 0.2,  # 4 x 3 seconds
        "validation_loss": 1.25,
        "groups": by_group,
    }
