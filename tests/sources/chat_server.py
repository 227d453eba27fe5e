"""A chat server on loopback that answers as a test says, faults included."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def chat(content, *, finish="stop", usage=(10, 2), **message):
    """The body of a chat completion."""
    counts = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True)) if usage else {}
    choice = {"message": {"role": "assistant", "content": content, **message}}
    choice |= {"finish_reason": finish}
    return {"choices": [choice], **({"usage": counts} if usage else {})}


def asked(body):
    """The text of a request's last message."""
    return body["messages"][-1]["content"]


class ChatServer(ThreadingHTTPServer):
    """`answer(body, nth)` gives a body, or (status, head, body, fault), for the nth request.

    A body is JSON, or bytes. The fault "short" closes the connection before the body's end,
    "stall" sends nothing until the test is over, "drip" a blank now and then, "drop" no answer;
    "chunked" is none. `listed` is what GET /v1/models answers; None: the server has no such list.
    """

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.received, self.heads = answer, [], []
        self.listed, self.lists = None, []  # lists: the heads of what asked for it
        self.lock, self.over = threading.Lock(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def close(self):
        self.over.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.lists.append(dict(self.headers))
        is_there = self.path == "/v1/models" and self.server.listed is not None
        content = self.server.listed if is_there else {"error": "not found"}
        self.send_response(200 if is_there else 404)
        self._send(content if isinstance(content, bytes) else json.dumps(content).encode(), "")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.received.append((self.path, body))
            self.server.heads.append(dict(self.headers))
            nth = len(self.server.received)
        made = self.server.answer(body, nth)
        status, head, content, fault = made if isinstance(made, tuple) else (200, {}, made, "")
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "stall":
            self.server.over.wait(60)
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name, value)
        self._send(content, fault)

    def _send(self, content, fault):
        if fault == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (content[:7], content[7:], b""):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            return
        length = len(content) + {"short": 10, "drip": 10**6}.get(fault, 0)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)
        while fault == "drip" and not self.server.over.wait(0.01):
            try:
                self.wfile.write(b" ")
                self.wfile.flush()
            except OSError:
                break
        self.close_connection = self.close_connection or bool(fault)

    def log_message(self, *args):
        pass
