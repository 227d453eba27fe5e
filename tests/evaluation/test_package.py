import json
import re

import pytest

from nblib.evaluation.answers import Decoding, generate
from nblib.evaluation.package import (
    PACKAGE_FILE,
    package_files,
    package_sha256,
    read_package,
)
from nblib.models.names import get_gemma_ref_model
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.extraction_kinds import PageKinds
from nblib.tasks.json_schema import Schema

SLOTS = {"name": {"type": "string", "max_length": 20}, "price": {"type": "integer"}}


def test_an_export_says_how_its_pages_are_asked_and_answered(package):
    read = read_package(package)
    assert read.max_new_tokens == 64
    product, leads = sorted(read.kinds, key=lambda kind: kind.task, reverse=True)
    assert (product.task, product.instruction) == ("product", "Read name and price.\n\n")
    assert (product.slot_specs, product.words, product.system_prompt) == (SLOTS, (), "")
    assert list(product.json_schema["properties"]) == ["name", "price"]
    assert (leads.task, leads.instruction) == ("leads", "Does it lead on?\n\n")
    assert (leads.json_schema, leads.words) == (None, ("YES", "NO"))


def test_its_smoke_item_is_what_the_model_answers(package, mesh):
    smoke = read_package(package).smoke
    ref = get_gemma_ref_model(str(package), mesh)
    (answer,) = generate(ref, [smoke.prompt], Decoding(max_new_tokens=64))
    assert answer["completion"] == smoke.unbound == smoke.answer
    assert answer["tokens"] == smoke.completion_tokens
    assert len(ref.tokenizer.encode(smoke.prompt)) + 1 == smoke.prompt_tokens
    template = read_package(package).prompt_template
    assert template.format(system_prompt="", question=smoke.question) == smoke.prompt
    assert Schema(smoke.json_schema).problem(json.loads(smoke.answer)) is None


def test_without_kinds_there_is_no_package(ref_of):
    none = PageKinds(kinds=(), left_out=("product: slot name has no type",))
    assert package_files(EXTRACTION, none, (), Decoding())(ref_of()) == {}


def test_a_folder_that_is_no_package_says_what_to_give(package, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"extraction\.json is missing: .* give the export"):
        read_package(tmp_path)
    content = json.loads((package / PACKAGE_FILE).read_text())
    for change in ({"schema_version": 2}, {"kinds": []}, {"kinds": [{"task": 3}]}):
        (tmp_path / PACKAGE_FILE).write_text(json.dumps(content | change))
        (name,) = change
        with pytest.raises(ValueError, match=rf"extraction\.json: {name}.*; export the model"):
            read_package(tmp_path)


@pytest.mark.parametrize("name", [PACKAGE_FILE, "config.json", "model.safetensors"])
def test_another_package_has_another_hash(name, package, tmp_path):
    for path in package.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert package_sha256(tmp_path) == package_sha256(package)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(
        re.sub(b"}$", b" }", content) if name[-1] == "n" else content + b" "
    )
    assert package_sha256(tmp_path) != package_sha256(package)
