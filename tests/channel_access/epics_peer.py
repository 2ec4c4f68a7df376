"""A Channel Access client made of the C library (pyepics), in a process of its own.

libca reads its environment once and lives as long as its process, so each test
gets another one: ``with EpicsPeer(port) as peer: peer.get("X:DAQ:State_RBV")``.
Run as a script this module is that process: a request per line of stdin, an
answer per line of stdout, both JSON.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from benchmarks.line_process import LineProcess, answer_calls
from ioc.program.ports import channel_access_environment

ECA_NORMAL = 1


class EpicsPeer(LineProcess):
    """A client process; names are whole PV names, text of CHAR waveforms comes as str."""

    def __init__(self, ca_port: int) -> None:
        self._env = os.environ | channel_access_environment(ca_port)

    def __enter__(self) -> EpicsPeer:
        self._start([sys.executable, "-m", "tests.channel_access.epics_peer"], self._env, quiet=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.send_signal(signal.SIGCONT)  # a test may have stopped it
        super().__exit__(*exc)

    def get(self, name: str, *, as_string: bool = False) -> Any:
        """Return a PV's value; `as_string` gives the name of an enum's state."""
        return self._call("get", name=name, as_string=as_string)

    def text(self, name: str) -> str:
        return str(self.get(name, as_string=True))

    def info(self, name: str) -> dict[str, Any]:
        """Return type, count, units, precision, limits, states, alarm and time of a PV."""
        answer = self._call("info", name=name)
        assert isinstance(answer, dict)
        return answer

    def search(self, *names: str) -> None:
        """Connect many PVs at once, which is quicker than one after the other."""
        self._call("search", names=names)

    def put(self, name: str, value: Any, *, timeout_s: float = 20.0, as_type: int | None = None) -> int:
        """Put a value, wait for its completion, and return the CA status: 1 is a success, 0 nothing came."""
        self.send_put(name, value, timeout_s=timeout_s, as_type=as_type)
        return int(self._returned())

    def send_put(self, name: str, value: Any, *, timeout_s: float = 20.0, as_type: int | None = None) -> None:
        """Put a value without waiting; the next answer is its status."""
        self._send_call("put", name=name, value=value, timeout_s=timeout_s, as_type=as_type)

    def put_status(self) -> int:
        """Return the CA status of the put that was sent before."""
        return int(self._returned())

    def monitor(self, *names: str) -> None:
        """Begin to keep every update of some PVs."""
        self._call("monitor", names=names)

    def updates(self, name: str) -> list[Any]:
        """Return the updates kept so far, oldest first: the names of an enum's states, else values."""
        answer = self._call("updates", name=name)
        assert isinstance(answer, list)
        return answer

    def alarms(self, name: str) -> list[tuple[int, int]]:
        """Return the alarm status and severity of each update kept so far, oldest first."""
        return [(status, severity) for status, severity in self._call("alarms", name=name)]

    def connected(self, name: str) -> list[bool]:
        """Return whether the client had a connection to a monitored PV, at each change of that."""
        answer = self._call("connected", name=name)
        assert isinstance(answer, list)
        return answer

    def wait_for(self, name: str, value: Any, timeout_s: float = 10.0) -> None:
        """Wait until a monitored PV had a value; fails with what was seen instead."""
        deadline = time.monotonic() + timeout_s
        while value not in self.updates(name):
            assert time.monotonic() < deadline, f"{name}: no {value!r} in {self.updates(name)}"
            time.sleep(0.02)

    def rights(self, *names: str) -> list[tuple[bool, bool]]:
        """Return what may be read and written of some PVs, as the server told this client."""
        return [(bool(read), bool(write)) for read, write in self._call("rights", names=names)]

    def wait_for_rights(self, name: str, read: bool, write: bool, timeout_s: float = 10.0) -> None:
        """Wait until the newest callback for changed access rights of a PV came with these."""
        assert self._call("wait_for_rights", name=name, wanted=[read, write], timeout_s=timeout_s), name


