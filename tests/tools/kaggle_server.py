"""Kaggle's API on loopback: keeps what it is sent and answers as a test says."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SAVED = {"ref": "", "url": "https://kaggle.com/code/x", "versionNumber": 1, "error": ""}


class KaggleServer(ThreadingHTTPServer):
    """`received` are (method name, body, Authorization); `answers` by method, `files` by name.

    An answer is a body, (status, body), or a function of the request's body that gives one. The
    dataset of the embedded model is there unless an answer says otherwise.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = []
        self.answers = {"SaveKernel": SAVED, "GetDatasetStatus": {"status": "READY"}}
        self.files = {}
        self.uploads = {}
        self.upload_status = 200
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def methods(self):
        return [name for name, *_ in self.received]

    def bodies(self, method):
        return [body for name, body, _ in self.received if name == method]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        method = self.path.rpartition("/")[2]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((method, body, self.headers["Authorization"]))
        answer = self.server.answers.get(method, {"code": 404, "message": f"no {method}"})
        if callable(answer):
            answer = answer(body)
        if isinstance(answer, dict):
            answer = (answer.get("code", 200), answer)
        self._send(json.dumps(answer[1]).encode(), "application/json", answer[0])

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.uploads[self.path.removeprefix("/put/")] = content
        self._send(b"{}", "application/json", self.server.upload_status)

    def do_GET(self):
        content = self.server.files[self.path.removeprefix("/files/")]
        self._send(content.encode(), "application/octet-stream", 200)

    def _send(self, content, kind, code):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass
