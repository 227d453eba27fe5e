"""Kaggle's own client against a server on loopback: what is sent, refused, and brought home."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nblib.__main__ import main
from nblib.models.folders import weights_sha256
from nblib.models.published import EMBEDDED_FOLDER, embedded_dataset
from nblib.tools import push

sys.path.append(str(Path(__file__).parent))
from kaggle_server import SAVED, KaggleServer

KEY = "0123456789abcdef0123456789abcdef"
TOO_LARGE = "The kernel source must be less than 1 megabytes in size"
NO_SESSION = "Maximum batch CPU session count of 5 reached"
DATASET = embedded_dataset(weights_sha256(EMBEDDED_FOLDER))
NAMES = ["envelope", "extraction", "proofs", "v0_foundation", "v1_sft_format", "v2_grpo", "eval"]


@pytest.fixture
def server():
    with KaggleServer() as server:
        yield server
        server.shutdown()


@pytest.fixture
def account(monkeypatch, tmp_path, server):
    """Somebody's credentials, and Kaggle's client that goes to the server, never to Kaggle."""
    from kagglesdk import kaggle_env

    variables = {
        "HOME": str(tmp_path / "home"),
        "KAGGLE_CONFIG_DIR": str(tmp_path / "home"),
        "KAGGLE_USERNAME": "nblib-suite",
        "KAGGLE_KEY": KEY,
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "NBLIB_RUNS_DIR": str(tmp_path / "runs"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # there it keeps uploads to resume
    local = kaggle_env.KaggleEnv.LOCAL
    monkeypatch.setitem(kaggle_env._env_to_endpoint, local, server.address)
    return variables


@pytest.fixture
def kernels(account, built, monkeypatch):
    monkeypatch.chdir(built)
    return built / "build" / "kernels"


def as_sent(kernels, name):
    """What the client makes of a kernel's folder, by the metadata and the notebook on disk."""
    metadata = json.loads((kernels / name / "kernel-metadata.json").read_text())
    cells = json.loads((kernels / name / f"{name}.ipynb").read_text())["cells"]
    body = {
        "slug": metadata["id"],
        "newTitle": metadata["title"],
        "language": "python",
        "kernelType": "notebook",
        "isPrivate": True,
        "enableInternet": True,
        "machineShape": metadata["machine_shape"],
        "datasetDataSources": metadata["dataset_sources"],
        "kernelDataSources": metadata["kernel_sources"],
        "modelDataSources": metadata["model_sources"],
    }
    return body, ["".join(cell["source"]) for cell in cells]


def test_push_sends_exactly_what_was_built_for_every_notebook(kernels, server, capsys):
    assert main(["kernels", "push"]) == 0
    bodies = server.bodies("SaveKernel")
    assert [body["slug"] for body in bodies] == [as_sent(kernels, n)[0]["slug"] for n in NAMES]
    for name, body in zip(NAMES, bodies, strict=True):
        metadata, sources = as_sent(kernels, name)
        assert {key: body.get(key, []) for key in metadata} == metadata  # empty lists are not sent
        assert not body.get("dockerImage") and not body.get("enableGpu")
        sent = json.loads(body["text"])
        assert [cell["source"] for cell in sent["cells"]] == sources
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == f"build/kernels/{NAMES[0]}: {SAVED['url']}"
    assert all(auth.startswith("Basic ") for *_, auth in server.received)
    everything = said.out + said.err + json.dumps(bodies)
    assert KEY not in everything


def test_a_dry_run_shows_it_and_sends_nothing(kernels, server, capsys):
    assert main(["kernels", "push", "--dry-run", "v2_grpo"]) == 0
    shown = capsys.readouterr().out
    assert server.received == []
    assert shown.startswith(f"build/kernels/{DATASET}: 3.03 MB, private dataset nblib-suite/")
    assert re.search(r"\nbuild/kernels/v2_grpo/v2_grpo.ipynb: 0\.[678]\d* MB", shown)
    for line in ("machine_shape        TpuV5E8", "kernel_sources       nblib-suite/nblib-v1-sft"):
        assert line in shown


