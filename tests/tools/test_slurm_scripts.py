"""The scripts are run by bash, with a `sbatch`, `scontrol` and `vllm` made here on the PATH."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from fnmatch import fnmatch
from pathlib import Path

import pytest

from nblib.__main__ import main
from nblib.sources.endpoint import endpoint_from_environment
from nblib.tools.sweep_grid import plan_sweep

ROOT = Path(__file__).parents[2]
TOY = """\
# %% tags=["parameters"]
NAME = "x"
SEED = 0
WAIT = False
# %%
import signal, time
from nblib.files import append_jsonl, write_json
from nblib.runs import start_run
from pathlib import Path
run = start_run("toy", {"NAME": NAME, "SEED": SEED, "WAIT": WAIT})
# %%
def stop(*_):
    raise RuntimeError("stopped")
signal.signal(signal.SIGTERM, stop)
append_jsonl(Path("notes"), [NAME, SEED])
if WAIT and not run.resumed:
    time.sleep(60)
write_json(run.path / "result.json", {"task": "gsm8k", "stages": {}})
"""
# Runs the tasks of the array one after another, as the lines #SBATCH say.
SBATCH = """\
#!/bin/bash
set -eu
first=$(sed -n 's/^#SBATCH --array=\\([0-9]*\\)-.*/\\1/p' "$1")
last=$(sed -n 's/^#SBATCH --array=.*-\\([0-9]*\\)/\\1/p' "$1")
code=0
for ((task = first; task <= last; task++)); do
    SLURM_JOB_ID=70 SLURM_ARRAY_JOB_ID=70 SLURM_ARRAY_TASK_ID=$task bash "$1" || code=$?
done
exit $code
"""
SCONTROL = """\
#!/bin/bash
if [[ $1 == show ]]; then
    echo "JobId=70 JobState=$FAKE_STATE Reason=None"
else
    echo "$@" >> scontrol.log
fi
"""
# Answers /health once the file `ready` is there.
# Ends with 5 after TERM, or at once with 7 where `fails` is there.
VLLM = f"""\
#!{sys.executable}
import http.server, json, os, signal, sys
from pathlib import Path

Path("asked").write_text(json.dumps([sys.argv[1:], os.environ["VLLM_API_KEY"]]))
if Path("fails").exists():
    sys.exit(7)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        health = self.path == "/health" and Path("ready").exists()
        self.send_response(200 if health or (self.path == "/v1/models" and key) else 401)
        self.end_headers()

    def log_message(self, *_):
        pass

def stop(*_):
    Path("stopped").touch()
    os._exit(5)

signal.signal(signal.SIGTERM, stop)
http.server.HTTPServer(("", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "my work"  # a path that needs quotes
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "toy.py").write_text(TOY)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"sbatch": SBATCH, "scontrol": SCONTROL, "vllm": VLLM}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("FAKE_STATE", "RUNNING")
    monkeypatch.delenv("NBLIB_RUNS_DIR", raising=False)
    return folder


@pytest.fixture
def script(folder, capfd):
    """Write what a command prints to a file; returns its path."""

    def write(*arguments):
        capfd.readouterr()
        assert main([*arguments]) == 0
        (folder / "script.sh").write_text(capfd.readouterr().out)
        return folder / "script.sh"

    return write


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def notes():
    return [json.loads(line) for line in Path("notes").read_text().splitlines()]


ODD = 'it\'s a "$HOME" `id` #\\n\nb'
QUOTED = ODD.replace("\\", "\\\\").replace('"', '\\"')


def test_the_array_runs_all_cells_and_then_the_sweep_prints_their_table(script, capfd):
    grid = ("sweep", "toy", "-p", "NAME", f'"{QUOTED}","a,b"', "-p", "SEED", "7")
    path = script(*grid, "--slurm")
    assert "#SBATCH --array=0-1\n" in path.read_text()
    assert not Path("notes").exists()
    assert subprocess.run(["sbatch", path]).returncode == 0
    assert notes() == [[ODD, 7], ["a,b", 7]]
    capfd.readouterr()
    assert main([*grid]) == 0
    out = capfd.readouterr().out
    assert "started" not in out and out.count("| finished |") == 2 and len(notes()) == 2
    assert main([*grid, "--slurm"]) == 1
    assert "all cells are finished" in capfd.readouterr().err


