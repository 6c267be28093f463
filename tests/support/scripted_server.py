"""An HTTP server that gives the answers it was told, one after another, and remembers what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

Answer = tuple[int, str, bytes]
"""Status, content type and body."""


class Request(NamedTuple):
    """What the server was asked."""

    method: str
    path: str
    last_event_id: str | None
    body: bytes
    authorization: str | None


class ScriptedServer:
    """Answers each request in turn with the next of its answers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                last_event_id, authorization = map(self.headers.get, ("Last-Event-ID", "Authorization"))
                server.requests.append(Request(self.command, self.path, last_event_id, body, authorization))
                status, kind, answer = server.answers.pop(0)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_PUT = do_GET  # noqa: N815  # the base class's names for them

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as above
                """Stay silent."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Free the port."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def said(value: object, status: int = 200) -> Answer:
    """An answer with a JSON body."""
    return status, "application/json", json.dumps(value).encode()


def problem(status: int, code: str) -> Answer:
    """An answer with a problem body (RFC 9457)."""
    body = {"title": "No", "status": status, "detail": "Because.", "code": code}
    return status, "application/problem+json", json.dumps(body).encode()
