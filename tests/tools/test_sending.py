"""The real clients, against a server on loopback that stands for both hubs."""

import hashlib
import io
import json
import re
import tempfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kagglehub  # noqa: F401  its logger keeps the stream that it finds when it is imported
import kagglesdk.kaggle_env as kaggle_env
import pytest
from huggingface_hub import constants

from nblib.__main__ import main

NAME = "somebody/gemma3-shows-its-work"
KEY, TOKEN = "kaggle-key-" + "k" * 21, "hf_" + "t" * 34
REFUSED = "http://127.0.0.1:9"  # the discard port, on which nothing listens
GEMMA = "gemma3-1b-it"
TERMS = "https://ai.google.dev/gemma/terms"


class Hubs:
    """Kaggle's and Hugging Face's servers in one: what they were sent, and what they refuse."""

    def __init__(self):
        self.address = ""
        self.calls = []  # (path, decoded body)
        self.blobs = {}  # by the name it was announced with
        self.answers = {}  # part of a path: (status, body), or a body alone
        self.announced = {}

    def called(self, part):
        return [body for path, body in self.calls if part in path]

    def answer(self, method, path, body):
        for part, answer in self.answers.items():
            if part in path:
                return answer
        if method == "PUT":
            self.blobs[self.announced[path]] = body
            return 200, {}
        answer = self.kaggle(path, body) if "/v1/" in path else self.hub(path, body)
        return answer.get("code", 200), answer

    def kaggle(self, path, body):
        if path.endswith("StartBlobUpload"):
            place = f"/put/{len(self.announced)}"
            self.announced[place] = body["name"]
            return {"token": f"token-of-{body['name']}", "createUrl": self.address + place}
        if path.endswith("GetDatasetStatus"):
            return {"code": 404, "message": "no such dataset"}
        return {"error": ""}

    def hub(self, path, body):
        if "/preupload/" in path:
            lfs = [one["path"].endswith((".safetensors", ".zip")) for one in body["files"]]
            modes = ["lfs" if large else "regular" for large in lfs]
            return {
                "files": [
                    {"path": one["path"], "uploadMode": mode, "shouldIgnore": False}
                    for one, mode in zip(body["files"], modes, strict=True)
                ]
            }
        if path.endswith("/objects/batch"):
            objects = []
            for one in body["objects"]:
                place = f"/put/{one['oid']}"
                self.announced[place] = one["oid"]
                actions = {"upload": {"href": self.address + place}}
                objects.append({"oid": one["oid"], "size": one["size"], "actions": actions})
            return {"transfer": "basic", "objects": objects}
        if "/commit/" in path:
            return {"commitUrl": f"{self.address}/{NAME}/commit/1", "commitOid": "1" * 40}
        return {"url": f"{self.address}/{NAME}", "errors": [], "warnings": []}


@pytest.fixture
def hubs():
    state = Hubs()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = raw
            if self.command == "POST":
                lines = [json.loads(line) for line in raw.decode().splitlines() if line]
                body = lines[0] if len(lines) == 1 else lines
                state.calls.append((self.path, body))
            status, answer = state.answer(self.command, self.path, body)
            sent = json.dumps(answer).replace("$AUTH", self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent.encode())

        do_PUT = do_GET = do_POST

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def export(tmp_path):
    """What a notebook leaves of a fine-tune of Gemma, but for weights that can be loaded."""
    folder = tmp_path / "export"
    folder.mkdir()
    manifest = {"notebook": "v1_sft_format", "tokenizer_sha256": "a" * 64, "base": {"root": GEMMA}}
    head = 'license: "gemma"\nlibrary_name: "transformers"\npipeline_tag: "text-generation"'
    card = f'---\n{head}\nbase_model: "google/gemma-3-1b-it"\n---\n\n# A title\n\nSee {TERMS}.\n'
    for name, content in {
        "model.safetensors": "weights" * 100,
        "config.json": "{}",
        "tokenizer.model": "pieces",
        "manifest.json": json.dumps(manifest),
        "README.md": card,
    }.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def flax_export(export):
    """The same as an Orbax tree with folders of its own."""
    (export / "model.safetensors").unlink()
    for name in ("_METADATA", "d/abc", "ocdbt.process_0/d/abc"):
        path = export / "checkpoint" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return export


