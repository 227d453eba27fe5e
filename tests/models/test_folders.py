import json

import pytest

from nblib.models.folders import (
    new_folder,
    orbax_trees,
    read_manifest,
    rename_folder,
    weights_sha256,
)

OURS = json.dumps({"tokenizer_sha256": "of its writer"})


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content)
    return folder


@pytest.fixture
def new(tokenizer):
    return lambda folder: new_folder(folder, tokenizer, {"made_by": "a test"}, size=544)


def test_new_folder_appears_whole_or_not_at_all(tmp_path, new):
    with pytest.raises(OSError, match="disk"), new(tmp_path / "deep" / "made") as partial:
        write(partial, manifest=OURS)
        assert not (tmp_path / "deep" / "made").exists()
        raise OSError("disk full")
    assert not (tmp_path / "deep" / "made").exists()
    with new(tmp_path / "deep" / "made") as partial:
        assert list(partial.iterdir()) == []  # nothing of the attempt before
        write(partial, manifest=OURS)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["made"]
    manifest = read_manifest(tmp_path / "deep" / "made")
    assert manifest.keys() == {"made_by", "tokenizer_size", "tokenizer_sha256"}


def test_own_folder_is_replaced_and_a_foreign_one_left_alone(tmp_path, new):
    write(tmp_path / "ours", manifest=OURS, old="{}")
    rename_folder(write(tmp_path / "new", manifest=OURS), tmp_path / "ours")
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["manifest.json"]
    for name, files in (("none", {"thesis": "{}"}), ("other", {"manifest": "{}"})):
        foreign = write(tmp_path / name, **files)
        with pytest.raises(FileExistsError, match=f"{name} holds something else"):
            rename_folder(tmp_path / "ours", foreign)
        with pytest.raises(FileExistsError), new(foreign):
            pass
        assert len(list(foreign.iterdir())) == 1


def test_manifest_of_a_download_is_empty(tmp_path):
    assert read_manifest(tmp_path) == {}
    assert read_manifest(write(tmp_path / "ours", manifest=OURS)) == json.loads(OURS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"manifest\.json holds \[\], expected a JSON object"),
        ("{", r"manifest\.json: expected JSON, "),
        ('{"base": "x"}', r"manifest\.json: base is 'x', expected an object"),
        ('{"base": null}', r"manifest\.json: base is None, expected an object"),
        ('{"base": {"sha256": 1}}', r"manifest\.json: base\.sha256 is 1, expected text"),
        ('{"tokenizer_sha256": []}', r"manifest\.json: tokenizer_sha256 is \[\], expected text"),
    ],
)
def test_a_broken_manifest_is_named_and_its_folder_left_alone(content, message, tmp_path, new):
    folder = write(tmp_path / "broken", manifest=content)
    with pytest.raises(ValueError, match=message):
        read_manifest(folder)
    with pytest.raises(FileExistsError, match="broken holds something else"), new(folder):
        pass


def test_orbax_trees_lie_one_level_below(tmp_path):
    assert orbax_trees(tmp_path) == []
    for name in ("gemma3-1b-it", "deep/tree"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "_METADATA").write_text("{}")
    assert orbax_trees(tmp_path) == [tmp_path / "gemma3-1b-it"]


def test_hash_follows_the_weights_alone(tmp_path):
    weights = {"one": b"weights", "again": b"weights", "other": b"Weights"}
    for name, content in weights.items():
        write(tmp_path / name, manifest=name)
        (tmp_path / name / "model.safetensors").write_bytes(content)
    one, again, other = (weights_sha256(tmp_path / name) for name in weights)
    assert one == again != other
