"""The independent checker: judges from outside whether anything was lost, doubled, made up or misplaced.

It verifies the eight invariants of ``docs/explanations/reliability.md`` on the
evidence of a service that was tortured. It knows the wire and the promises, puts
images together by itself, packet by packet, and shares no code with receiver
and writer.
Images are judged in ``sent_images``, records and owners in ``records``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tests.oracle.units import units_of
from tests.system.evidence import Evidence, RunEvidence
from tests.system.records import judge_owners, judge_records
from tests.system.sent_images import judge_images, numbers_fall, sendings

INVARIANTS = {
    1: "every packet is accounted for",
    2: "every image that arrived whole is in the file, once, to the bit",
    3: "what is incomplete is zeroed and says so, or is counted",
    4: "no count is ahead of what a reader sees",
    5: "all faces and the file say the same",
    6: "each accepted request has one record",
    7: "files belong to their user, and nothing else was touched",
    8: "Stop is quick, and the next run is perfect",
}
STOP_LIMIT_S = 5.0


@dataclass(frozen=True)
class Broken:
    """One violation."""

    invariant: int
    run: str
    says: str

    def __str__(self) -> str:
        return f"invariant {self.invariant} ({INVARIANTS[self.invariant]}): {self.run}: {self.says}"


def check(evidence: Evidence) -> list[Broken]:
    """Return everything that is not as promised."""
    broken = []
    for run in evidence.runs:
        broken += check_run(evidence.config, run)
    broken += [Broken(6, *said) for said in judge_records(evidence)]
    broken += [Broken(7, *said) for said in judge_owners(evidence)]
    return broken


def check_run(config: Any, run: RunEvidence) -> list[Broken]:
    """Return what is not as promised in one run."""
    broken = [Broken(1, run.name, says) for says in _packets(config, run)]
    if run.file is not None:
        broken += [Broken(n, run.name, says) for n, says in judge_images(config, run, run.file)]
    broken += [Broken(4, run.name, says) for says in _counts(run)]
    broken += [Broken(5, run.name, says) for says in _faces(run)]
    broken += [Broken(8, run.name, says) for says in _recovery(config, run)]
    return broken


# ------------------------------------------------------------------ 1: packets


def _packets(config: Any, run: RunEvidence) -> Iterator[str]:
    for when, counters in (("before", run.before), ("after", run.after)):
        if counters is None:
            continue
        kinds = asdict(counters)
        received, _, _ = kinds.pop("received"), kinds.pop("kernel_drops"), kinds.pop("restarts")
        if received != sum(kinds.values()):
            yield f"{when}: {received} packets received, but {sum(kinds.values())} in {kinds}"
    if run.before is None or run.after is None:
        return
    n = {name: count - getattr(run.before, name) for name, count in asdict(run.after).items()}
    if min(n.values()) < 0:
        yield f"a counter went back: {n}"
    if n["restarts"] > 0 and not numbers_fall(config, run):
        yield f"{n['restarts']} restarts are counted, but no port's numbers ever fell"
    explained = n["received"] + n["kernel_drops"]
    if explained > len(run.sent) or (explained < len(run.sent) and not run.receiver_lost):
        yield f"{len(run.sent)} sent, {n['received']} received, {n['kernel_drops']} dropped by the kernel"
    if n["kernel_drops"] == 0 and not run.receiver_lost:
        foreign = sum(sent.is_foreign for sent in run.sent)
        read = units_of(config).heading
        malformed = sum(not sent.is_foreign and read(sent.port, sent.data) is None for sent in run.sent)
        if (n["foreign"], n["malformed"]) != (foreign, malformed):
            yield (
                f"sent {foreign} foreign and {malformed} malformed packets, "
                f"counted {n['foreign']} and {n['malformed']}"
            )


# ------------------------------------------------------------------ 4 and 5: what is said


def _counts(run: RunEvidence) -> Iterator[str]:
    for look in run.looks:
        if look.n_completed > look.n_visible:
            yield f"n_write_completed was {look.n_completed} when a reader saw {look.n_visible} images"
    for face, end in run.ends.items():
        if run.file is None:
            if end.n_completed:
                yield f"{face} counts {end.n_completed} images, and there is no file to read"
            continue
        n = len(run.file.pixels)
        if end.acquisition == "FINISHED" and end.n_completed != n:
            yield f"{face} counts {end.n_completed} images of a finished run, the file has {n}"
        if end.n_completed > n:
            yield f"{face} counts {end.n_completed} images, the file has {n}"
        if run.n_images and n > run.n_images:
            yield f"the file has {n} images, {run.n_images} were asked for"


def _faces(run: RunEvidence) -> Iterator[str]:
    ends = list(run.ends.items())
    for face, end in ends[1:]:
        for name, value in asdict(end).items():
            first = getattr(ends[0][1], name)
            if value != first:
                yield f"{name} is {first!r} in {ends[0][0]} and {value!r} in {face}"
    for face, end in ends:
        if (end.output_file, end.n_images) != (run.output_file, run.n_images):
            yield f"{face} shows {end.output_file} with {end.n_images} images as the last run"
    if run.file is None or not ends:
        return
    face, end = ends[0]
    if (run.file.state, run.file.message) != (end.acquisition, end.message) and end.acquisition == "FINISHED":
        yield f"the file says {run.file.state} {run.file.message!r}, {face} {end.acquisition} {end.message!r}"
    if run.file.state not in ("FINISHED", "FAILED"):
        yield f"the file still says {run.file.state}"
    if end.acquisition == "FAILED" and run.file.state == "FINISHED":
        yield f"the file says FINISHED, {face} FAILED"
    if end.acquisition != "FINISHED":
        return
    for name, count in run.losses.items():
        if run.file.counters[name] != count:
            yield f"{name} is {count} in CA and {run.file.counters[name]} in the file"
    if (n := int(run.file.columns["missing_packets"].sum())) != run.file.counters["missing_packets"]:
        yield f"the images lack {n} packets, the file counts {run.file.counters['missing_packets']}"


# ------------------------------------------------------------------ 8: recovery


def _recovery(config: Any, run: RunEvidence) -> Iterator[str]:
    if run.stop_took_s is not None and run.stop_took_s > STOP_LIMIT_S:
        yield f"Stop took {run.stop_took_s:.1f} s"
    for face, end in run.ends.items():
        if end.state != "READY":
            yield f"{face} shows {end.state} after its end"
    if not run.is_perfect:
        return
    for face, end in run.ends.items():
        if (end.message, end.n_completed) != ("Completed.", run.n_images):
            yield f"{face}: {end.message!r} with {end.n_completed} of {run.n_images} images"
    if run.file is None:
        yield "there is no file"
        return
    frames = [image.frame for image in sendings(config, run).images.values()]
    ids = run.file.columns["image_id"].tolist()
    if config.get("n_udp_ports") == 16:  # even and odd images have ports of their own, each read in turn
        ids.sort()
    if ids != frames:
        yield f"the ids are {ids[:5]} …, sent were {frames[:5]} …"
    if run.file.columns["status"].any() or run.file.columns["missing_packets"].any():
        yield "images lack packets"
    if 2 * np.count_nonzero(run.file.pixels) < run.file.pixels.size:
        yield "more than half of the pixels are 0: images of nothing show nothing"