@pytest.fixture
def toy(account, monkeypatch, tmp_path):
    """One small kernel; returns what writes its notebook's one cell."""
    metadata = {
        "code_file": "toy.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_internet": False,
        "machine_shape": "",
    }
    monkeypatch.chdir(tmp_path)

    def write(source="print(1)", name="toy", **changes):
        folder = tmp_path / "build" / "kernels" / name
        folder.mkdir(parents=True, exist_ok=True)
        named = {"id": f"me/a-{name}", "title": f"a {name}"}
        cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": []}
        (folder / "toy.ipynb").write_text(json.dumps({"cells": [cell]}))
        (folder / "kernel-metadata.json").write_text(json.dumps(metadata | named | changes))

    write()
    return write


def refused(capsys, *command):
    assert main(["kernels", *command]) == 1
    said = capsys.readouterr()
    assert KEY not in said.out + said.err
    return said.err


def test_wrong_metadata_is_not_sent(toy, server, capsys):
    toy(machine_shape="TpuV5e8")
    assert "machine_shape is 'TpuV5e8'" in refused(capsys, "push")
    assert server.received == []


def test_a_notebook_with_a_secret_is_not_sent(toy, server, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    toy(name="before")
    for source, name in ((f"key = '{KEY}'", "KAGGLE_KEY"), ("'hf_of_this_test'", "HF_TOKEN")):
        toy(source)
        assert f"toy.ipynb holds the value of {name}: nothing was sent" in refused(capsys, "push")
    toy("'hf_" + 34 * "a" + "'")
    assert "toy.ipynb holds a Hugging Face token: nothing was sent" in refused(capsys, "push")
    assert server.received == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            {**SAVED, "error": "No such image"},
            "nblib: me/a-toy: Kaggle refused it: No such",
        ),
        (
            {"code": 400, "message": TOO_LARGE},
            f"Kaggle answered 400: {TOO_LARGE}. Take data and images out of the notebook",
        ),
        (
            (400, {"error": "no title"}),
            '/SaveKernel: {"error": "no title"}',
        ),
        ((403, {}), "Use its owner's credentials, or `kernels build --owner YOUR_NAME`"),
        ({**SAVED, "invalidKernelSources": ["me/v1"]}, "runs without its kernel_sources me/v1:"),
        (
            {"code": 401, "message": f"wrong key {KEY}"},
            "nblib: Kaggle answered 401: wrong key ***. Make a new API token",
        ),
    ],
)
def test_what_kaggle_refuses_is_an_error_here(toy, server, capsys, answer, reason):
    server.answers["SaveKernel"] = answer
    assert reason in refused(capsys, "push")


def test_one_that_is_too_large_keeps_all_from_being_sent(toy, server, capsys):
    toy(name="before")
    toy(950_000 * "#")
    for command in (["push"], ["push", "--dry-run"]):
        said = refused(capsys, *command)
        assert "toy/toy.ipynb has 950,079 bytes, at most 950,000 are sent" in said
        assert "attach images and data as a dataset" in said
    assert server.received == []


def sessions(server, most):
    """Let Kaggle start so many kernels, and refuse more as it does; they run for ever."""
    started = {}

    def save(body):
        if len(started) == most:
            return {**SAVED, "error": NO_SESSION}
        started[body["slug"]] = body["text"]
        return {**SAVED, "url": f"https://kaggle.com/code/{body['slug']}"}

    def state(body):
        known = f"{body['userName']}/{body['kernelSlug']}" in started
        return {"status": "RUNNING"} if known else {"code": 404, "message": "no such kernel"}

    def pulled(body):
        return {"blob": {"source": started[f"{body['userName']}/{body['kernelSlug']}"]}}

    server.answers |= {"SaveKernel": save, "GetKernelSessionStatus": state, "GetKernel": pulled}