def main() -> None:
    """Be the client process."""
    import epics
    from epics import ca, dbr

    answers, sys.stdout = sys.stdout, sys.stderr  # pyepics prints what it has to say
    channels: dict[str, Any] = {}
    updates: dict[str, list[Any]] = {}
    alarms: dict[str, list[tuple[int, int]]] = {}
    connections: dict[str, list[bool]] = {}
    put_statuses: list[int] = []
    rights_seen: dict[str, list[list[bool]]] = {}

    def note_completion(arguments: Any) -> None:
        put_statuses.append(arguments.status)
        arguments.usr()

    ca._CB_PUTWAIT = dbr.make_callback(note_completion, dbr.event_handler_args)  # pyepics drops the status

    def channel(name: str) -> Any:
        if name not in channels:
            channels[name] = ca.create_channel(name, connect=True)
        if not ca.connect_channel(channels[name], timeout=10):
            raise TimeoutError(f"{name} is not found")
        return channels[name]

    def search(names: list[str]) -> None:
        for name in names:
            if name not in channels:
                channels[name] = ca.create_channel(name, connect=False, auto_cb=False)
        for name in names:
            channel(name)

    def get(name: str, as_string: bool) -> Any:
        chid = channel(name)
        if as_string and ca.field_type(chid) == dbr.ENUM:
            return ca.get_enum_strings(chid)[ca.get(chid, timeout=10)]
        value = ca.get(chid, as_string=as_string, timeout=10)
        return value.tolist() if hasattr(value, "tolist") else value

    def info(name: str) -> dict[str, Any]:
        chid = channel(name)
        values = {
            "type": ca.field_type(chid),
            "count": ca.element_count(chid),
            "writable": bool(ca.write_access(chid)),
            **(ca.get_timevars(chid) or {}),
            **(ca.get_ctrlvars(chid) or {}),
        }
        if ca.field_type(chid) == dbr.ENUM:
            values["enum_strs"] = list(ca.get_enum_strings(chid))
        return values

    def put(name: str, value: Any, timeout_s: float, as_type: int | None) -> int:
        put_statuses.clear()
        ca.put(channel(name), value, wait=True, timeout=timeout_s, ftype=as_type)
        return put_statuses[0] if put_statuses else 0

    def monitor(names: list[str]) -> None:
        for name in names:
            updates[name] = []

            def note(name: str = name, **event: Any) -> None:
                value = event["value"]
                updates[name].append(event["char_value"] if event.get("enum_strs") else value)
                alarms.setdefault(name, []).append((event["status"], event["severity"]))

            def note_connection(name: str = name, conn: bool = False, **event: Any) -> None:
                connections.setdefault(name, []).append(conn)

            pv = epics.PV(
                name, form="ctrl", auto_monitor=True, callback=note, connection_callback=note_connection
            )
            if not pv.wait_for_connection(10):
                raise TimeoutError(f"{name} is not found")
            channels[f"monitor {name}"] = pv
        deadline = time.monotonic() + 10
        while not all(updates[name] for name in names) and time.monotonic() < deadline:
            ca.poll()

    def seen(name: str) -> list[Any]:
        ca.poll()
        return [v.tolist() if hasattr(v, "tolist") else v for v in updates[name]]

    def connected(name: str) -> list[bool]:
        ca.poll()
        return connections[name]

    def watched_rights(name: str) -> list[list[bool]]:
        """Return the rights a PV had, oldest first; the first time, begin to keep them."""
        chid = channel(name)
        if name not in rights_seen:
            seen_now = rights_seen[name] = []
            ca.replace_access_rights_event(chid, lambda read, write: seen_now.append([read, write]))
        return rights_seen[name]

    def rights(names: list[str]) -> list[tuple[int, int]]:
        for name in names:
            channels.setdefault(name, ca.create_channel(name, connect=False))
        for name in names:
            watched_rights(name)
        ca.poll()
        return [(ca.read_access(channel(name)), ca.write_access(channel(name))) for name in names]

    def wait_for_rights(name: str, wanted: list[bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while watched_rights(name)[-1:] != [wanted]:
            if time.monotonic() > deadline:
                return False
            ca.poll()
        return True

    calls: dict[str, Any] = {"get": get, "info": info, "put": put, "monitor": monitor, "updates": seen}
    calls["search"] = search
    calls["connected"] = connected
    calls["alarms"] = lambda name: [ca.poll(), alarms[name]][1]
    calls |= {"rights": rights, "wait_for_rights": wait_for_rights}
    answer_calls(calls, answers)


if __name__ == "__main__":
    main()
