"""The rounds of torture: runs with faults, each followed by a perfect one; races of starts; bad requests."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daq_core.simulating.faults import Chaos
from tests.channel_access.epics_peer import ECA_NORMAL
from tests.system.checker import Broken, check
from tests.system.evidence import End, Evidence, Images, Owned, RunEvidence
from tests.torture.configs import SITUATIONS
from tests.torture.detector import JUNGFRAU
from tests.torture.faults import FAULTS, Fault
from tests.torture.files import owned, parts_of
from tests.torture.plan import Plan, new_detector, plan
from tests.torture.session import Session
from tests.torture.starts import N_STOPS, Outcome, stops_within_starts, storm
from tests.torture.surrounding_faults import FILLER, empty_disk, lift_limit

N_PERFECT = 100
IMAGE_TIMEOUT_S = 0.5
MARGIN_S = 0.2  # a packet that was sent so long before a stop is in
REMEMBERED = 30  # finished files that are kept, to see that nobody alters them
PAUSE_S = 0.25
REPAIRED_S = 15.0  # the process that repairs a file is forked by one that may have stood still


@dataclass
class Tally:
    """What was done so far, and what came of it."""

    faults: Counter[str] = field(default_factory=Counter)  # by kind, each once a run
    packets: Counter[str] = field(default_factory=Counter)  # packets or images that a kind changed
    n_rounds: int = 0
    n_runs: int = 0
    n_images: int = 0  # compared, every pixel
    outcomes: Counter[str] = field(default_factory=Counter)
    detectors: Counter[str] = field(default_factory=Counter)  # rounds of each
    broken: list[tuple[int, Broken]] = field(default_factory=list)  # with the round


class Rounds:
    """Takes a session through rounds, and has each one judged."""

    def __init__(self, session: Session, tally: Tally) -> None:
        self.session, self.tally = session, tally
        self._finished: list[Owned] = []  # files of former rounds that are still there
        self._refused: list[str] = []
        self._accepted: list[tuple[str, int]] = []
        self._redis_is_whole = False  # of the entries of this round

    def run_one(self, number: int, seed: int) -> list[Broken]:
        """Take one round, judge it, and add it to the tally."""
        dice = random.Random(f"{seed} {number}")
        session = self.session
        n_before = len(session.journal())
        outside = owned(session.precious)
        self._accepted, self._refused, self._redis_is_whole = [], [], True
        kind = dice.random()
        if (detector := new_detector(seed, number)) is not None:
            session.configure(detector)
            self.tally.faults["another config"] += 1
        self.tally.detectors[session.detector_name] += 1
        if kind < 0.03:
            self.story = f"{session.detector_name}: a storm of starts"
            self.tally.faults["storm of starts"] += 1
            self._take_up(outcome := storm(session, N_PERFECT))
            runs = [self._perfect_run(outcome.accepted[0])]
        elif kind < 0.08:
            self.story = f"{session.detector_name}: Stops within starts"
            self.tally.faults["Stop within a start"] += N_STOPS
            self._take_up(stops_within_starts(session, dice))
            runs = [self._perfect_run()]
        elif kind < 0.12:
            self.story = f"{session.detector_name}: starts at one instant"
            runs = self._race(dice)
        elif kind < 0.18:
            self.story = f"{session.detector_name}: bad requests"
            self._bad_requests(dice)
            runs = [self._perfect_run()]
        elif kind < 0.23:
            self.story = f"{session.detector_name}: configs that cannot run"
            self._bad_configs(dice)
            runs = [self._perfect_run()]
        else:
            planned = plan(dice, FAULTS)
            self.story = f"{session.detector_name}: {planned}"
            tortured = self._tortured_run(planned)
            runs = [*tortured, self._perfect_run()]
        return self._judge(number, runs, n_before, outside)

    def _judge(
        self, number: int, runs: list[RunEvidence], n_before: int, outside: list[Owned]
    ) -> list[Broken]:
        session = self.session
        empty_disk(session)
        journal = session.journal()[n_before:]
        n_finished = sum(entry["state"] == "FINISHED" for entry in journal)
        new = [Path(path) for path, _ in self._accepted]
        parts = [part for path in new for part in parts_of(path)]
        old = {owned.path for owned in self._finished}
        evidence = Evidence(
            config=self._config(),
            runs=runs,
            accepted=self._accepted,
            parts=[*map(str, parts), *old],
            refused=self._refused,
            journal=journal,
            logs=session.service.get(f"/daq/logs/{n_finished}")["logs"] if n_finished else [],
            redis_log=session.redis_log(n_finished) if n_finished and self._redis_is_whole else None,
            owner=os.geteuid() if os.geteuid() else JUNGFRAU["writer_user_id"],
            files=[file for file in owned(session.output) if Path(file.path).name != FILLER],
            outside_before=outside,
            outside_after=owned(session.precious),
            finished=self._finished,
        )
        broken = check(evidence)
        self.tally.n_rounds += 1
        self.tally.n_runs += len(runs)
        self.tally.n_images += sum(len(run.file.pixels) for run in runs if run.file is not None)
        self.tally.broken += [(number, said) for said in broken]
        for run in runs:
            end = next(iter(run.ends.values()), None)
            self.tally.outcomes[f"{end.acquisition}" if end else "no record"] += 1
        self._finished += [file for file in evidence.files if Path(file.path) in [*new, *parts]]
        self._forget_old_files()
        return broken

    def _config(self) -> dict[str, Any]:
        config = self.session.service.config.as_dict()
        return config | {"image_timeout_s": IMAGE_TIMEOUT_S, "module_sync_queue_size": 50}

    def _forget_old_files(self) -> None:
        """Remove files that were looked at often enough; the small disk is emptied each time."""
        small = str(self.session.small_disk)
        kept = self._finished[-REMEMBERED:]
        for file in self._finished:
            if file not in kept or file.path.startswith(small):
                Path(file.path).unlink(missing_ok=True)
        self._finished = [file for file in kept if not file.path.startswith(small)]

    def _take_up(self, outcome: Outcome) -> None:
        self._accepted += [(str(path), run_id) for path, run_id in outcome.accepted]
        self._refused += map(str, outcome.refused)

    # ------------------------------------------------------------ a run with faults

    def _tortured_run(self, planned: Plan) -> list[RunEvidence]:
        session = self.session
        on_small = any(fault.on_small_disk for fault, _ in planned.faults)
        path = session.new_path(session.small_disk if on_small else None)
        run_id = time.time_ns()
        before = session.last_counters or session.counters()
        early = [fault for fault, when in planned.faults if when < 0]
        if any(self._inject(fault, planned) for fault in early if fault.loses_service):
            before = session.counters()
        detector = session.detector(planned.chaos, planned.rows_per_packet, planned.bit_depth)
        self.tally.faults["another bit depth"] += detector.is_at_another_depth
        if planned.sends_before:
            detector.begin(2 * planned.n_sent, planned.rate_hz)
        for fault, _ in planned.faults:
            if fault.before_start:
                self._inject(fault, planned)
        reason = session.start(planned.face, path, planned.n_images, run_id)
        lift_limit(session)
        if reason and planned.sends_before:
            detector.end()
        if reason and not reason.startswith("ERROR"):
            self._refused.append(str(path))
            session.stop()
            session.counters(len(detector.sent))
            return []
        self._accepted.append((str(path), run_id))
        armed_s = time.monotonic()
        lost, took = [], None
        with session.watched(path) as looks:
            if not planned.sends_before:
                detector.begin(planned.n_sent, planned.rate_hz)
            stopped_s, begun = None, time.monotonic()
            happenings = [
                (when, fault)
                for fault, when in planned.faults
                if not (fault in early and fault.loses_service) and not fault.before_start
            ]
            if planned.stop_after_s is not None:
                happenings.append((planned.stop_after_s, None))
            for when, fault in sorted(happenings, key=lambda pair: pair[0]):
                time.sleep(max(0.0, begun + when - time.monotonic()))
                if fault is None:
                    stopped_s = stopped_s or time.monotonic()
                    took = max(took or 0.0, session.stop(planned.stop_face))
                elif self._inject(fault, planned):
                    lost.append(fault)
            detector.end()
            if not self._is_over(path, run_id):
                stopped_s = stopped_s or time.monotonic()
            took = max(took or 0.0, session.stop())
        self._count_chaos(detector)
        return [
            self._evidence(
                f"the run of {planned}",
                path,
                planned.n_images,
                run_id,
                detector,
                sent_to_us=not any(fault.loses_service for fault in lost),
                before=before,
                armed_s=armed_s,
                stopped_s=None if stopped_s is None else stopped_s - MARGIN_S,
                looks=looks,
                receiver_lost=any(fault.loses_receiver for fault in lost),
                stop_took_s=took,
            )
        ]

    def _inject(self, fault: Fault, planned: Plan) -> bool:
        if fault.loses_redis:
            self._redis_is_whole = False
        if not fault.inject(self.session, random.Random(str(planned.chaos))):
            return False
        self.tally.faults[fault.name] += 1
        return True

    def _count_chaos(self, detector: Any) -> None:
        self.tally.packets += detector.faults
        self.tally.faults += Counter(dict.fromkeys(detector.faults, 1))

    def _is_over(self, path: Path, run_id: int) -> bool:
        """Wait until a run has ended by itself, or nothing more can come of it."""
        deadline = time.monotonic() + 3 * IMAGE_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.session.service.status()["state"] == "READY":
                return True
            time.sleep(0.02)
        return False

    # ------------------------------------------------------------ a run without any

    def _perfect_run(self, winner: tuple[Path, int] | None = None) -> RunEvidence:
        """Take 100 images without a fault; `winner` has been started already."""
        session = self.session
        empty_disk(session)
        session.service.wait_for("READY" if winner is None else "WAITING_IMAGES", seconds=60)
        before = session.last_counters or session.counters()
        path, run_id = winner or (session.new_path(), time.time_ns())
        if winner is None:
            reason = session.start("REST", path, N_PERFECT, run_id)
            assert not reason, f"the start of a perfect run is refused: {reason}"
            self._accepted.append((str(path), run_id))
        detector = session.detector(Chaos())
        armed_s = time.monotonic()
        with session.watched(path) as looks:
            detector.begin(N_PERFECT // 2, 200.0)
            detector.end()
            time.sleep(PAUSE_S)  # a count that is ahead shows when nothing comes after it
            detector.begin(N_PERFECT - N_PERFECT // 2, 200.0)
            detector.end()
            self._is_over(path, run_id)
        return self._evidence(
            "the run after it",
            path,
            N_PERFECT,
            run_id,
            detector,
            before=before,
            armed_s=armed_s,
            looks=looks,
            is_perfect=True,
            stop_took_s=session.stop(),
        )

    def _evidence(
        self,
        name: str,
        path: Path,
        n_images: int,
        run_id: int,
        detector: Any,
        *,
        before: Any,
        sent_to_us: bool = True,
        **more: Any,
    ) -> RunEvidence:
        """Gather what is known of a run that has ended."""
        session = self.session
        after, losses = None, {}
        if sent_to_us:
            ends = session.ends(run_id, path)
            lost = more.get("receiver_lost", False)
            after, losses = session.counters(None if lost else len(detector.sent)), session.losses()
        else:  # the service of this run is no more; its journal tells
            record, ends = session.record_of(run_id), {}
            if record is not None:
                ends["journal"] = End(
                    "READY",
                    record["state"],
                    record["message"],
                    record["request"]["output_file"],
                    record["request"]["n_images"],
                    record["n_write_completed"],
                )
        has_failed = any(end.acquisition == "FAILED" for end in ends.values())
        file = _readable(path, has_failed)
        return RunEvidence(
            name=name,
            output_file=str(path),
            n_images=n_images,
            run_id=run_id,
            ends=ends,
            file=file,
            sent=detector.sent,
            before=before if sent_to_us else None,
            after=after,
            losses=losses,
            **more,
        )

    # ------------------------------------------------------------ starts at one instant

    def _race(self, dice: random.Random) -> list[RunEvidence]:
        """Start by REST (twice), CA and the command line at once: one wins, and its run is perfect."""
        session = self.session
        starters = [
            (face, session.new_path(), time.time_ns() + i)
            for i, face in enumerate(("REST", "REST", "CA", "CLI"))
        ]
        answers: dict[Path, str] = {}
        _, ca_path, ca_run = starters[2]
        session.prepare_ca(ca_path, N_PERFECT, ca_run)
        client = session.command_line_start(starters[3][1], N_PERFECT, starters[3][2])
        time.sleep(dice.uniform(0.2, 0.7))  # about as long as a command takes to come to the point
        together = threading.Barrier(3)

        def by_rest(path: Path, run_id: int) -> None:
            together.wait()
            answers[path] = session.start("REST", path, N_PERFECT, run_id)

        def by_ca() -> None:
            together.wait()
            put = session.peer.put(session.service.prefix + "DAQ:WriteAsync", 1)
            answers[ca_path] = "" if put == ECA_NORMAL else "refused"

        threads = [threading.Thread(target=by_rest, args=starter[1:]) for starter in starters[:2]]
        threads.append(threading.Thread(target=by_ca))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.communicate(timeout=60)
        answers[starters[3][1]] = "" if client.returncode == 0 else "refused"
        self.tally.faults["starts at one instant"] += len(starters)
        winners = [(path, run_id) for _, path, run_id in starters if not answers[path]]
        assert len(winners) == 1, (
            f"{len(winners)} of {len(starters)} starts at one instant were accepted: {answers}"
        )
        self._accepted += [(str(path), run_id) for path, run_id in winners]
        self._refused += [str(path) for _, path, _ in starters if answers[path]]
        return [self._perfect_run(winners[0])]

    # ------------------------------------------------------------ requests that must be refused

    def _bad_requests(self, dice: random.Random) -> None:
        session, service = self.session, self.session.service
        output = session.output
        link = output / f"link{dice.randrange(10**9)}"
        link.symlink_to(session.precious)
        pipe = output / f"pipe{dice.randrange(10**9)}.h5"
        os.mkfifo(pipe)
        paths = [
            session.precious / "one.h5",
            session.precious / "new.h5",
            link / "new.h5",
            pipe,
            output,
            output / "missing" / "a.h5",
            f"{output}/../escaped.h5",
            "relative.h5",
            f"{output}/a\0.h5",
            f"{output}/{'x' * 300}.h5",
            f"{output}/new\nline.h5",
            *[Path(file.path) for file in self._finished[-1:]],
        ]
        bodies: list[dict[str, Any]] = [{"output_file": str(path), "n_images": 5} for path in paths]
        good = str(session.new_path())
        for n_images in (0, -1, 2**31, 2**63, 1e18, "ten", 10.5, True, None):
            bodies.append({"output_file": good, "n_images": n_images})
        before = service.status()
        for body in dice.sample(bodies, 8):
            answer = service.post("/writer/write_async", body)
            assert answer["status"] == "error", f"{body} was accepted"
            self.tally.faults["bad request"] += 1
        assert service.status() == before, "a refused request changed the status"
        link.unlink()
        pipe.unlink()
        self._refused.append(good)

    # ------------------------------------------------------------ configs that cannot run

    def _bad_configs(self, dice: random.Random) -> None:
        for name in dice.sample(sorted(SITUATIONS), 2):
            self.story += f", {name}"
            SITUATIONS[name](self.session, dice)
            self.tally.faults[name] += 1
        self._redis_is_whole = False  # the service may have been started again


def _readable(path: Path, has_failed: bool) -> Images | None:
    """Return what is in the file of a run; that of a failed one may be repaired behind READY: it has time."""
    deadline = time.monotonic() + (REPAIRED_S if has_failed else 0)
    while True:
        with suppress(OSError):
            if path.exists():
                return Images.read(path)
            if has_failed and (parts := parts_of(path)):
                return Images.of_parts(parts)
        if time.monotonic() >= deadline or not (path.exists() or parts_of(path)):
            return None
        time.sleep(0.05)