def test_what_went_is_named_with_what_did_not_and_is_not_sent_again(toy, server, capsys):
    for name in ("one", "two", "three"):
        toy(f"print('{name}')", name=name)
    sessions(server, most=2)
    names = ["one", "three", "two", "toy"]  # `built_kernels` sorts them, toy after two
    assert main(["kernels", "push"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"build/kernels/{name}: https://kaggle.com/code/me/a-{name}" for name in ("one", "three")
    ]
    assert said.err == (
        f"nblib: me/a-toy: Kaggle refused it: {NO_SESSION}. Wait until one of your sessions has "
        "ended (`python -m nblib kernels status`), or stop one on its page.\n"
        "pushed: one, three\n"
        "left: toy two; for these: python -m nblib kernels push toy two\n"
    )
    sessions_of = server.bodies("SaveKernel")
    assert [body["slug"] for body in sessions_of] == ["me/a-one", "me/a-three", "me/a-toy"]
    server.received.clear()
    assert main(["kernels", "push", *names]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"build/kernels/{name}: running already, this very notebook: not sent again (its page can "
        "stop it)"
        for name in ("one", "three")
    ]
    assert [body["slug"] for body in server.bodies("SaveKernel")] == ["me/a-toy"]


def test_another_notebook_than_the_one_that_runs_is_sent(toy, server, capsys):
    sessions(server, most=2)
    assert main(["kernels", "push"]) == 0
    toy("print(2)")
    assert main(["kernels", "push"]) == 0
    assert len(server.bodies("SaveKernel")) == 2


@pytest.fixture
def no_dataset(server, monkeypatch):
    """Kaggle without the embedded model's dataset; returns what decides on its state once made."""
    monkeypatch.setattr(push, "POLL_S", 0.0)
    states = ["BLOBS_RECEIVED", "READY"]

    def status(body):
        if not server.bodies("CreateDataset"):
            return {"code": 403, "message": "Permission 'datasets.get' was denied"}
        return {"status": states.pop(0) if len(states) > 1 else states[0]}

    def blob(body):
        return {"token": f"of {body['name']}", "createUrl": f"{server.address}/put/{body['name']}"}

    server.answers |= {
        "GetDatasetStatus": status,
        "StartBlobUpload": blob,
        "CreateDataset": {"status": "ok", "url": "https://kaggle.com/datasets/x"},
    }
    return states


def test_the_dataset_is_made_first_and_only_once(kernels, server, capsys, no_dataset):
    assert main(["kernels", "push", "v1_sft_format"]) == 0
    (body,) = server.bodies("CreateDataset")
    assert (body["ownerSlug"], body["slug"]) == ("nblib-suite", DATASET)
    assert body["isPrivate"] is True and body["licenseName"] == "apache-2.0"
    folder = kernels / DATASET
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    del files["dataset-metadata.json"]
    assert server.uploads == files
    assert {file["token"] for file in body["files"]} == {f"of {name}" for name in files}
    done = server.methods()
    assert done.index("CreateDataset") < done.index("SaveKernel")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"build/kernels/{DATASET}: 3.03 MB, private dataset nblib-suite/")
    waiting = f"waiting until Kaggle has the dataset nblib-suite/{DATASET} ready (blobs_received)"
    assert said[1:] == [waiting, f"build/kernels/v1_sft_format: {SAVED['url']}"]
    assert main(["kernels", "push", "v2_grpo", "eval"]) == 0
    assert len(server.bodies("CreateDataset")) == 1
    assert len(server.bodies("SaveKernel")) == 3


def test_a_dataset_of_which_a_file_did_not_arrive_is_not_made(kernels, server, capsys, no_dataset):
    server.upload_status = 500
    assert "only 0 of 5 files arrived" in refused(capsys, "push", "v1_sft_format")
    assert server.bodies("CreateDataset") == server.bodies("SaveKernel") == []


def test_v0_needs_no_dataset(kernels, server, no_dataset):
    assert main(["kernels", "push", "v0_foundation"]) == 0
    assert server.bodies("CreateDataset") == server.bodies("GetDatasetStatus") == []


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (
            {"error": "no room for you"},
            "READY",
            "refused the dataset .*: no room for you",
        ),
        ({"status": "ok"}, "FAILED", "is failed at Kaggle, no kernel was sent: remove it on https"),
        ({"status": "ok"}, "BLOBS_RECEIVED", r"not ready after 0 minutes \(blobs_received\)"),
    ],
)
def test_without_the_dataset_no_kernel_is_sent(
    answer, state, reason, kernels, server, capsys, no_dataset, monkeypatch
):
    monkeypatch.setattr(push, "TIMEOUT_S", 0.0)
    server.answers["CreateDataset"] = answer
    no_dataset[:] = [state]
    assert re.search(reason, refused(capsys, "push", "v1_sft_format"))
    assert server.bodies("SaveKernel") == []


