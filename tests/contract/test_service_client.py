"""How client commands reach a service: directly on this machine, whatever proxy the environment names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ioc.program.client.service_client import ServiceClient, Unreachable
from ioc.program.ports import LOOPBACK, free_ports

ELSEWHERE = "http://daq.example.invalid:5000"
PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Answers(BaseHTTPRequestHandler):
    """Answers every request with what its server was made with."""

    server: Answering

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.code)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *args: object) -> None:
        pass


class Answering(ThreadingHTTPServer):
    def __init__(self, answer: bytes, code: int = 200) -> None:
        super().__init__((LOOPBACK, 0), Answers)
        self.answer, self.code = answer, code
        self.asked: list[str] = []


def serving(server: Answering) -> Iterator[Answering]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def service() -> Iterator[Answering]:
    yield from serving(Answering(b'{"status": "ok", "message": "", "writer": {"state": "READY"}}'))


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """A proxy that answers all requests with a page of its own, and is named by the environment."""
    for server in serving(Answering(b"<html>The site is not allowed</html>", 403)):
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://user:secret@{LOOPBACK}:{server.server_port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        yield server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_a_service_on_this_machine_is_asked_directly(service: Answering, proxy: Answering, host: str) -> None:
    client = ServiceClient(f"http://{host}:{service.server_port}")
    assert client.get("/writer/status", "writer") == {"state": "READY"}
    assert proxy.asked == []


@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_that_nobody_answers_on_this_machine_names_no_proxy(host: str) -> None:
    with pytest.raises(Unreachable, match="No service at") as refused:
        ServiceClient(f"http://{host}:{free_ports(1)}").get("/writer/status", "writer")
    assert "proxy" not in str(refused.value)


def test_a_service_elsewhere_is_asked_through_the_proxy_and_its_answer_names_it(proxy: Answering) -> None:
    with pytest.raises(Unreachable) as refused:
        ServiceClient(ELSEWHERE).get("/writer/status", "writer")
    assert proxy.asked == [f"{ELSEWHERE}/writer/status"]
    assert f"asked through the proxy {LOOPBACK}:{proxy.server_port}" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_proxy_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_ports(1)
    monkeypatch.setenv("http_proxy", f"http://user:secret@{LOOPBACK}:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(
        Unreachable, match=f"No service at {ELSEWHERE}.*proxy {LOOPBACK}:{port} that"
    ) as refused:
        ServiceClient(ELSEWHERE).get("/writer/status", "writer")
    assert "secret" not in str(refused.value)


def test_an_exception_to_the_proxy_is_one(monkeypatch: pytest.MonkeyPatch, proxy: Answering) -> None:
    monkeypatch.setenv("no_proxy", ".example.invalid")
    with pytest.raises(Unreachable) as refused:
        ServiceClient(ELSEWHERE).get("/writer/status", "writer")
    assert "proxy" not in str(refused.value)
    assert proxy.asked == []
