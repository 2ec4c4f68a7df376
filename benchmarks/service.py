"""The service as people start it, ``std-daq-ioc serve``, and clients that measure how soon it answers.

The clients ask for real-time priority, as the service does: what is measured is how long it takes
to answer, not how long a busy machine lets a client wait that would be another machine's.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import caproto

from benchmarks.cpu import wall
from daq_core.config import DaqConfig
from ioc.program.ports import LOOPBACK, channel_access_environment, free_ports

ANSWER_WITHIN_S = 30.0


class Service:
    """A running service with Channel Access and REST, on free ports, that writes into a folder of its own."""

    def __init__(self, config: DaqConfig) -> None:
        self.config = config
        self._folder = tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-")
        self.folder = Path(self._folder.name)
        self.prefix = f"BENCH{os.getpid()}:"
        self.rest_port = free_ports()
        self.ca_port = free_ports(2, socket.SOCK_STREAM, socket.SOCK_DGRAM)
        file = self.folder / "detector.json"
        file.write_text(config.as_json())
        options = ["--config", str(file), "--prefix", self.prefix, "--no-redis", "--udp-host", LOOPBACK]
        options += ["--rest-port", str(self.rest_port), "--ca-port", str(self.ca_port)]
        self._messages = (self.folder / "service.log").open("w+")
        begin = wall()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ioc", "serve", *options],
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            env=os.environ | channel_access_environment(self.ca_port),
        )
        assert self._process.stdout is not None
        ready = any(line.startswith("READY") for line in self._process.stdout)
        self.seconds_to_ready = wall() - begin
        if not ready:
            self.__exit__()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate()
        self._messages.seek(0)
        said = self._messages.read()
        self._messages.close()
        self._folder.cleanup()
        if self._process.returncode:
            raise RuntimeError(f"the service did not start and end in order: {said[-2000:]}")


class RestClient:
    """A connection that is kept open, as std_daq_client's is."""

    def __init__(self, service: Service) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, service.rest_port, timeout=ANSWER_WITHIN_S)
        self._connection.connect()
        assert self._connection.sock is not None
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        answer: dict[str, Any] = json.loads(self._connection.getresponse().read())
        if answer["status"] != "ok":
            raise RuntimeError(f"{method} {path}: {answer['message']}")
        return answer


class CaClient:
    """A Channel Access circuit: one request at a time, and its answer."""

    def __init__(self, service: Service) -> None:
        self._prefix = service.prefix
        address = (LOOPBACK, service.ca_port)
        self._socket = socket.create_connection(address, timeout=ANSWER_WITHIN_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._circuit = caproto.VirtualCircuit(caproto.CLIENT, address, 0)
        self._channels: dict[str, tuple[int, Any]] = {}  # name: server's id, native type
        self._ids = itertools.count(1)
        self._send(
            caproto.VersionRequest(0, caproto.DEFAULT_PROTOCOL_VERSION),
            caproto.HostNameRequest("benchmark"),
            caproto.ClientNameRequest("benchmark"),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def get(self, name: str) -> Any:
        """Return the value of a PV, as a list."""
        server_id, kind = self._channel(name)
        self._send(caproto.ReadNotifyRequest(kind, 0, server_id, next(self._ids)))
        return self._hear(caproto.ReadNotifyResponse).data

    def put(self, name: str, value: list[Any]) -> None:
        """Put a value and wait until the put has completed."""
        server_id, kind = self._channel(name)
        self._send(caproto.WriteNotifyRequest(value, kind, len(value), server_id, next(self._ids)))
        answer = self._hear(caproto.WriteNotifyResponse)
        if not answer.status.success:
            raise RuntimeError(f"put to {name}: {answer.status.description}")

    def put_text(self, name: str, text: str) -> None:
        self.put(name, list(text.encode() + b"\0"))

    def _channel(self, name: str) -> tuple[int, Any]:
        if name not in self._channels:
            pv = self._prefix + name
            self._send(caproto.CreateChanRequest(pv, next(self._ids), caproto.DEFAULT_PROTOCOL_VERSION))
            made = self._hear(caproto.CreateChanResponse)
            self._channels[name] = made.sid, made.data_type
        return self._channels[name]

    def _send(self, *requests: Any) -> None:
        for part in self._circuit.send(*requests):
            self._socket.sendall(part)

    def _hear(self, kind: type[Any]) -> Any:
        """Return the next answer of a kind; the server's other words are passed over."""
        while True:
            received, _ = self._circuit.recv(self._socket.recv(1 << 16))
            for command in received:
                if command is caproto.DISCONNECTED:
                    raise ConnectionError("the server closed the circuit")
                self._circuit.process_command(command)
                if isinstance(command, kind):
                    return command


def go_first() -> bool:
    """Let this thread run at the lowest real-time priority, as control does; False where that is refused."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        return True
    return False