def test_no_way_to_kaggle_and_no_credentials_are_said(toy, server, capsys, monkeypatch):
    server.shutdown()
    server.server_close()
    assert "Kaggle's client: " in refused(capsys, "push")
    monkeypatch.delenv("KAGGLE_KEY")
    assert "no Kaggle credentials: set KAGGLE_USERNAME and" in refused(capsys, "push")


def test_status_says_how_it_does_and_why(toy, server, capsys):
    server.answers["GetKernelSessionStatus"] = {"status": "ERROR", "failureMessage": "no memory"}
    assert main(["kernels", "status"]) == 0
    assert capsys.readouterr().out == f"{'toy':20} error: no memory\n"
    assert server.bodies("GetKernelSessionStatus") == [{"userName": "me", "kernelSlug": "a-toy"}]


def test_pull_output_brings_the_runs_home_once(toy, server, capsys, tmp_path):
    run = "runs/toy/20260102-000000-ab"
    server.files = {
        f"{run}/config.json": "{}",
        f"{run}/result.json": '{"n": 1}',
        f"{run}/export/config.json": "model",
        "runs/toy/20260103-000000-cd/config.json": "{}",
        "runs/toy/latest/config.json": "a copy",
        "notes.txt": "more",
    }

    def listed(body):
        names = sorted(server.files)
        page = names[3:] if body.get("pageToken") else names[:3]
        files = [{"url": f"{server.address}/files/{name}", "fileName": name} for name in page]
        return {
            "files": files,
            "log": "the log",
            "nextPageToken": "" if body.get("pageToken") else "2",
        }

    server.answers["ListKernelSessionOutput"] = listed
    assert main(["kernels", "pull-output"]) == 0
    home = tmp_path / "runs" / "toy"
    assert capsys.readouterr().out.startswith("toy: 2 new runs")
    assert (home / "latest" / "result.json").read_text() == '{"n": 1}'  # the other is unfinished
    assert (home / "20260102-000000-ab" / "export" / "config.json").read_text() == "model"
    left = tmp_path / "runs" / "kaggle" / "a-toy"
    assert sorted(path.name for path in left.iterdir()) == ["a-toy.log", "notes.txt"]
    (home / "20260102-000000-ab" / "result.json").write_text("mine")
    assert main(["kernels", "pull-output"]) == 0
    assert capsys.readouterr().out == "toy: 0 new runs\n"
    assert (home / "latest" / "result.json").read_text() == "mine"


def test_the_readmes_own_commands_push_what_was_built(
    kernels, account, server, tmp_path, no_dataset
):
    """`kaggle datasets create` and `kernels push`; the root's kernel goes as it stands."""
    startup = tmp_path / "sitecustomize.py"
    startup.write_text(
        "from kagglesdk import kaggle_env as env\n"
        f"env._env_to_endpoint[env.KaggleEnv.LOCAL] = {server.address!r}\n"
    )
    program = Path(sys.executable).with_name("kaggle")
    root = Path(__file__).parents[2]
    for command, folder, answer in (
        ("datasets create", kernels / DATASET, "Your private Dataset is being created"),
        ("kernels push", kernels / "v1_sft_format", "Kernel version 1 successfully pushed"),
        ("kernels push", root, "Kernel version 1 successfully pushed"),
    ):
        done = subprocess.run(
            [program, *command.split(), "-p", folder],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert answer in done.stdout, done.stdout + done.stderr
    assert server.bodies("CreateDataset")[0]["slug"] == DATASET
    bodies = server.bodies("SaveKernel")
    assert bodies[0]["slug"] == bodies[1]["slug"] == "nblib-suite/nblib-v1-sft-format"
    ours, roots = (json.loads(body["text"])["cells"] for body in bodies)
    assert [cell["source"] for cell in [ours[0], *ours[2:]]] == [cell["source"] for cell in roots]
