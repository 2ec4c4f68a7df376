"""Torture of starts: a storm of them at one moment, and Stops that meet them, by any face."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.channel_access.ca_wire import ENUM, ERROR, HEADER, WRITE_NOTIFY, Connection, message
from tests.daq.loopback import standing_still
from tests.torture.session import Session

N_STORM = 100
N_STOPS = 5
GAPS_S = (0.0, 0.0, 0.001, 0.005, 0.02, 0.05)
"""Between a start that is sent and the Stop after it; the last writers open their files meanwhile."""
ENDED_S = 60.0
ONE = b"\0\1"  # the second choice of an enum
START, STOP = 1, 2  # numbers of the two puts


@dataclass
class Outcome:
    """What became of some starts: runs that the service owes a record, and paths that it must not touch."""

    accepted: list[tuple[Path, int]] = field(default_factory=list)
    refused: list[Path] = field(default_factory=list)

    def add(self, path: Path, run_id: int, reason: str) -> None:
        """Take up the answer to a start: "", or why there is no run, or how it failed."""
        if not reason or reason.startswith("ERROR"):
            self.accepted.append((path, run_id))
        else:
            self.refused.append(path)


def storm(session: Session, n_images: int) -> Outcome:
    """Start many runs by REST at one moment: one is accepted, and all others are answered."""
    outcome, together = Outcome(), threading.Barrier(N_STORM)
    starters = [(session.new_path(), time.time_ns() + i) for i in range(N_STORM)]

    def start(starter: tuple[Path, int]) -> str:
        together.wait()
        return session.start("REST", starter[0], n_images, starter[1])

    with ThreadPoolExecutor(N_STORM) as clients:
        answers = list(clients.map(start, starters))
    for (path, run_id), answer in zip(starters, answers, strict=True):
        outcome.add(path, run_id, answer)
    n_accepted = len(outcome.accepted)
    assert n_accepted == 1, f"{n_accepted} of {N_STORM} starts at one moment were accepted: {set(answers)}"
    return outcome


def stops_within_starts(session: Session, dice: random.Random) -> Outcome:
    """Send a start, and a Stop soon after it: when the Stop is answered there is no run, and none comes."""
    outcome = Outcome()
    for _ in range(N_STOPS):
        path, run_id = session.new_path(), time.time_ns()
        meet = dice.choice((_meet_by_rest, _meet_by_rest, _meet_by_ca))
        gap_s = dice.choice(GAPS_S)
        fork_server = session.pid("daq-forks")
        with ExitStack() as slow:
            if dice.random() < 0.3 and fork_server is not None:
                slow.enter_context(standing_still([fork_server]))
                gap_s = max(gap_s, 0.3)
            outcome.add(path, run_id, meet(session, path, run_id, gap_s))
        status = session.service.status()
        assert status["state"] == "READY", f"a run goes on after its Stop: {status}"
    return outcome


def _meet_by_rest(session: Session, path: Path, run_id: int, gap_s: float) -> str:
    """Send both over connections of their own, the start first; return its answer as `Session.start` does."""
    service = session.service
    body = json.dumps({"output_file": str(path), "n_images": 1000, "run_id": run_id})
    starting = http.client.HTTPConnection(service.rest_url.removeprefix("http://"), timeout=ENDED_S)
    with contextlib.closing(starting):
        starting.request("POST", "/writer/write_async", body, {"Content-Type": "application/json"})
        time.sleep(gap_s)
        session.stop()
        status = service.status()
        assert status["state"] == "READY", f"a run goes on after its Stop: {status}"
        answer = json.loads(starting.getresponse().read())
    return "" if answer["status"] == "ok" else str(answer["message"])


def _meet_by_ca(session: Session, path: Path, run_id: int, gap_s: float) -> str:
    """Send both over one circuit; return what the start was answered."""
    service = session.service
    session.prepare_ca(path, 1000, run_id)
    with Connection(service.ca_port, ENDED_S) as wire:
        start, stop = wire.channels([service.prefix + "DAQ:WriteAsync", service.prefix + "DAQ:Stop"])
        wire.send(message(WRITE_NOTIFY, ONE, ENUM, 1, start, START))
        time.sleep(gap_s)
        wire.send(message(WRITE_NOTIFY, ONE, ENUM, 1, stop, STOP))
        answered: set[int] = set()
        reason = ""
        while len(answered) < 2:
            answer = wire.answer()
            assert answer is not None, "the service closed the circuit"
            if answer.command == WRITE_NOTIFY:
                answered.add(answer.p2)
            elif answer.command == ERROR:  # the payload begins with the request's header
                *_, n = HEADER.unpack(answer.payload[: HEADER.size])
                answered.add(n)
                reason = reason or answer.payload[HEADER.size :].rstrip(b"\0").decode()
                assert n == START, f"Stop is refused: {reason}"
    return reason
