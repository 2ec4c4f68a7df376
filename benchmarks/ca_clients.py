"""Clients of Channel Access that count what they get: many in one process, by the C library itself.

Each client is a context of libca, with a connection to the server and threads of its own; what is
done in Python for an update is one addition. Both ends of the process are here: :class:`Clients`
for who measures, :func:`main` for the process. A request is a line of JSON, and so is its answer.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from benchmarks.line_process import LineProcess, answer_calls
from ioc.program.ports import channel_access_environment

PATIENCE_S = 60.0
ECA_NORMAL = 1
CHAR, LONG = 4, 5
TIME = 14  # added to a native type: with status, severity and time
NATIVE_COUNT = 0  # as many elements as there are
VALUE_AND_ALARM = 5  # DBE_VALUE | DBE_ALARM
EPICS_EPOCH = 631_152_000  # Unix seconds of 1990-01-01; source: epicsTime.h


class Clients(LineProcess):
    """A process of clients that monitor the same PVs: ``with Clients(port, names, n_clients=20) as them:``.

    When it is entered, all clients are connected and have had a value of every PV.

    Attributes
    ----------
    first_values_s : float    from the first search to the last first value
    pid : int
    """

    def __init__(self, ca_port: int, names: Sequence[str], n_clients: int = 1) -> None:
        self._env = os.environ | channel_access_environment(ca_port)
        self._names, self._n_clients = list(names), n_clients
        self.first_values_s = 0.0

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.ca_clients"]
        self._start(command, self._env, quiet=True)
        try:
            self.first_values_s = self._call("monitor", names=self._names, n_clients=self._n_clients)
        except BaseException:
            self.__exit__()
            raise
        return self

    def counts(self) -> list[int]:
        """Return how many updates each client has had, its first values included."""
        return list(map(int, self._call("counts")))

    def latencies(self) -> list[float]:
        """Return the seconds from an event to the first client, of all updates since the last call."""
        return list(map(float, self._call("latencies")))

    def put(self, name: str, value: int | str, n: int = 1) -> list[float]:
        """Put a value n times as the first client; return the seconds until each completed."""
        return list(map(float, self._call("put", name=name, value=value, n=n)))


# ---- the process


class Event(ctypes.Structure):
    """What libca tells a callback; source: cadef.h, struct event_handler_args."""

    _fields_ = (
        ("usr", ctypes.c_void_p),
        ("chid", ctypes.c_void_p),
        ("type", ctypes.c_long),
        ("count", ctypes.c_long),
        ("dbr", ctypes.c_void_p),
        ("status", ctypes.c_int),
    )


class Stamp(ctypes.Structure):
    """The beginning of every dbr_time_…; source: db_access.h."""

    _fields_ = (
        ("status", ctypes.c_int16),
        ("severity", ctypes.c_int16),
        ("seconds", ctypes.c_uint32),
        ("nanoseconds", ctypes.c_uint32),
    )


Handler = ctypes.CFUNCTYPE(None, Event)


class Library:
    """libca, with the client contexts of this process."""

    def __init__(self) -> None:
        from epicscorelibs.path import get_lib

        self._ca = ctypes.CDLL(get_lib("ca"))
        self._ca.ca_pend_io.argtypes = [ctypes.c_double]
        self._ca.ca_current_context.restype = ctypes.c_void_p
        self._ca.ca_attach_context.argtypes = [ctypes.c_void_p]
        self._ca.ca_field_type.argtypes = self._ca.ca_element_count.argtypes = [ctypes.c_void_p]
        self._ca.ca_create_subscription.argtypes = [
            *(ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_long, Handler),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        self._ca.ca_array_put_callback.argtypes = [
            *(ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p, Handler, ctypes.c_void_p)
        ]
        self.counts: list[list[int]] = []  # of each client, by PV
        self.latencies: list[float] = []
        self._channels: dict[str, ctypes.c_void_p] = {}  # of the first client
        self._first = 0
        self._kept: list[Any] = []  # what the library calls must not be collected
        self._complete = threading.Event()
        self._put_status = 0
        self._on_put = Handler(self._note_put)

    def monitor(self, names: list[str], n_clients: int) -> float:
        begin = time.monotonic()
        searching = [self._new_client(names) for _ in range(n_clients)]
        for number, (context, channels) in enumerate(searching):
            self._use(context)
            _demand(self._ca.ca_pend_io(PATIENCE_S), "the connection of all PVs")
            self._subscribe(channels, timed=number == 0)
        while not all(map(all, self.counts)):
            if time.monotonic() > begin + PATIENCE_S:
                raise TimeoutError("not every PV has sent a first value")
            time.sleep(0.001)
        self._first, first_channels = searching[0]
        self._channels = dict(zip(names, first_channels, strict=True))
        self.latencies.clear()
        return time.monotonic() - begin

    def _new_client(self, names: list[str]) -> tuple[int, list[ctypes.c_void_p]]:
        """Make a context and let it search."""
        self._ca.ca_detach_context()
        _demand(self._ca.ca_context_create(1), "a context")
        channels = [ctypes.c_void_p() for _ in names]
        for name, channel in zip(names, channels, strict=True):
            _demand(self._ca.ca_create_channel(name.encode(), None, None, 0, ctypes.byref(channel)), name)
        self._ca.ca_flush_io()
        return self._ca.ca_current_context(), channels

    def _use(self, context: int) -> None:
        self._ca.ca_detach_context()
        _demand(self._ca.ca_attach_context(context), "a context")

    def _subscribe(self, channels: list[ctypes.c_void_p], *, timed: bool) -> None:
        self.counts.append([0] * len(channels))
        handler = Handler(self._counter(self.counts[-1], timed=timed))
        self._kept += [handler, channels]
        for number, channel in enumerate(channels, 1):  # 0 would be no pointer
            kind = TIME + self._ca.ca_field_type(channel)
            self._ca.ca_create_subscription(
                kind, NATIVE_COUNT, channel, VALUE_AND_ALARM, handler, number, None
            )
        self._ca.ca_flush_io()

    def _counter(self, counts: list[int], *, timed: bool) -> Callable[[Event], None]:
        def count(event: Event) -> None:
            if event.dbr:
                counts[event.usr - 1] += 1

        def count_and_time(event: Event) -> None:
            now = time.time()
            if event.dbr:
                counts[event.usr - 1] += 1
                stamp = Stamp.from_address(event.dbr)
                self.latencies.append(now - EPICS_EPOCH - stamp.seconds - stamp.nanoseconds * 1e-9)

        return count_and_time if timed else count

    def put(self, name: str, value: int | str, n: int) -> list[float]:
        self._use(self._first)
        channel = self._channels[name]
        text = value.encode() + b"\0" if isinstance(value, str) else b""
        data = ctypes.create_string_buffer(text) if text else ctypes.c_int32(int(value))
        kind, count = (CHAR, len(text)) if text else (LONG, 1)
        seconds = []
        for _ in range(n):
            self._complete.clear()
            begin = time.monotonic()
            self._ca.ca_array_put_callback(kind, count, channel, ctypes.byref(data), self._on_put, None)
            self._ca.ca_flush_io()
            if not self._complete.wait(PATIENCE_S):
                raise TimeoutError(f"{name}: the put does not complete")
            _demand(self._put_status, f"a put of {name}")
            seconds.append(time.monotonic() - begin)
        return seconds

    def _note_put(self, event: Event) -> None:
        self._put_status = event.status
        self._complete.set()


def _demand(status: int, what: str) -> None:
    if status != ECA_NORMAL:
        raise RuntimeError(f"{what}: CA status {status}")


def main() -> None:
    """Be the clients."""
    library = Library()

    def latencies() -> list[float]:
        taken, library.latencies = library.latencies, []
        return taken

    calls: dict[str, Callable[..., Any]] = {
        "monitor": library.monitor,
        "counts": lambda: list(map(sum, library.counts)),
        "latencies": latencies,
        "put": library.put,
    }
    answer_calls(calls)
    os._exit(0)  # libca's threads would go on


if __name__ == "__main__":
    main()
