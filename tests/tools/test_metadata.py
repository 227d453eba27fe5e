"""Metadata files of the hubs: a right one of each, and what each wrong one is refused for."""

import json
from pathlib import Path

import pytest

from nblib.tools.metadata import (
    CardMetadata,
    DatasetMetadata,
    KernelMetadata,
    VariationMetadata,
    read_kernel_metadata,
    slug_of,
)

ROOT = Path(__file__).parents[2]

TERMS = "https://ai.google.dev/gemma/terms"
DATASET = {
    "id": "somebody/gemma3-shows-its-work",
    "title": "Gemma 3 shows its work",
    "licenses": [{"name": "other"}],
    "description": f"Under Gemma's terms, {TERMS}",
}
VARIATION = {
    "ownerSlug": "somebody",
    "modelSlug": "gemma3-shows-its-work",
    "instanceSlug": "v1-sft-format",
    "framework": "transformers",
    "licenseName": "Gemma",
}
CARD = {
    "license": "gemma",
    "library_name": "transformers",
    "pipeline_tag": "text-generation",
    "base_model": "google/gemma-3-1b-it",
}


def test_right_ones_are_taken():
    extras = {"subtitle": "Reasoning in strict form", "keywords": ["gemma"]}
    assert DatasetMetadata.checked(DATASET | extras).keywords == ("gemma",)
    plain = {"licenses": [{"name": "apache-2.0"}], "description": "All our own."}
    assert DatasetMetadata.checked(DATASET | plain).title == "Gemma 3 shows its work"
    assert VariationMetadata.checked(VARIATION).framework == "transformers"
    assert CardMetadata.checked(CARD | {"tags": ["math"]}).license == "gemma"
    apart = {"license": "apache-2.0", "base_model": ""}
    assert CardMetadata.checked(CARD | apart).base_model == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"id": "gemma3-shows-its-work"},
            r"id is 'gemma3-.*', expected owner/name, a name of 6 to 50",
        ),
        ({"id": "some body/gemma3"}, r"id is 'some body/gemma3', expected owner/name"),
        (
            {"id": "somebody/Gemma_3"},
            r"id is 'somebody/Gemma_3', expected owner/name, a name of 6 to 50 lower-case",
        ),
        ({"id": "somebody/gem"}, r"id is 'somebody/gem', expected owner/name, a name of 6 to 50"),
        ({"title": "Gemma"}, r"title is 'Gemma', expected 6 to 50 characters"),
        ({"title": 7}, r"title is 7, expected text"),
        ({"subtitle": "too short"}, r"subtitle is 'too short', expected 20 to 80 characters"),
        ({"licenses": []}, r"licenses is \[\], expected one of .*apache-2.0.*other"),
        ({"licenses": [{"name": "CC0-1.0"}]}, r"licenses is .*CC0-1.0"),
        ({"licenses": [{"name": "other", "path": "x"}]}, r"licenses is "),
        ({"description": "Mine."}, rf"description is 'Mine.', expected Gemma's terms, {TERMS}"),
        ({"keywords": [1]}, r"keywords is 1, expected text"),
        ({"licence": "MIT"}, r"unknown key 'licence': expected id, title, licenses, "),
    ],
)
def test_each_wrong_dataset_is_refused_by_its_key(change, said):
    with pytest.raises(ValueError, match=f"^dataset-metadata.json: {said}"):
        DatasetMetadata.checked(DATASET | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ownerSlug": "some/body"}, r"ownerSlug is 'some/body', expected a name of letters"),
        ({"modelSlug": "A"}, r"modelSlug is 'A', expected a name of 3 to 50"),
        ({"instanceSlug": "v1_sft"}, r"instanceSlug is 'v1_sft'"),
        ({"framework": "pyTorch"}, r"framework is 'pyTorch', expected one of transformers, flax"),
        ({"licenseName": "MIT"}, r"licenseName is 'MIT', expected one of Apache 2.0, Gemma"),
    ],
)
def test_each_wrong_variation_is_refused_by_its_key(change, said):
    with pytest.raises(ValueError, match=f"^model-instance-metadata.json: {said}"):
        VariationMetadata.checked(VARIATION | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"license": "other"}, r"license is 'other', expected one of apache-2.0, gemma"),
        ({"library_name": "jax"}, r"library_name is 'jax', expected one of transformers, peft"),
        ({"pipeline_tag": "chat"}, r"pipeline_tag is 'chat', expected one of text-generation"),
        ({"base_model": ""}, r"base_model is '', expected the base's repository"),
        ({"base_model": "/home/me/x"}, r"base_model is '/home/me/x'"),
        ({"tags": 3}, r"tags is 3, expected a list"),
    ],
)
def test_each_wrong_card_is_refused_by_its_key(change, said):
    with pytest.raises(ValueError, match=f"^README.md: {said}"):
        CardMetadata.checked(CARD | change)


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match=r"^README.md: lacks license"):
        CardMetadata.checked({key: value for key, value in CARD.items() if key != "license"})


