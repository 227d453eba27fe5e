"""The model that ships: its files, what its manifest claims, and that the claim holds."""

from nblib.evaluation.answers import Decoding, evaluate_stages
from nblib.models.folders import read_manifest
from nblib.models.gemma3 import parameter_count
from nblib.models.names import get_gemma_ref_model
from nblib.models.published import EMBEDDED_FOLDER
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K

FILES = {
    "config.json",
    "generation_config.json",
    "manifest.json",
    "model.safetensors",
    "tokenizer.model",
}


def test_folder_is_whole_and_small():
    sizes = {path.name: path.stat().st_size for path in EMBEDDED_FOLDER.iterdir() if path.is_file()}
    assert set(sizes) == FILES
    assert sum(sizes.values()) <= 9_000_000


def test_manifest_says_how_it_was_made_and_what_it_can_do():
    manifest = read_manifest(EMBEDDED_FOLDER)
    assert manifest["command"] == "python -m nblib run v0_foundation -p RECIPE full"
    assert "GSM8K" in manifest["data"]["origin"]
    assert manifest["tokenizer_size"] == 544
    assert accuracy(manifest, "1", "2") >= 0.90
    assert 0.25 <= accuracy(manifest, "3", "4") <= 0.70  # room for GRPO


def accuracy(manifest, *levels):
    """Share of right answers over all problems of these levels."""
    figures = [manifest["groups"][level] for level in levels]
    right = sum(figure["answer_accuracy"] * figure["n"] for figure in figures)
    return right / sum(figure["n"] for figure in figures)


def test_it_answers_in_its_own_form_and_not_in_xml(mesh):
    ref = get_gemma_ref_model("embedded", mesh)
    assert parameter_count(ref.model) <= 4_000_000
    examples = GSM8K.examples(word_problems(48, seed=99, split="test", levels=(1, 2)))
    decoding = Decoding(max_new_tokens=80, batch_size=48)
    asked = {"own": (GSM8K.variants["hash"], decoding), "xml": (GSM8K, decoding)}
    own, xml = evaluate_stages(ref, asked, examples)
    assert own.metrics["answer_accuracy"] > 0.8
    assert xml.metrics["format_accuracy"] == 0