@pytest.fixture
def environment(hubs, tmp_path, monkeypatch):
    """Both clients ask the loopback server, and find credentials of this test alone."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    apart = {
        **dict.fromkeys(names, REFUSED),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hubs.address,
        "HF_HUB_DISABLE_XET": "1",  # its protocol is Hugging Face's own; LFS is everybody's
        "HF_TOKEN": TOKEN,
        "KAGGLE_CONFIG_DIR": str(tmp_path),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "somebody",
        "KAGGLE_KEY": KEY,
    }
    for name, value in apart.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # there Kaggle's client resumes uploads
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, hubs.address)
    monkeypatch.setattr(constants, "ENDPOINT", hubs.address)  # read at import
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return monkeypatch


@pytest.fixture
def publish(environment, capsys, caplog):
    """Run the command; returns exit code and all that it printed, in which no token may show."""

    def run(target, folder, *options):
        code = main(["publish", "--to", target, NAME, str(folder), *options])
        said = "".join(capsys.readouterr())
        assert KEY not in said + caplog.text and TOKEN not in said + caplog.text
        return code, said

    return run


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("target", ["kaggle-dataset", "kaggle-model", "huggingface"])
def test_without_yes_nothing_is_sent(target, hubs, export, publish):
    code, said = publish(target, export)
    assert code == 0
    assert said.startswith(f"{export} to {target} {NAME}, private\n")
    assert f"Gemma's terms, {TERMS}" in said and "nothing was sent: --yes sends it" in said
    assert hubs.calls == [] and hubs.blobs == {}


def test_a_kaggle_dataset_is_its_files_and_says_its_licence(hubs, export, publish):
    before = contents(export)
    code, said = publish("kaggle-dataset", export, "--yes")
    assert code == 0, said
    assert f"published: https://www.kaggle.com/datasets/{NAME}" in said
    (created,) = hubs.called("CreateDataset")
    assert (created["ownerSlug"], created["slug"]) == tuple(NAME.split("/"))
    assert (created["title"], created["isPrivate"]) == ("gemma3 shows its work", True)
    assert created["licenseName"] == "other" and TERMS in created["description"]
    sent = {one["token"] for one in created["files"]}
    notice = hubs.blobs.pop("NOTICE").decode()
    assert notice.startswith("Gemma is provided under and subject to the Gemma Terms of Use")
    assert hubs.blobs == before == contents(export)
    assert sent == {f"token-of-{name}" for name in (*before, "NOTICE")}


def test_a_dataset_that_is_there_becomes_a_version(hubs, export, publish):
    hubs.answers["GetDatasetStatus"] = 200, {"status": "READY"}
    code, said = publish("kaggle-dataset", export, "--yes")
    assert code == 0, said
    (version,) = hubs.called("CreateDatasetVersion")
    assert version["datasetSlug"] == "gemma3-shows-its-work"
    assert len(version["body"]["files"]) == 6
    assert TERMS in version["body"]["description"]


def test_an_orbax_tree_travels_as_one_archive(hubs, flax_export, publish, tmp_path):
    hubs.answers["GetModel"] = 404, {"code": 404, "message": "no such model"}
    code, said = publish("kaggle-model", flax_export, "--yes")
    assert code == 0, said
    assert re.search(r"  checkpoint\.zip +0\.1 kB, 3 files\n", said)
    (model,) = (body for path, body in hubs.calls if path.endswith("/CreateModel"))
    assert model["isPrivate"] and model["slug"] == "gemma3-shows-its-work"
    (made,) = (body for path, body in hubs.calls if path.endswith("/CreateModelInstance"))
    body = made["body"]
    assert (body["instanceSlug"], body["licenseName"]) == ("v1-sft-format", "Gemma")
    assert "FLAX" in str(body["framework"]).upper() or body["framework"] == 14
    assert body.get("directories", []) == []
    with zipfile.ZipFile(io.BytesIO(hubs.blobs["checkpoint.zip"])) as archive:
        archive.extractall(tmp_path / "there")
    assert contents(tmp_path / "there") == contents(flax_export / "checkpoint")


def test_a_hugging_face_repository_is_its_files(hubs, export, publish):
    code, said = publish("huggingface", export, "--yes")
    assert code == 0, said
    assert f"published: {hubs.address}/{NAME}" in said
    (created,) = hubs.called("/repos/create")
    assert (created["visibility"], created["name"]) == ("private", "gemma3-shows-its-work")
    (lines,) = hubs.called("/commit/")
    kinds = {one["value"]["path"]: one["key"] for one in lines if one["key"] != "header"}
    assert set(kinds) == {*contents(export), "NOTICE"}
    assert kinds["model.safetensors"] == "lfsFile"
    weights = (export / "model.safetensors").read_bytes()
    assert hubs.blobs == {hashlib.sha256(weights).hexdigest(): weights}


def test_the_card_that_is_sent_says_the_licence_that_is_given(hubs, export, publish):
    card = export / "README.md"
    card.write_text(card.read_text().replace('"gemma"', '"other"'))
    manifest = json.loads((export / "manifest.json").read_text()) | {"base": {"root": "/a/folder"}}
    (export / "manifest.json").write_text(json.dumps(manifest))
    before = contents(export)
    code, said = publish("kaggle-dataset", export, "--yes")
    assert code == 1 and "'/a/folder', whose licence is not known here" in said
    code, said = publish("kaggle-dataset", export, "--yes", "--licence", "gemma")
    assert code == 0, said
    assert "license: gemma\n" in hubs.blobs["README.md"].decode()
    assert hubs.blobs["README.md"].decode().endswith(f"# A title\n\nSee {TERMS}.\n")
    assert contents(export) == before


ECHO = {"code": 500, "message": "no room for you, $AUTH"}


@pytest.mark.parametrize(
    ("target", "part", "answer", "reason", "go_on"),
    [
        (
            "kaggle-dataset",
            "/put/2",
            (500, ECHO),
            "only 5 of 6 files arrived",
            "sent again",
        ),
        ("kaggle-model", "StartBlob", (500, ECHO), "no room for you, Basic ***", "sent again"),
        (
            "kaggle-model",
            "StartBlob",
            (401, {}),
            "make new ones and set KAGGLE_USERNAME",
            "sent again",
        ),
        (
            "kaggle-dataset",
            "CreateDataset",
            (200, {"error": "bad licence"}),
            "bad licence",
            "sent again",
        ),
        ("huggingface", "/put/", (507, {}), "the hub answered 507, RuntimeError", "not sent twice"),
        ("huggingface", "/commit/", (400, {"error": "no, $AUTH"}), "Bearer ***", "not sent twice"),
        ("huggingface", "/api/", (403, {}), "may not write to somebody", "not sent twice"),
    ],
)
def test_a_failed_upload_leaves_the_export_whole_and_says_how_to_go_on(
    target, part, answer, reason, go_on, hubs, export, publish
):
    before = contents(export)
    hubs.answers[part] = answer
    code, said = publish(target, export, "--yes")
    assert code == 1
    assert "\npublished: " not in said and "Traceback" not in said
    assert f"nblib: {NAME} was not published: " in said and reason in said
    assert f"{export} is as it was. Mend this, then give the same command again" in said
    assert go_on in said
    assert contents(export) == before
    hubs.answers.clear()
    assert publish(target, export, "--yes")[0] == 0


@pytest.mark.parametrize("target", ["kaggle-model", "huggingface"])
def test_no_credentials_is_one_line_before_anything_is_sent(
    target, hubs, export, environment, publish
):
    for name in ("HF_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        environment.setenv(name, "")
    code, said = publish(target, export, "--yes")
    wanted = "HF_TOKEN" if target == "huggingface" else "KAGGLE_USERNAME and KAGGLE_KEY"
    assert code == 1 and f"no credentials for {target}: set {wanted}" in said
    assert hubs.calls == []


def test_a_hub_out_of_reach_is_one_line(hubs, export, environment, publish):
    environment.setattr(constants, "ENDPOINT", REFUSED)
    environment.setenv("NO_PROXY", "")
    code, said = publish("huggingface", export, "--yes")
    assert code == 1 and "cannot be reached from here" in said