def test_the_array_leaves_out_what_is_finished(script):
    planned = plan_sweep("toy", {"SEED": "0,1,2"})
    planned.folder.mkdir(parents=True)
    (planned.folder / "result.json").write_text("{}")
    planned.log(planned.cells[1]).write_text(f"\n$ run\ndone: {planned.folder}\n")
    text = script("sweep", "toy", "-p", "SEED", "0,1,2", "--slurm").read_text()
    assert "#SBATCH --array=0,2\n" in text
    assert "#   cell 2 of 0-2: SEED=2\n" in text and "cell 1" not in text


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", ["requeue 70_1"]), ("CANCELLED", [])])
def test_a_task_whose_time_is_over_saves_and_is_queued_once_more(
    script, monkeypatch, state, requeued
):
    monkeypatch.setenv("FAKE_STATE", state)
    path = script("sweep", "toy", "-p", "SEED", "3,4", "-p", "WAIT", "True", "--slurm")
    task = {"SLURM_JOB_ID": "70", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "1"}
    process = subprocess.Popen(["bash", path], env=os.environ | task)
    wait_for(Path("notes").exists)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # the second one is not passed on: the run still saves
    assert process.wait(60) == 143
    log = Path("scontrol.log")
    assert (log.read_text().splitlines() if log.exists() else []) == requeued
    if requeued:
        assert subprocess.run(["bash", path], env=os.environ | task).returncode == 0
        assert notes() == [["x", 4], ["x", 4]] and len([*Path("runs/toy").glob("2*")]) == 1


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def served(script, port, monkeypatch):
    """Start the script that serves a 7B as JUDGE; returns its process."""
    processes = []
    for name in ("NBLIB_JUDGE_URL", "NBLIB_JUDGE_MODEL", "NBLIB_JUDGE_KEY"):
        monkeypatch.delenv(name, raising=False)

    def start(model="org/chat-7B", *options):
        size = ("--gpus", "2", "--gpu-memory", "40", "--name", "JUDGE", "--port", str(port))
        path = script("serve", model, *size, *options)
        processes.append(subprocess.Popen(["bash", path], stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=60)


def test_a_server_hands_its_address_on_until_it_ends(served, port, folder, monkeypatch):
    process = served()
    address = folder / "serve-JUDGE.env"
    wait_for(lambda: Path("asked").exists() and Path("asked").read_text())
    assert not address.exists()
    Path("ready").touch()
    wait_for(address.exists)
    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for holds_key in (address.name, f"{address.name}.123"):
        assert any(fnmatch(holds_key, pattern) for pattern in ignored)
    sourced = subprocess.run(
        ["bash", "-c", 'set -a; source "$1"; env', "bash", address], capture_output=True, text=True
    )
    for line in sourced.stdout.splitlines():
        if line.startswith("NBLIB_JUDGE_"):
            monkeypatch.setenv(*line.split("=", 1))
    endpoint = endpoint_from_environment("JUDGE")
    host = subprocess.run(["hostname", "-f"], capture_output=True, text=True).stdout.strip()
    assert (endpoint.url, endpoint.model) == (f"http://{host}:{port}", "org/chat-7B")
    arguments, key = json.loads(Path("asked").read_text())
    assert endpoint.key.get_secret_value() == key and len(key) == 64 and key not in arguments
    assert " ".join(arguments) == (
        "serve org/chat-7B --tensor-parallel-size 2 --dtype bfloat16 --max-model-len 8192 "
        f"--gpu-memory-utilization 0.9 --port {port}"
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": f"Bearer {key}"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert direct.open(request, timeout=10).status == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 5
    assert Path("stopped").exists() and not [*folder.glob("serve-JUDGE.env*")]


def test_a_server_that_fails_leaves_no_address(served, folder):
    (folder / "serve-JUDGE.env").write_text("of a job that was killed")
    Path("fails").touch()
    assert served().wait(60) == 7
    assert not [*folder.glob("serve-JUDGE.env*")]


def test_a_server_that_is_stopped_before_it_answers_leaves_no_address(served, folder):
    process = served("org/chat-7B", "--dtype", "fp8")
    wait_for(lambda: Path("asked").exists() and Path("asked").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 5
    assert "--quantization fp8" in " ".join(json.loads(Path("asked").read_text())[0])
    assert not [*folder.glob("serve-JUDGE.env*")]


def test_a_port_that_is_taken_is_no_server_of_this_job(served, folder, port):
    with socket.create_server(("127.0.0.1", port)):
        process = served()
        assert process.wait(60) == 1
    assert f"port {port} of " in process.stderr.read()
    assert not Path("asked").exists() and not [*folder.glob("serve-JUDGE.env*")]
