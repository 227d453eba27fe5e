"""Kaggle's own client against a server on loopback: what is sent, refused, and brought home."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nblib.__main__ import main

sys.path.append(str(Path(__file__).parent))
from kaggle_server import SAVED, KaggleServer

KEY = "0123456789abcdef0123456789abcdef"
NAMES = ["v0_foundation", "v1_sft_format", "v2_grpo", "eval"]


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
    assert said.out.splitlines()[0] == f"build/kernels/v0_foundation: {SAVED['url']}"
    assert all(auth.startswith("Basic ") for *_, auth in server.received)
    everything = said.out + said.err + json.dumps(bodies)
    assert KEY not in everything


def test_a_dry_run_shows_it_and_sends_nothing(kernels, server, capsys):
    assert main(["kernels", "push", "--dry-run", "v2_grpo"]) == 0
    shown = capsys.readouterr().out
    assert server.received == []
    assert shown.startswith("build/kernels/v2_grpo/v2_grpo.ipynb: 3.")
    for line in ("machine_shape        TpuV5E8", "kernel_sources       nblib-suite/nblib-v1-sft"):
        assert line in shown


@pytest.fixture
def toy(account, monkeypatch, tmp_path):
    """One small kernel; returns what writes its notebook's one cell."""
    folder = tmp_path / "build" / "kernels" / "toy"
    folder.mkdir(parents=True)
    metadata = {
        "id": "me/a-toy",
        "title": "a toy",
        "code_file": "toy.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_internet": False,
        "machine_shape": "",
    }
    monkeypatch.chdir(tmp_path)

    def write(source="print(1)", **changes):
        cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": []}
        (folder / "toy.ipynb").write_text(json.dumps({"cells": [cell]}))
        (folder / "kernel-metadata.json").write_text(json.dumps(metadata | changes))

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
    for source, name in ((f"key = '{KEY}'", "KAGGLE_KEY"), ("'hf_of_this_test'", "HF_TOKEN")):
        toy(source)
        assert f"toy.ipynb holds the value of {name}: it was not sent" in refused(capsys, "push")
    toy("'hf_" + 34 * "a" + "'")
    assert "toy.ipynb holds a Hugging Face token: it was not sent" in refused(capsys, "push")
    assert server.received == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({**SAVED, "error": "Too many sessions"}, "me/a-toy: Kaggle refused it: Too many sessions"),
        ({**SAVED, "invalidKernelSources": ["me/v1"]}, "runs without its kernel_sources me/v1:"),
        ({"code": 401, "message": f"wrong key {KEY}"}, "client: wrong key ***"),
    ],
)
def test_what_kaggle_refuses_is_an_error_here(toy, server, capsys, answer, reason):
    server.answers["SaveKernel"] = answer
    assert reason in refused(capsys, "push")


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


def test_the_readmes_own_command_pushes_a_built_kernel(kernels, account, server, tmp_path):
    """`kaggle kernels push -p ...`, the client's program; the root's kernel goes as it stands."""
    startup = tmp_path / "sitecustomize.py"
    startup.write_text(
        "from kagglesdk import kaggle_env as env\n"
        f"env._env_to_endpoint[env.KaggleEnv.LOCAL] = {server.address!r}\n"
    )
    program = Path(sys.executable).with_name("kaggle")
    root = Path(__file__).parents[2]
    for folder in (kernels / "v1_sft_format", root):
        done = subprocess.run(
            [program, "kernels", "push", "-p", folder],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert "Kernel version 1 successfully pushed" in done.stdout, done.stdout + done.stderr
    bodies = server.bodies("SaveKernel")
    assert bodies[0]["slug"] == bodies[1]["slug"] == "nblib-suite/nblib-v1-sft-format"
    ours, roots = (json.loads(body["text"])["cells"] for body in bodies)
    assert [cell["source"] for cell in [ours[0], *ours[2:]]] == [cell["source"] for cell in roots]
