"""What the client commands make of a service's answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ioc.program.client.service_client import ServiceClient, ServiceRefused
from ioc.program.ports import LOOPBACK

ANSWER = {"status": "ok", "message": "Writing started. Warning: only 4 MB will be left.", "writer": {}}


class Answer(BaseHTTPRequestHandler):
    """Answers whatever is asked with what its server was given."""

    def do_GET(self) -> None:
        body = json.dumps(self.server.answer).encode()  # type: ignore[attr-defined]  # given below
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer((LOOPBACK, 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def client_of(server: HTTPServer, answer: dict[str, object]) -> ServiceClient:
    server.answer = answer  # type: ignore[attr-defined]  # for its handler
    return ServiceClient(f"http://{LOOPBACK}:{server.server_port}")


def test_a_warning_of_the_service_is_printed_once_however_often_it_comes(
    server: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    client = client_of(server, ANSWER)
    for _ in range(3):
        assert client.get("/writer/status", "writer") == {}
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "std-daq-ioc: Warning: only 4 MB will be left.\n")


def test_a_refusal_without_a_reason_shows_no_python(server: HTTPServer) -> None:
    client = client_of(server, {"status": "error", "writer": {"state": "WRITING"}})
    with pytest.raises(ServiceRefused, match="refuses, and does not say why") as refused:
        client.get("/writer/status", "writer")
    assert "{" not in str(refused.value)
