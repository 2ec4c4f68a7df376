"""Judges the journal and the logs against what was accepted, and files by their owner: invariants 6, 7."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.system.evidence import Evidence, Owned


def judge_records(evidence: Evidence) -> Iterator[tuple[str, str]]:
    of_file: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for entry in evidence.journal:
        of_file[entry["request"]["output_file"], entry["request"]["run_id"]].append(entry)
    for key in evidence.accepted:
        records = of_file.pop(key, [])
        if len(records) != 1:
            yield key[0], f"{len(records)} records in the journal, not one"
        for record in records:
            if problem := _unlikely(record):
                yield key[0], problem
    for path, run_id in of_file:
        yield path, f"run {run_id} is in the journal, and was never accepted"
    finished = [entry["request"]["run_id"] for entry in evidence.journal if entry["state"] == "FINISHED"]
    newest_first = [entry["info"]["run_id"] for entry in evidence.logs]
    if newest_first != finished[::-1][: len(newest_first)]:
        yield "REST", f"its log {newest_first[:5]} … is not the journal's {finished[::-1][:5]} …"
    if evidence.redis_log is not None:
        logged = [entry["info"]["run_id"] for entry in evidence.redis_log]
        if logged != finished[len(finished) - len(logged) :]:
            yield "Redis", f"daq:log {logged[-5:]} is not the journal's {finished[-5:]}"
    for run in evidence.runs:
        ended = [e for e in evidence.journal if e["request"]["run_id"] == run.run_id]
        for face, end in run.ends.items():
            for entry in ended:
                said = (entry["state"], entry["message"], entry["n_write_completed"])
                if said != (end.acquisition, end.message, end.n_completed):
                    yield run.name, f"the journal says {said}, {face} {end}"


def _unlikely(record: Any) -> str:
    """Return what is wrong with how a run ended by its record."""
    state, message, request = record["state"], record["message"], record["request"]
    is_complete = record["n_write_completed"] == request["n_images"] > 0
    match state:
        case "FINISHED":
            expected = "Completed." if is_complete else "Interrupted."
            return "" if message == expected else f"FINISHED as {message!r}, not {expected!r}"
        case "FAILED":
            return "" if message.startswith("ERROR: ") else f"FAILED as {message!r}"
    return f"the journal has a run in {state}"


def judge_owners(evidence: Evidence) -> Iterator[tuple[str, str]]:
    wanted = {path for path, _ in evidence.accepted} | set(evidence.parts)
    for owned in evidence.files:
        if owned.uid != evidence.owner:
            yield owned.path, f"belongs to user {owned.uid}, not {evidence.owner}"
        if owned.path not in wanted:
            reason = "of a request that was refused" if owned.path in evidence.refused else "nobody asked for"
            yield owned.path, f"a file {reason}"
    yield from _changed(evidence.outside_before, evidence.outside_after, "outside of the allowed root")
    yield from _changed(evidence.finished, evidence.files, "a finished file")


def _changed(before: Any, after: Any, what: str) -> Iterator[tuple[str, str]]:
    now: dict[str, Owned] = {owned.path: owned for owned in after}
    for owned in before:
        if now.get(owned.path) != owned:
            yield owned.path, f"{what}: it was altered, or is gone"
    if what.startswith("outside"):
        for path in now.keys() - {owned.path for owned in before}:
            yield path, f"{what}: it was made there"
