"""The real clients of the hubs, kept from the network by a proxy that refuses every connection.

They read their settings at import, so each test runs one of them in a process of its own.
"""

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nblib.sources.hubs import from_splits
from nblib.sources.rows import SourceError
from nblib.tasks.gsm8k import GSM8K

EGGS = {"question": "2 hens, 3 eggs each. Eggs?", "answer": "2*3 = <<2*3=6>>6\n#### 6"}
PENS = {"question": "5 pens, 1 is lost. Pens?", "answer": "5-1 = <<5-1=4>>4\n#### 4"}
REFUSED = "http://127.0.0.1:9"  # the discard port, on which nothing listens


def load(function, tmp_path, *, before="", **environment):
    """Call a function of `hubs` in a new process; its result as (origin, train, test) or error."""
    code = f"""
import json
from nblib.sources import hubs, rows
{before}
try:
    loaded = hubs.{function}()
except rows.SourceError as error:
    print(json.dumps(["SourceError", str(error)]))
else:
    splits = [[[row.id, *row.fields.values()] for row in split]
              for split in (loaded.train, loaded.test)]
    print(json.dumps([loaded.origin, *splits]))
"""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), REFUSED)
    apart = {
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "KAGGLEHUB_CACHE": str(tmp_path / "kagglehub"),
        "TFDS_DATA_DIR": str(tmp_path / "tfds"),
        "PYTHONPATH": os.getcwd(),
    }
    apart.update(environment)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **proxies, **apart},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture
def serve():
    """Start loopback servers; `serve(answer)` returns the address, answer(path) -> bytes | None."""
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = answer(self.path)
                kind = "application/json" if body and body[:1] == b"{" else "application/zip"
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def do_HEAD(self):
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_hugging_face_offline_is_one_line(tmp_path):
    kind, message = load("from_hugging_face", tmp_path, HF_HUB_OFFLINE="1")
    assert kind == "SourceError"
    assert message.startswith("ConnectionError: Couldn't reach 'openai/gsm8k'")
    assert "\n" not in message


def test_hugging_face_hub_that_does_not_have_it(tmp_path, serve):
    kind, message = load("from_hugging_face", tmp_path, HF_ENDPOINT=serve(lambda path: None))
    assert kind == "SourceError"
    assert "openai/gsm8k" in message


def test_hugging_face_loads_the_configuration_main(tmp_path):
    # A local folder of the repository's name and form is what `load_dataset` looks at first.
    repository = tmp_path / "openai" / "gsm8k"
    for config, records in (("main", (EGGS, PENS)), ("socratic", (PENS,))):
        (repository / config).mkdir(parents=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        for split in ("train", "test"):
            (repository / config / f"{split}.jsonl").write_text(lines)
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(
            f"  - split: {split}\n    path: {config}/{split}.jsonl\n" for split in ("train", "test")
        )
        for config in ("socratic", "main")
    )
    (repository / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert load("from_hugging_face", tmp_path, HF_HUB_OFFLINE="1") == [
        "Hugging Face hub, openai/gsm8k",
        *(
            [
                [f"gsm8k/{split}/0", EGGS["question"], EGGS["answer"]],
                [f"gsm8k/{split}/1", PENS["question"], PENS["answer"]],
            ]
            for split in ("train", "test")
        ),
    ]


def test_kaggle_out_of_reach_is_one_line(tmp_path):
    kind, message = load("from_kaggle", tmp_path)
    assert kind == "SourceError"
    assert message.startswith("ProxyError: ")
    assert "\n" not in message


def kaggle_stub(files):
    """Answer as Kaggle's API does for a public dataset: its version, then its files as a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)

    def answer(path):
        if path.endswith("/GetDataset"):
            return b'{"currentVersionNumber": 2}'
        return packed.getvalue() if path.endswith("/DownloadDataset") else None

    return answer


def load_kaggle(tmp_path, address):
    local = (
        "import kagglesdk.kaggle_env as kaggle\n"
        f"kaggle._env_to_endpoint[kaggle.KaggleEnv.LOCAL] = {address!r}"
    )
    return load("from_kaggle", tmp_path, before=local, KAGGLE_API_ENVIRONMENT="LOCALHOST")


def test_kaggle_downloads_and_finds_the_files(tmp_path, serve):
    csv = 'question,answer\n"5 pens, 1 is lost. Pens?","5-1 = <<5-1=4>>4\n#### 4"\n'
    names = ("main_train.csv", "main_test.csv", "socratic_train.csv")
    address = serve(kaggle_stub(dict.fromkeys(names, csv)))
    assert load_kaggle(tmp_path, address) == [
        "Kaggle, thedevastator/grade-school-math-8k-q-a",
        [["gsm8k/train/0", PENS["question"], PENS["answer"]]],
        [["gsm8k/test/0", PENS["question"], PENS["answer"]]],
    ]


def test_kaggle_dataset_without_the_files(tmp_path, serve):
    kind, message = load_kaggle(tmp_path, serve(kaggle_stub({"readme.txt": "nothing here"})))
    assert kind == "SourceError"
    assert "holds no (train.jsonl and test.jsonl) or (main_train.csv and main_test.csv)" in message


def test_tfds_out_of_reach_is_one_line(tmp_path):
    kind, message = load("from_tfds", tmp_path)
    assert kind == "SourceError"
    assert message.startswith("ProxyError: ")
    assert "\n" not in message


def test_tfds_reads_what_it_prepared(tmp_path, serve):
    text = "".join(json.dumps(record) + "\n" for record in (EGGS, PENS)).encode()
    address = serve(lambda path: text)
    prepare = f"""
import tensorflow_datasets as tfds
from tensorflow_datasets.text.gsm8k import gsm8k as published
published._URLS = {{name: f"{address}/{{name}}.jsonl" for name in published._URLS}}
tfds.builder("gsm8k", file_format="array_record").download_and_prepare()
"""
    origin, train, test = load("from_tfds", tmp_path, before=prepare)
    assert origin == "TensorFlow Datasets, gsm8k (in its own order)"
    expected = sorted([record["question"], record["answer"]] for record in (EGGS, PENS))
    assert sorted(row[1:] for row in train) == expected
    assert sorted(row[1:] for row in test) == expected
    assert [row[0] for row in train] == ["gsm8k/train/0", "gsm8k/train/1"]


def test_missing_split_is_named():
    with pytest.raises(SourceError, match="hub has no split 'test', only: train"):
        from_splits("hub", {"train": [EGGS]})


def test_broken_row_of_a_hub_is_named():
    loaded = from_splits("hub", {"train": [EGGS], "test": [EGGS, {**PENS, "answer": "4"}]})
    with pytest.raises(ValueError, match=r"^hub, test row 1 \(gsm8k/test/1\): no '####'"):
        GSM8K.examples(loaded.test)


def test_library_that_is_not_installed_is_one_line_with_what_to_do(monkeypatch):
    from nblib.sources import hubs

    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(SourceError, match=r"kagglehub .*\(pip install kagglehub\)"):
        hubs.from_kaggle()
