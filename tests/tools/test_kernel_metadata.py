"""Each thing that Kaggle's client lets pass, or sends on, is refused with its reason."""

import json
from pathlib import Path

import pytest

from nblib.tools.kernel_metadata import METADATA_FILE, read_metadata, slug_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kernel(tmp_path):
    """Write a kernel's folder with these keys changed; None takes a key away."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    for place in (folder, tmp_path):
        (place / "v1.ipynb").touch()
    right = json.loads((ROOT / METADATA_FILE).read_text()) | {"code_file": "v1.ipynb"}

    def write(**changes):
        content = {key: value for key, value in (right | changes).items() if value is not None}
        (folder / METADATA_FILE).write_text(json.dumps(content))
        return folder

    return write


def test_the_roots_metadata_is_v1s_and_right():
    metadata = read_metadata(ROOT)
    assert metadata.code_file == "notebooks/v1_sft_format.ipynb"
    assert (metadata.machine_shape, metadata.enable_internet) == ("TpuV5E8", True)
    assert (metadata.slug, metadata.kernel_sources) == ("nblib-v1-sft-format", ())


def test_a_right_one_is_read_as_it_is(kernel):
    sources = ["one/two", "one/two/3"]
    metadata = read_metadata(kernel(dataset_sources=sources, machine_shape=""))
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
        ({"language": "r"}, "language is 'r', expected python"),
        ({"kernel_type": "script"}, "kernel_type is 'script', expected notebook"),
        ({"kernel_sources": "me/v1"}, "kernel_sources is 'me/v1', expected a list"),
        ({"kernel_sources": ["v1"]}, "kernel_sources is 'v1', expected owner/kernel"),
        ({"model_sources": ["google/gemma-3/flax/1b"]}, "expected owner/model/framework/variation"),
        ({"model_sources": ["google/gemma-3/flax/1b/x"]}, "the version a number"),
    ],
)
def test_a_wrong_one_is_refused_with_its_reason(kernel, changes, reason):
    with pytest.raises(ValueError, match=rf"{METADATA_FILE}: .*{reason}"):
        read_metadata(kernel(**changes))


@pytest.mark.parametrize(
    ("text", "reason"), [("[]", "expected an object, got list"), ("{", "JSON")]
)
def test_a_file_that_is_no_object_is_refused(kernel, text, reason):
    folder = kernel()
    (folder / METADATA_FILE).write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_metadata(folder)


def test_no_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="not there; `python -m nblib kernels build` makes it"):
        read_metadata(tmp_path)


def test_a_slug_is_made_as_kaggle_makes_it():
    assert slug_of("nblib v2: GRPO (fast)") == "nblib-v2-grpo-fast"
