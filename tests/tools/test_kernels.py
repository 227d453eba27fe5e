"""What is built for Kaggle: each notebook with the library inside, and its metadata."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jupytext
import nbformat
import pytest

from nblib import REPOSITORY
from nblib.models.folders import weights_sha256
from nblib.models.published import EMBEDDED_FOLDER, embedded_dataset
from nblib.tools import kernels
from nblib.tools.kernels import build_kernels, built_kernels, kernel_metadata, stamp, stamp_files
from nblib.tools.metadata import read_kernel_metadata
from nblib.tools.notebooks import notebook_infos

ROOT = Path(__file__).parents[2]
V1, V2 = "nblib-suite/nblib-v1-sft-format", "nblib-suite/nblib-v2-grpo"
MODEL = f"nblib-suite/{embedded_dataset(weights_sha256(EMBEDDED_FOLDER))}"
GEMMA = ("google/gemma-3/transformers/gemma-3-1b-it/1",)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
NAMES = ["envelope", "eval", "extraction", "proofs", "v0_foundation", "v1_sft_format", "v2_grpo"]


def notebook(built, name):
    return nbformat.read(built / "build" / "kernels" / name / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def wheel(built, tmp_path_factory):
    """The wheel that the cell in a built notebook writes, in an interpreter of its own."""
    (cell,) = [c for c in notebook(built, "eval").cells if "wheel" in c.metadata.get("tags", ())]
    code = f"{cell.source}\nprint(os.environ['NBLIB_WHEEL'])"
    script = tmp_path_factory.mktemp("cell") / "cell.py"
    script.write_text(code)
    answer = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    path = Path(answer.stdout.strip())
    content = path.read_bytes()
    path.unlink()
    path.parent.rmdir()
    assert path.name == "nblib-0.1.0-py3-none-any.whl"
    return zipfile.ZipFile(io.BytesIO(content))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_source_with_one_cell_more_and_no_output(built, name):
    cells = notebook(built, name).cells
    assert cells.pop(1).id == "nblib-wheel"
    source = jupytext.read(ROOT / "notebooks" / f"{name}.py").cells
    assert [cell.source for cell in cells] == [cell.source for cell in source]
    assert not any(cell.get("outputs") for cell in cells)
    assert cells[1].source.startswith("## Install") and cells[2].metadata.tags == ["install"]


def test_the_wheel_holds_the_library_as_it_is_here(wheel):
    held = {name: wheel.read(name) for name in wheel.namelist() if name.startswith("nblib/")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "nblib").rglob("*.py")}
    assert modules <= set(held)
    for name in (*modules, "nblib/models/embedded/config.json"):
        assert held[name] == (ROOT / name).read_bytes(), name
    commands = (ROOT / "kaggle_install_commands.txt").read_bytes()
    assert held["nblib/hosts/kaggle_install_commands.txt"] == commands


def test_a_key_in_a_file_beside_the_notebooks_stays_there(wheel, built):
    key = (built / ".env").read_text().strip().partition("=")[2]
    assert len(key) > 8
    files = [path for path in (built / "build").rglob("*") if path.is_file()]
    assert len(files) > len(NAMES)
    assert not [path for path in files if path.name == ".env" or key.encode() in path.read_bytes()]
    assert not [
        name for name in wheel.namelist() if ".env" in name or key.encode() in wheel.read(name)
    ]


def test_the_weights_travel_as_a_dataset_that_the_wheels_manifest_finds(wheel, built):
    assert not [name for name in wheel.namelist() if name.endswith(".safetensors")]
    dataset = built / "build" / "kernels" / MODEL.partition("/")[2]
    manifest = wheel.read("nblib/models/embedded/manifest.json")
    assert manifest == (dataset / "manifest.json").read_bytes()
    assert json.loads(manifest)["weights_sha256"] == weights_sha256(EMBEDDED_FOLDER)
    metadata = json.loads((dataset / "dataset-metadata.json").read_text())
    assert (metadata["id"], metadata["licenses"]) == (MODEL, [{"name": "apache-2.0"}])
    for path in EMBEDDED_FOLDER.iterdir():
        if path.name != "manifest.json":
            assert (dataset / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "machine", "reads", "models", "datasets"),
    [
        ("v0_foundation", "", (), (), ()),
        ("envelope", "TpuV5E8", (), GEMMA, (MODEL,)),
        ("extraction", "TpuV5E8", (), GEMMA, (MODEL,)),
        ("proofs", "TpuV5E8", (), GEMMA, (MODEL,)),
        ("v1_sft_format", "TpuV5E8", (), GEMMA, (MODEL,)),
        ("v2_grpo", "TpuV5E8", (V1,), (), (MODEL,)),
        ("eval", "TpuV5E8", (V1, V2), GEMMA, (MODEL,)),
    ],
)
def test_the_metadata_chains_v1_to_v2_to_eval(built, name, machine, reads, models, datasets):
    metadata = read_kernel_metadata(built / "build" / "kernels" / name)
    assert metadata.code_file == f"{name}.ipynb"
    assert metadata.id == f"nblib-suite/nblib-{name.replace('_', '-')}"
    assert (metadata.machine_shape, metadata.kernel_sources) == (machine, reads)
    assert (metadata.model_sources, metadata.dataset_sources) == (models, datasets)
    assert metadata.enable_internet and metadata.is_private


def metadata_of_eval():
    info = notebook_infos()["eval"]
    return kernel_metadata("eval", info, read_kernel_metadata(ROOT), owner="me", dataset="me/model")


def test_another_owner_owns_what_is_read_as_well():
    metadata = metadata_of_eval()
    assert metadata.id == "me/nblib-eval"
    assert metadata.kernel_sources == ("me/nblib-v1-sft-format", "me/nblib-v2-grpo")


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_is_smaller_than_kaggle_allows(built, name):
    size = (built / "build" / "kernels" / name / f"{name}.ipynb").stat().st_size
    assert size < 850_000  # it refuses 1,000,000 bytes; 878,947 were seen to pass


def test_it_is_the_same_each_time(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (kernel,) = build_kernels(["v2_grpo"], owner="me")
    before = built / "build" / "kernels" / "v2_grpo" / "v2_grpo.ipynb"
    assert (kernel / "v2_grpo.ipynb").read_text() == before.read_text()
    assert json.loads((kernel / "kernel-metadata.json").read_text())["id"] == "me/nblib-v2-grpo"


def test_what_does_not_belong_in_it_makes_it_too_large(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metadata = metadata_of_eval()
    reason = "eval.ipynb has 950,001 bytes, at most 950,000 are sent, as Kaggle refuses 1,000,000"
    with pytest.raises(ValueError, match=reason):
        kernels._write_kernel(tmp_path / "eval", metadata, "é" * 475_000 + "x")
    assert not (tmp_path / "eval").exists()


def test_an_unknown_notebook_is_refused():
    with pytest.raises(
        ValueError, match="unknown notebook 'v3': expected envelope, eval, extraction, proofs"
    ):
        build_kernels(["v3"])


def test_a_notebook_of_another_name_is_built_by_what_it_says_it_is(envelope):
    grpo, sft = map(read_kernel_metadata, build_kernels(owner="me"))
    assert (sft.id, sft.code_file) == ("me/nblib-envelope", "envelope.ipynb")
    assert (sft.machine_shape, sft.model_sources, sft.kernel_sources) == ("TpuV5E8", GEMMA, ())
    assert sft.dataset_sources == (MODEL.replace("nblib-suite", "me"),)
    assert (grpo.model_sources, grpo.kernel_sources) == ((), ("me/nblib-envelope",))
    assert [folder.name for folder in built_kernels()] == ["envelope", "a_grpo"]
    with pytest.raises(ValueError, match="unknown notebook 'plain': expected a_grpo, envelope, or"):
        build_kernels(["plain"])


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "toy.ipynb"
    path.with_suffix(".py").write_text("# %% [markdown]\n# # Toy\n\n# %%\nprint(1)\n")
    return path, jupytext.read(path.with_suffix(".py"))


def test_a_pair_out_of_step_is_refused(pair):
    path, toy = pair
    toy.cells[1].source = "print(2)"
    nbformat.write(toy, path)
    with pytest.raises(ValueError, match=r"toy.ipynb is not what its .py says: run `make sync`"):
        kernels._with_cell(path, kernels._wheel_cell("w.whl", b""))


def test_outputs_do_not_travel(pair):
    path, toy = pair
    toy.cells[1].outputs = [nbformat.v4.new_output("stream", text="a key")]
    nbformat.write(toy, path)
    with pytest.raises(ValueError, match=r"toy.ipynb holds outputs, which may hold anything"):
        kernels._with_cell(path, kernels._wheel_cell("w.whl", b""))


def test_what_a_pull_leaves_of_kaggles_image_does_not_travel(pair, capsys):
    path, toy = pair
    toy.metadata["kaggle"] = {"accelerator": "none", "dockerImageVersionId": 31193}
    nbformat.write(toy, path)
    sent = json.loads(kernels._with_cell(path, kernels._wheel_cell("w.whl", b"")))
    assert "kaggle" not in sent["metadata"]
    assert capsys.readouterr().out == (
        f"{path}: left out metadata.kaggle, as a pull leaves it: "
        '{"accelerator": "none", "dockerImageVersionId": 31193}\n'
    )


def test_built_kernels_come_after_what_they_read(built, tmp_path, monkeypatch):
    monkeypatch.chdir(built)
    order = [folder.name for folder in built_kernels()]
    assert order == [*(name for name in NAMES if name != "eval"), "eval"]
    assert [folder.name for folder in built_kernels(["eval", "v1_sft_format"])] == [
        "v1_sft_format",
        "eval",
    ]
    with pytest.raises(ValueError, match="lacks v3: run `python -m nblib kernels build`"):
        built_kernels(["v3"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="lacks any kernel: run"):
        built_kernels()


@pytest.mark.parametrize("path", [*NOTEBOOKS, ROOT / "README.md"], ids=lambda path: path.stem)
def test_every_file_names_this_repository_and_version(path):
    text = path.read_text()
    assert stamp(text) == text


def test_another_owner_and_version_reach_every_place(tmp_path, monkeypatch):
    path = tmp_path / "v1.py"
    before = NOTEBOOKS[0].read_text()
    path.write_text(before)
    assert stamp_files([path]) == []
    monkeypatch.setattr("nblib.tools.kernels.REPOSITORY", "me/my.fork")
    monkeypatch.setattr("nblib.tools.kernels.__version__", "1.2.0")
    assert stamp_files([path]) == [path]
    after = path.read_text()
    assert REPOSITORY not in after and after.count("me/my.fork") == before.count(REPOSITORY) > 3
    assert "me/my.fork@v1.2.0" in after and 'install_packages("1.2.0")' in after
