"""A server with the interface of OpenAI, in this process."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


class Server(ThreadingHTTPServer):
    """Prefers the longer answer; `trouble` has answers to give first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.trouble: list[tuple[int, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        assert self.path == "/v1/chat/completions"
        status, answer = self.server.trouble.pop(0) if self.server.trouble else (200, None)
        if answer is None:
            _, first, second, _ = body["messages"][0]["content"].split("|")
            verdict = {1: "A", -1: "B"}.get(int(np.sign(len(first) - len(second))), "tie")
            answer = completion(f"I see.\nVerdict: {verdict}")
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def completion(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 10}}
