"""The checker is content with a good outcome, and notices each way in which one can be bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.oracle.packets import datagram
from tests.system.checker import INVARIANTS, check
from tests.system.evidence import Counters, Evidence, Images, Look, Owned
from tests.system.good_evidence import (
    CONFIG,
    OWNER,
    good,
    images_of,
    packets,
    record,
    replace_packet,
)


def test_a_good_outcome_breaks_nothing() -> None:
    assert check(good()) == []


# ------------------------------------------------------------------ how an outcome can be bad


def of_run(i: int, **changes: Any) -> Callable[[Evidence], Evidence]:
    def bend(evidence: Evidence) -> Evidence:
        runs = list(evidence.runs)
        runs[i] = replace(runs[i], **changes)
        return replace(evidence, runs=runs)

    return bend


def of_face(face: str, **changes: Any) -> Callable[[Evidence], Evidence]:
    def bend(evidence: Evidence) -> Evidence:
        ends = dict(evidence.runs[0].ends)
        ends[face] = replace(ends[face], **changes)
        return of_run(0, ends=ends)(evidence)

    return bend


def of_file(change: Callable[[Images], Images], i: int = 0) -> Callable[[Evidence], Evidence]:
    def bend(evidence: Evidence) -> Evidence:
        file = evidence.runs[i].file
        assert file is not None
        copied = replace(
            file, pixels=file.pixels.copy(), columns={k: v.copy() for k, v in file.columns.items()}
        )
        return of_run(i, file=change(copied))(evidence)

    return bend


def pixel(row: int, y: int, value: int) -> Callable[[Images], Images]:
    def change(file: Images) -> Images:
        file.pixels[row, y, 17] = value
        return file

    return change


def column(name: str, row: int, value: int) -> Callable[[Images], Images]:
    def change(file: Images) -> Images:
        file.columns[name][row] = value
        return file

    return change


def rows(keep: list[int]) -> Callable[[Images], Images]:
    """Keep only some images, or some of them twice."""

    def change(file: Images) -> Images:
        columns = {name: values[keep] for name, values in file.columns.items()}
        return replace(file, pixels=file.pixels[keep], columns=columns)

    return change


def without_a_packet(file: Images) -> Images:
    """A packet that arrived is left out of the first image, and that is admitted everywhere."""
    file.pixels[0, 0:4] = 0
    file.columns["missing_packets"][0] = file.columns["status"][0] = 1
    return replace(file, counters={**file.counters, "missing_packets": 2, "incomplete_images": 2})


def old_pixels(file: Images) -> Images:
    """Where a packet is missing are the pixels of the image before."""
    file.pixels[2, 14:18] = file.pixels[1, 14:18]
    return file


def silently_filled(file: Images) -> Images:
    return column("status", 2, 0)(column("missing_packets", 2, 0)(old_pixels(file)))


def dark(file: Images) -> Images:
    return replace(file, pixels=np.zeros_like(file.pixels))


def shorter_column(file: Images) -> Images:
    return replace(file, columns={**file.columns, "status": file.columns["status"][:-1]})


def dropped(file_rows: list[int]) -> Callable[[Evidence], Evidence]:
    """Two images are not in the file of a run that was stopped; one of them is counted."""

    def bend(evidence: Evidence) -> Evidence:
        bent = of_file(rows(file_rows))(evidence)
        file = bent.runs[0].file
        assert file is not None
        counters = {"missing_packets": 1, "incomplete_images": 1, "dropped_images": 1}
        file = replace(file, message="Interrupted.", counters=counters)
        ends = {f: replace(e, message="Interrupted.", n_completed=3) for f, e in bent.runs[0].ends.items()}
        journal = [
            bent.journal[0] | {"message": "Interrupted.", "n_write_completed": 3},
            *bent.journal[1:],
        ]
        return replace(of_run(0, file=file, ends=ends, losses=counters)(bent), journal=journal)

    return bend


def journal(change: Callable[[list[Any]], list[Any]]) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, journal=change(list(evidence.journal)))


def counted(**changes: int) -> Callable[[Evidence], Evidence]:
    def bend(evidence: Evidence) -> Evidence:
        after = evidence.runs[0].after
        assert after is not None
        return of_run(0, after=replace(after, **changes))(evidence)

    return bend


def owned(**changes: Any) -> Callable[[Evidence], Evidence]:
    def bend(evidence: Evidence) -> Evidence:
        return replace(evidence, files=[replace(evidence.files[0], **changes), evidence.files[1]])

    return bend


BAD: dict[str, tuple[int, Callable[[Evidence], Evidence], str]] = {
    "a packet in no counter": (1, counted(placed=25), "26 packets received, but 25 in"),
    "a packet that nobody knows of": (1, counted(received=25, placed=25), "19 sent, 18 received, 0 dropped"),
    "more packets than were sent": (1, counted(received=27, placed=27), "19 sent, 20 received"),
    "a counter that goes back": (1, counted(placed=20, late=6, received=6), "went back"),
    "a good packet called malformed": (1, counted(placed=25, malformed=1), "counted 0 and 1"),
    "a pixel is another": (2, of_file(pixel(1, 3, 5)), "were never sent"),
    "a pixel between the modules": (2, of_file(pixel(1, 8, 5)), "between the modules are not 0"),
    "an image is missing": (2, dropped([0, 1, 2]), "whole images are not in the file"),
    "an image is there twice": (2, of_file(rows([0, 1, 2, 3, 3])), "times in the file"),
    "another id": (2, of_file(column("image_id", 1, 4)), "id 4"),
    "a packet that arrived is left out": (
        2,
        of_file(without_a_packet),
        "1 packets more than are in the file",
    ),
    "old pixels where some are missing": (3, of_file(old_pixels), "were never sent"),
    "silently filled": (3, of_file(silently_filled), "were never sent"),
    "missing packets uncounted": (
        3,
        of_file(column("missing_packets", 2, 0)),
        "1 packets are missing, it says 0",
    ),
    "incomplete, and called good": (3, of_file(column("status", 2, 0)), "status 0 with 1 packets missing"),
    "good, and called incomplete": (3, of_file(column("status", 1, 1)), "status 1 with 0 packets missing"),
    "datasets of different length": (4, of_file(shorter_column), "different lengths"),
    "a count ahead of the reader": (4, of_run(0, looks=[Look(3, 2)]), "was 3 when a reader saw 2"),
    "a count above the file's": (4, of_face("CA", n_completed=6), "CA counts 6 images"),
    "a finished run counts less than the file": (4, of_face("REST", n_completed=4), "the file has 5"),
    "counted, and no file": (4, of_run(0, file=None), "there is no file to read"),
    "a face says another count": (
        5,
        of_face("Redis", n_completed=4),
        "n_completed is 5 in REST and 4 in Redis",
    ),
    "a face says another message": (
        5,
        of_face("CA", message="Interrupted."),
        "message is 'Completed.' in REST",
    ),
    "a face says other losses": (5, of_face("Redis", n_dropped=9), "n_dropped is 0 in REST and 9 in Redis"),
    "the file says another end": (5, of_file(lambda f: replace(f, message="Interrupted.")), "the file says"),
    "the file is never finished": (5, of_file(lambda f: replace(f, state="WRITING")), "still says WRITING"),
    "CA and file count losses differently": (
        5,
        of_run(0, losses={"missing_packets": 2, "incomplete_images": 1, "dropped_images": 0}),
        "missing_packets is 2 in CA and 1 in the file",
    ),
    "the status is of another run": (5, of_run(0, output_file="/data/other.h5"), "as the last run"),
    "no record": (6, journal(lambda runs: runs[1:]), "0 records in the journal"),
    "two records": (6, journal(lambda runs: [runs[0], *runs]), "2 records in the journal"),
    "a record of nothing": (6, journal(lambda runs: [*runs, record("/data/x.h5", 9)]), "was never accepted"),
    "a record says another count": (
        6,
        journal(lambda runs: [runs[0] | {"n_write_completed": 4}, runs[1]]),
        "FINISHED as 'Completed.', not 'Interrupted.'",
    ),
    "a record without an end": (
        6,
        journal(lambda r: [r[0] | {"state": "WRITING"}, r[1]]),
        "a run in WRITING",
    ),
    "failed without a reason": (6, journal(lambda r: [r[0] | {"state": "FAILED"}, r[1]]), "FAILED as"),
    "a log that lacks a run": (6, lambda e: replace(e, logs=e.logs[1:]), "is not the journal's"),
    "a log in Redis that has one twice": (
        6,
        lambda e: replace(e, redis_log=[*(e.redis_log or []), e.logs[0]]),
        "is not the journal's",
    ),
    "root's file": (7, owned(uid=0), "belongs to user 0, not 1000"),
    "a finished file is altered": (7, owned(digest="zz"), "it was altered"),
    "a finished file is gone": (7, lambda e: replace(e, files=e.files[1:]), "or is gone"),
    "a file of a refused request": (
        7,
        lambda e: replace(e, files=[*e.files, Owned("/data/refused.h5", OWNER, "dd")]),
        "of a request that was refused",
    ),
    "something outside is altered": (
        7,
        lambda e: replace(e, outside_after=[replace(e.outside_before[0], digest="dd")]),
        "outside of the allowed root: it was altered",
    ),
    "something is made outside": (
        7,
        lambda e: replace(e, outside_after=[*e.outside_before, Owned("/elsewhere/new", OWNER, "ee")]),
        "it was made there",
    ),
    "a restart is counted that was none": (
        1,
        lambda e: of_run(0, after=replace(e.runs[0].after, restarts=1))(e),
        "1 restarts are counted, but no port's numbers ever fell",
    ),
    "Stop takes long": (8, of_run(0, stop_took_s=6.0), "Stop took 6.0 s"),
    "not ready afterwards": (8, of_face("CA", state="UNKNOWN"), "CA shows UNKNOWN"),
    "the next run lacks an image": (8, of_file(rows([0, 1, 2]), 1), "the ids are"),
    "the next run lacks a packet": (8, of_file(column("missing_packets", 0, 1), 1), "images lack packets"),
    "the next run shows nothing": (8, of_file(dark, 1), "more than half of the pixels are 0"),
    "the next run has no file": (8, of_run(1, file=None), "there is no file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_outcome_is_noticed(case: str) -> None:
    invariant, bend, says = BAD[case]
    broken = check(bend(good()))
    of_invariant = [str(b) for b in broken if b.invariant == invariant]
    assert any(says in text for text in of_invariant), broken


def test_every_invariant_has_a_way_to_be_broken() -> None:
    assert {invariant for invariant, _, _ in BAD.values()} == set(INVARIANTS)


def test_drops_that_are_counted_are_no_violation() -> None:
    """The kernel dropped a packet, and the image says so."""
    bend = of_file(without_a_packet)
    evidence = bend(good())
    file = evidence.runs[0].file
    assert file is not None
    after = Counters(received=25, placed=25, kernel_drops=1)
    evidence = of_run(0, after=after, losses=file.counters)(evidence)
    assert check(evidence) == []


def test_a_lost_receiver_explains_what_is_missing_but_no_false_pixel() -> None:
    evidence = of_run(0, receiver_lost=True, after=Counters(received=10, placed=10))(good())
    evidence = of_file(without_a_packet)(evidence)
    file = evidence.runs[0].file
    assert file is not None
    evidence = of_run(0, losses=file.counters)(evidence)
    assert check(evidence) == []
    assert check(of_file(pixel(1, 3, 5))(evidence))


def test_a_frame_number_that_is_sent_again_after_the_run_does_not_make_it_longer() -> None:
    """The run had its images by then; those sent in between are not missing in it."""
    evidence = good()
    run = evidence.runs[0]
    of_first = [packet for packet in run.sent if packet.image == 1]
    frames = [*range(100, 105 + CONFIG["module_sync_queue_size"]), 1]
    later = [
        packet._replace(image=100 + i, data=frame.to_bytes(8, "little") + packet.data[8:])
        for i, frame in enumerate(frames)
        for packet in of_first
    ]
    n_packets = 7 + len(run.sent) + len(later)
    after = Counters(received=n_packets, placed=n_packets)
    assert check(of_run(0, sent=[*run.sent, *later], after=after)(evidence)) == []


def with_proof(status: int) -> Evidence:
    """A packet that the config does not have goes out at the end of image 2, whose row has that status."""
    evidence = of_file(column("status", 1, status))(good())
    run = evidence.runs[0]
    end = max(i for i, packet in enumerate(run.sent) if packet.image == 2) + 1
    proof = run.sent[end - 1]._replace(data=datagram(2, 65, bytes(8192)))
    sent = [*run.sent[:end], proof, *run.sent[end:]]
    after = Counters(received=8 + len(run.sent), placed=7 + len(run.sent), malformed=1)
    return of_run(0, sent=sent, after=after)(evidence)


def test_an_image_of_another_format_may_not_be_called_good() -> None:
    assert check(with_proof(3)) == []
    assert {broken.invariant for broken in check(with_proof(0))} == {2}


def test_an_image_may_not_be_called_another_format_without_a_proof() -> None:
    assert {broken.invariant for broken in check(of_file(column("status", 1, 3))(good()))} == {3}


def with_a_stray_packet(evidence: Evidence) -> Evidence:
    """Let a packet go out once more under a far number, and be counted as late."""
    run = evidence.runs[0]
    sent = list(run.sent)
    sent.insert(6, replace_packet(sent[5], image=7000)._replace(image=sent[5].image))
    assert run.after is not None
    after = replace(run.after, received=run.after.received + 1, late=1)
    return of_run(0, sent=sent, after=after)(evidence)


def test_a_stray_packet_is_no_image_that_has_to_be_there() -> None:
    assert check(with_a_stray_packet(good())) == []


def test_a_stray_packet_in_the_file_is_noticed() -> None:
    broken = check(of_file(column("image_id", 2, 7000))(with_a_stray_packet(good())))
    assert any("only a stray packet had that number" in str(said) for said in broken)


def armed_again() -> Evidence:
    """Let the numbers begin anew with the fourth image, after a pause; nothing is lost."""
    evidence = good()
    run = evidence.runs[0]
    sent = packets(lost=(0, 0, 0))
    file = images_of(sent)
    file.columns["image_id"][:] = [1, 2, 3, 1, 2]
    renumbered = [
        replace_packet(p, image=(p.image - 1) % 3 + 1)._replace(
            image=p.image, from_s=p.from_s + 0.1 * (p.image > 3), until_s=p.until_s + 0.1 * (p.image > 3)
        )
        for p in sent
    ]
    none = dict.fromkeys(file.counters, 0)
    n = 7 + len(sent)
    return of_run(
        0,
        sent=renumbered,
        file=replace(file, counters=none),
        losses=none,
        n_images=0,
        after=Counters(received=n, placed=n, restarts=1),
        ends={face: replace(end, n_images=0) for face, end in run.ends.items()},
    )(evidence)


def test_images_of_a_detector_that_is_armed_again_are_looked_for_in_each_arm() -> None:
    evidence = armed_again()
    said = [b for b in check(evidence) if b.run == "tortured"]
    assert said == []
    bent = of_file(rows([0, 1, 2, 4]))(evidence)
    assert any("armed again 1 times: 1 images lack, one of id 1" in str(b) for b in check(bent))
