import json

import pytest

from nblib.report.model_card import write_model_card

TUNED = {
    "n": 200,
    "format_accuracy": 0.995,
    "format_accuracy_ci95": [0.9722, 0.9991],
    "answer_accuracy": 0.66,
    "answer_accuracy_ci95": [0.5918, 0.7221],
    "decoding": {"temperature": 0.0, "max_new_tokens": 120},
}
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


def card(folder, stages, **changes):
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | changes))
    write_model_card(folder, stages, title="A title")
    return (folder / "README.md").read_text()


def test_card_says_where_it_is_from_what_it_can_do_and_what_not(tmp_path):
    text = card(tmp_path, {"tuned": TUNED})
    head, body = text.removeprefix("---\n").split("\n---\n")
    assert head.splitlines() == [
        'license: "apache-2.0"',
        'library_name: "transformers"',
        'pipeline_tag: "text-generation"',
    ]
    assert body.strip().startswith("# A title\n\nA Gemma 3, whole, fine-tuned from `embedded`")
    for told in (
        "(weights `0123456789ab`)",
        "Made by `python -m nblib run v1_sft_format`, 150 steps.",
        "## Data\n\nbuilt-in problems of levels 1, 2\n\n- train: `aaaa`",
        '"lora_rank": 16',
        "| answer accuracy | 0.660 [0.592, 0.722] (n=200) |",
        '- tuned: {"temperature": 0.0, "max_new_tokens": 120}',
        "- read by transformers: 16 prompts, largest logit difference 1.8e-05 (limit 1.0e-03)",
        "- Measured on held-out questions of built-in problems of levels 1, 2, in English",
        "- 34.0% of its greedy answers there are wrong.",
        "- Its base is a toy",
        "## Licence\n\nApache-2.0",
    ):
        assert told in body, told


@pytest.mark.parametrize("root", ["gemma3-1b", "kaggle,huggingface:gemma3-1b"])
def test_derivative_of_gemma_names_its_terms_and_its_base(root, tmp_path):
    base = MANIFEST["base"] | {"name": "runs/v1/export", "root": root}
    text = card(tmp_path, {}, base=base)
    assert text.startswith('---\nlicense: "gemma"\n')
    assert 'base_model: "google/gemma-3-1b-pt"' in text
    assert "https://ai.google.dev/gemma/terms" in text
    assert "toy" not in text


def test_unknown_origin_claims_no_licence(tmp_path):
    text = card(tmp_path, {}, base={"name": "/a/folder", "sha256": "a", "root": "/a/folder"})
    assert text.startswith('---\nlicense: "other"\n')
    assert "base_model" not in text


def test_adapters_say_that_they_are_adapters(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    text = card(tmp_path, {"tuned": TUNED}, parity=[])
    assert 'library_name: "peft"' in text
    assert "LoRA adapters for `peft`, over `embedded`" in text
    assert "Same answers" not in text


def test_without_an_evaluation_it_says_so(tmp_path):
    assert "## Evaluation\n\nNothing was evaluated." in card(tmp_path, {})


def test_newer_card_replaces_the_older(tmp_path):
    card(tmp_path, {})
    assert "Nothing was evaluated" not in card(tmp_path, {"tuned": TUNED})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "manifest.json"]


def test_folder_that_is_not_there_is_left_alone_and_one_without_manifest_refused(tmp_path):
    write_model_card(tmp_path / "adapters", {}, title="A title")  # trained in full: no adapters
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        write_model_card(tmp_path, {}, title="A title")
