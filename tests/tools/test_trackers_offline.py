"""wandb and trackio themselves, where they are installed, in a process that has no network."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tools.made_runs import result_of

RUN, ROOT = "20261128-065243-c5fcae07", Path(__file__).parents[2]
CONFIG = {"rate": 0.5, "lora": {"levels": [1]}}
STEPS = [{"step": 0, "val_loss": 2.0}, {"step": 1, "loss": 1.5}, {"step": 1, "val_loss": 0.25}]
# Let into every child: a connection outside of this machine fails.
NO_NETWORK = """
import socket
def only_here(name):
    allowed = getattr(socket.socket, name)
    def call(self, *given):
        where = given[-1]
        if self.family != socket.AF_UNIX and where[0] not in ("127.0.0.1", "::1", "localhost"):
            raise SystemExit(f"network: {name} {where}")
        return allowed(self, *given)
    setattr(socket.socket, name, call)
for name in ("connect", "connect_ex", "sendto"):
    only_here(name)
"""


@pytest.fixture
def proxy():
    """A proxy that counts who asks it: programs that are no Python obey it as well."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                asked.append(connection.recv(200))
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield SimpleNamespace(asked=asked, url=f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.fixture
def without_network(tmp_path, proxy):
    """Run Python in a child that cannot leave this machine, and say what it printed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    paths = [str(tmp_path / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "TRACKIO_"))}
    places = {"HOME": str(tmp_path), "TRACKIO_DIR": str(tmp_path / "trackio")}
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), proxy.url)
    variables = {**kept, **places, **proxies, "PYTHONPATH": os.pathsep.join(paths)}

    def run(*arguments, **more):
        command = [sys.executable, *arguments]
        given = {"env": variables | more, "capture_output": True, "text": True, "timeout": 240}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, **given)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not proxy.asked
        return done.stdout

    return run


def test_the_child_has_no_network(without_network):
    with pytest.raises(AssertionError, match=r"network: connect \('192.0.2.1', 80\)"):
        without_network("-c", "import socket; socket.socket().connect(('192.0.2.1', 80))")


@pytest.mark.parametrize("variables", [{"WANDB_MODE": "offline"}, {}])
def test_wandb_offline_needs_no_network(write_run, without_network, variables):
    pytest.importorskip("wandb", reason="pip install wandb")
    path = write_run(RUN, CONFIG, STEPS, result_of(0.75))
    for _ in range(2):
        said = without_network("-m", "nblib", "log", str(path), "--to", "wandb", **variables)
        assert "wandb sync" in said
    (folder,) = path.glob("wandb/offline-run-*")  # the second took the place of the first
    (file,) = folder.glob("run-*.wandb")
    content = file.read_bytes()
    assert content.count(b"val_loss") >= 2 and b"tuned/answer_accuracy" in content
    assert b"lora.levels" in content and not [*folder.glob("files/*")]


def test_trackio_keeps_one_run_of_what_is_there(write_run, without_network):
    pytest.importorskip("trackio", reason="pip install trackio")
    path = write_run(RUN, CONFIG, STEPS, result_of(0.75))
    for _ in range(2):
        without_network("-m", "nblib", "log", str(path), "--to", "trackio")
    read = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage as S\n"
        "(run,) = trackio.Api().runs('v1')\n"
        "logs = S.get_logs('v1', run.name, run_id=run.id)\n"
        "print(json.dumps([run.name, run.config, logs]))"
    )
    name, config, logs = json.loads(without_network("-c", read).splitlines()[-1])
    assert name == RUN and config["rate"] == 0.5 and config["lora.levels"] == "[1]"
    kept = [{k: v for k, v in one.items() if k != "timestamp"} for one in logs]
    assert kept[:3] == STEPS
    assert kept[3]["tuned/answer_accuracy"] == 0.75 and len(kept) == 4