@pytest.fixture
def kernel(tmp_path):
    """Write a kernel's folder with these keys changed; None takes a key away."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    for place in (folder, tmp_path):
        (place / "v1.ipynb").touch()
    right = json.loads((ROOT / KernelMetadata.file).read_text()) | {"code_file": "v1.ipynb"}

    def write(**changes):
        content = {key: value for key, value in (right | changes).items() if value is not None}
        (folder / KernelMetadata.file).write_text(json.dumps(content))
        return folder

    return write


def test_the_roots_metadata_is_v1s_and_right():
    metadata = read_kernel_metadata(ROOT)
    assert metadata.code_file == "notebooks/v1_sft_format.ipynb"
    assert (metadata.machine_shape, metadata.enable_internet) == ("TpuV5E8", True)
    assert (metadata.slug, metadata.kernel_sources) == ("nblib-v1-sft-format", ())


def test_a_right_one_is_read_as_it_is(kernel):
    sources = ["one/two", "one/two/3"]
    metadata = read_kernel_metadata(kernel(dataset_sources=sources, machine_shape=""))
    assert metadata.dataset_sources == ("one/two", "one/two/3")
    assert metadata.model_sources == ("google/gemma-3/transformers/gemma-3-1b-it/1",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"acelerator": "TpuV5E8"}, "unknown key 'acelerator': expected id, title"),
        ({"docker_image": "x"}, "docker_image is refused: beside a TPU it silently runs a CPU"),
        ({"enable_tpu": True}, "enable_tpu is refused: it is deprecated; name the accelerator"),
        ({"machine_shape": "TpuV5e8"}, "machine_shape is 'TpuV5e8', expected one of TpuV5E8"),
        ({"machine_shape": None}, "lacks machine_shape; Kaggle's defaults differ"),
        ({"enable_internet": None}, "lacks enable_internet; Kaggle's defaults differ"),
        ({"enable_internet": "true"}, "enable_internet is 'true', expected true or false, without"),
        ({"is_private": 1}, "is_private is 1, expected true or false"),
        ({"title": "nbl"}, "title is 'nbl', expected 5 to 50 characters"),
        ({"title": "nblib v1"}, "id is .*, expected nblib-v1, which Kaggle makes of the title"),
        ({"id": "nblib-v1-sft-format"}, "id is 'nblib-v1-sft-format', expected owner/slug"),
        ({"id": "me/v1", "title": "v1 v1"}, "id is 'me/v1', expected owner/slug"),
        ({"code_file": "v2.ipynb"}, "code_file 'v2.ipynb' is not in "),
        ({"code_file": "../v1.ipynb"}, "code_file '../v1.ipynb' is not in "),
        ({"code_file": "v1.py"}, "code_file is 'v1.py', expected the path of an .ipynb"),
        ({"language": "r"}, "language is 'r', expected one of python"),
        ({"kernel_type": "script"}, "kernel_type is 'script', expected one of notebook"),
        ({"kernel_sources": "me/v1"}, "kernel_sources is 'me/v1', expected a list"),
        ({"kernel_sources": ["v1"]}, "kernel_sources is 'v1', expected owner/name"),
        ({"model_sources": ["google/gemma-3/flax/1b"]}, "expected owner/model/framework/variation"),
        ({"model_sources": ["google/gemma-3/flax/1b/x"]}, "the version a number"),
    ],
)
def test_a_wrong_one_is_refused_with_its_reason(kernel, changes, reason):
    with pytest.raises(ValueError, match=rf"{KernelMetadata.file}: .*{reason}"):
        read_kernel_metadata(kernel(**changes))


@pytest.mark.parametrize(
    ("text", "reason"), [("[]", "expected an object, got list"), ("{", "JSON")]
)
def test_a_file_that_is_no_object_is_refused(kernel, text, reason):
    folder = kernel()
    (folder / KernelMetadata.file).write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_kernel_metadata(folder)


def test_no_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="not there; `python -m nblib kernels build` makes it"):
        read_kernel_metadata(tmp_path)


def test_a_slug_is_made_as_kaggle_makes_it():
    assert slug_of("nblib v2: GRPO (fast)") == "nblib-v2-grpo-fast"
