"""Metadata files of the hubs: a right one of each, and what each wrong one is refused for."""

import pytest

from nblib.tools.hub_metadata import (
    CardMetadata,
    DatasetMetadata,
    VariationMetadata,
    check_repository,
    checked,
)

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
    assert checked(DatasetMetadata, DATASET | extras).keywords == ["gemma"]
    plain = {"licenses": [{"name": "apache-2.0"}], "description": "All our own."}
    assert checked(DatasetMetadata, DATASET | plain).title == "Gemma 3 shows its work"
    handle = "somebody/gemma3-shows-its-work/transformers/v1-sft-format"
    assert checked(VariationMetadata, VARIATION).handle == handle
    assert checked(CardMetadata, CARD | {"tags": ["math"]}).license == "gemma"
    apart = {"license": "apache-2.0", "base_model": ""}
    assert checked(CardMetadata, CARD | apart).base_model == ""
    check_repository("some_body/Gemma-3.1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "gemma3-shows-its-work"}, r"id is '', expected a name of 6 to 50"),
        ({"id": "some body/gemma3"}, r"id is 'some body/gemma3', expected owner/name"),
        ({"id": "somebody/Gemma_3"}, r"id is 'Gemma_3', expected a name of 6 to 50 lower-case"),
        ({"id": "somebody/gem"}, r"id is 'gem', expected a name of 6 to 50"),
        ({"title": "Gemma"}, r"title is 'Gemma', expected 6 to 50 characters"),
        ({"title": 7}, r"title is 7, expected text"),
        ({"subtitle": "too short"}, r"subtitle is 'too short', expected 20 to 80 characters"),
        ({"licenses": []}, r"licenses is \[\], expected .* of apache-2.0, other"),
        ({"licenses": [{"name": "CC0-1.0"}]}, r"licenses is .*CC0-1.0"),
        ({"licenses": [{"name": "other", "path": "x"}]}, r"licenses is "),
        ({"description": "Mine."}, rf"description is 'Mine.', expected Gemma's terms, {TERMS}"),
        ({"keywords": [1]}, r"keywords is \[1\], expected a list of words"),
        ({"licence": "MIT"}, r"unknown key 'licence', the keys are description, id, keywords, "),
    ],
)
def test_each_wrong_dataset_is_refused_by_its_key(change, said):
    with pytest.raises(ValueError, match=f"^dataset-metadata.json: {said}"):
        checked(DatasetMetadata, DATASET | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ownerSlug": "some/body"}, r"ownerSlug is 'some/body', expected a name of letters"),
        ({"modelSlug": "A"}, r"modelSlug is 'A', expected a name of 3 to 50"),
        ({"instanceSlug": "v1_sft"}, r"instanceSlug is 'v1_sft'"),
        ({"framework": "pyTorch"}, r"framework is 'pyTorch', expected flax, transformers"),
        ({"licenseName": "MIT"}, r"licenseName is 'MIT', expected Apache 2.0, Gemma"),
    ],
)
def test_each_wrong_variation_is_refused_by_its_key(change, said):
    with pytest.raises(ValueError, match=f"^model-instance-metadata.json: {said}"):
        checked(VariationMetadata, VARIATION | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"license": "other"}, r"license is 'other', expected apache-2.0, gemma"),
        ({"library_name": "jax"}, r"library_name is 'jax', expected peft, transformers"),
        ({"pipeline_tag": "chat"}, r"pipeline_tag is 'chat', expected text-generation"),
        ({"base_model": ""}, r"base_model is '', expected the base's repository"),
        ({"base_model": "/home/me/x"}, r"base_model is '/home/me/x'"),
        ({"tags": 3}, r"tags is 3, expected a list"),
    ],
)
def test_each_wrong_card_is_refused_by_its_key(change, said):
    with pytest.raises(ValueError, match=f"^README.md: {said}"):
        checked(CardMetadata, CARD | change)


def test_a_missing_key_and_a_wrong_repository_are_named():
    with pytest.raises(ValueError, match=r"^README.md lacks 'license'"):
        checked(CardMetadata, {key: value for key, value in CARD.items() if key != "license"})
    for name in ("nobody", "a/b/c", "-a/b", "a/" + "b" * 95):
        with pytest.raises(ValueError, match="expected owner/name of at most 96"):
            check_repository(name)
