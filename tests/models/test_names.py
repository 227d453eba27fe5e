import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nblib.models import names
from nblib.models.gemma3 import parameter_count, save_model
from nblib.models.names import (
    EMBEDDED_FOLDER,
    ModelNotFound,
    find_model,
    get_gemma_ref_model,
    weights_sha256,
)

REFUSED = "http://127.0.0.1:9"  # the discard port, on which nothing listens


def test_unknown_name_names_the_known():
    with pytest.raises(ModelNotFound, match=r"'gemma9' is no folder .* known name \(embedded, "):
        find_model("gemma9")


@pytest.mark.parametrize(
    ("name", "handle", "repository"),
    [
        ("gemma3-1b-it", "google/gemma-3/transformers/gemma-3-1b-it", "google/gemma-3-1b-it"),
        ("gemma3-1b", "google/gemma-3/transformers/gemma-3-1b", "google/gemma-3-1b-pt"),
        ("gemma3-270m-it", "google/gemma-3/transformers/gemma-3-270m-it", "google/gemma-3-270m-it"),
        ("gemma3-270m", "google/gemma-3/transformers/gemma-3-270m", "google/gemma-3-270m"),
    ],
)
def test_published_names(name, handle, repository):
    assert names.GEMMA[name] == (handle, repository)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, new_model, tokenizer):
    path = tmp_path_factory.mktemp("named") / "export"
    save_model(new_model(num_layers=1), tokenizer, path, manifest={})
    return path


def test_folder_comes_with_its_own_tokenizer(folder, mesh, tokenizer, new_model):
    ref = get_gemma_ref_model(str(folder), mesh)
    assert (ref.name, ref.folder) == (str(folder), folder)
    assert ref.tokenizer.serialized_model_proto() == tokenizer.serialized_model_proto()
    kernel = new_model(num_layers=1).layers[0].mlp.up_proj.kernel.get_value()
    np.testing.assert_array_equal(ref.model.layers[0].mlp.up_proj.kernel.get_value(), kernel)
    other = ref.with_model(new_model(1, num_layers=1), name="tuned")
    assert (other.name, other.tokenizer, other.sha256) == ("tuned", ref.tokenizer, ref.sha256)


def test_hash_follows_the_weights(folder, tmp_path, new_model, tokenizer):
    again, other = tmp_path / "again", tmp_path / "other"
    save_model(new_model(num_layers=1), tokenizer, again, manifest={"another": "manifest"})
    save_model(new_model(1, num_layers=1), tokenizer, other, manifest={})
    assert weights_sha256(again) == weights_sha256(folder)
    assert weights_sha256(other) != weights_sha256(folder)


LAYOUTS = ("gemma-3/transformers/{name}/1", "models/google/gemma-3/transformers/{name}/1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attached_input_is_found_by_its_files(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(names, "KAGGLE_INPUT", tmp_path)
    made = {}
    for name in ("gemma-3-1b-it", "gemma-3-1b", "gemma-3-270m-it"):
        made[name] = tmp_path / layout.format(name=name)
        made[name].mkdir(parents=True)
        (made[name] / "config.json").write_text("{}")
        (made[name] / "model.safetensors").write_bytes(b"")
    unfinished = tmp_path / "a-copy" / "gemma-3-1b-it"  # sorts first, and has no weights
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text("{}")
    assert find_model("gemma3-1b-it") == made["gemma-3-1b-it"]
    assert find_model("gemma3-1b") == made["gemma-3-1b"]
    assert find_model("gemma3-270m-it") == made["gemma-3-270m-it"]


def find_apart(tmp_path, **environment):
    """Look for a published model in a new process that reaches no network."""
    code = f"""
import json
from pathlib import Path
from nblib.models import names
names.KAGGLE_INPUT = Path({str(tmp_path / "input")!r})
try:
    print(json.dumps(["found", str(names.find_model("gemma3-1b-it"))]))
except names.ModelNotFound as error:
    print(json.dumps(["ModelNotFound", str(error)]))
"""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), REFUSED)
    apart = {
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "KAGGLEHUB_CACHE": str(tmp_path / "kagglehub"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **proxies, **apart, **environment},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,  # a login prompt would fail
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def inside_kaggle(address):
    """In a Kaggle notebook kagglehub asks the host's own service instead."""
    return {
        "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
        "KAGGLE_DATA_PROXY_URL": address,
        "KAGGLE_DATA_PROXY_TOKEN": "token",
        "KAGGLE_USER_SECRETS_TOKEN": "token",
    }


@pytest.mark.parametrize("environment", [{}, inside_kaggle(REFUSED)], ids=["local", "kaggle"])
def test_all_sources_out_of_reach_is_one_message_with_a_line_each(environment, tmp_path):
    kind, message = find_apart(tmp_path, **environment)
    assert kind == "ModelNotFound"
    first, *sources, last = message.splitlines()
    assert first == "gemma3-1b-it was not found:"
    starts = ("  attached Kaggle input: FileNotFoundError: ", "  kagglehub: ", "  Hugging Face: ")
    assert len(sources) == 3
    for line, start in zip(sources, starts, strict=True):
        assert line.startswith(start) and len(line) < 300
    assert "KAGGLE_USERNAME" in last and "HF_TOKEN" in last and "give a folder as MODEL" in last


@pytest.fixture
def kaggle_refuses():
    """Answer as Kaggle's own host does to a notebook that may not have the model."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b'{"wasSuccessful": false, "errors": ["licence not accepted"]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_refusal_by_kaggle_itself_is_a_line_too(kaggle_refuses, tmp_path):
    kind, message = find_apart(tmp_path, NO_PROXY="127.0.0.1", **inside_kaggle(kaggle_refuses))
    assert kind == "ModelNotFound"
    assert "\n  kagglehub: " in message and "POST failed" in message
    assert "\n  Hugging Face: " in message


def test_embedded_model_ships_and_loads(mesh):
    """It ships with the package, so its folder being empty is a failure."""
    ref = get_gemma_ref_model("embedded", mesh)
    assert ref.folder == EMBEDDED_FOLDER
    assert parameter_count(ref.model) <= 4_000_000
    assert len(ref.tokenizer) == 544
    assert sum(path.stat().st_size for path in EMBEDDED_FOLDER.iterdir()) <= 9_000_000
