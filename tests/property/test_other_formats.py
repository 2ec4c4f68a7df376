"""A packet that the config does not have shows, whenever it comes, that its frame has another format."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from daq_core.assembling.local import REMEMBERED_PROOFS
from daq_core.assembling.verdicts import GRACE_NS
from daq_core.config import DaqConfig
from daq_core.detectors import Layout, format_of, layout_of
from daq_core.detectors.eiger import PIXEL_TYPES
from daq_core.receiving.strangers import sentences
from daq_core.ring.ring import GOOD, MISSING_PACKETS, OTHER_FORMAT
from daq_core.ring.words import Word
from daq_core.writing.late_verdicts import LateVerdicts
from tests.assembly.assembler import Assembler
from tests.assembly.assembly_bench import Bench, sent
from tests.daq.loopback import eiger, jungfrau
from tests.machine.judges import absent
from tests.oracle.packets import datagram
from tests.unit.test_replay import SHARED

FRAME = 7
MOENCH = DaqConfig.parse(
    {
        "detector_name": "M",
        "detector_type": "moench",
        "bit_depth": 16,
        "image_pixel_height": 400,
        "image_pixel_width": 400,
        "n_modules": 1,
        "start_udp_port": 50000,
        "writer_user_id": 0,
        "module_positions": {"0": [0, 0, 399, 399]},
    }
)


def proof(frame: int, number: int = 65) -> bytes:
    """Return a packet of a Jungfrau that reads more than 8 rows, whose packets are 63 and 64."""
    return datagram(frame, number, bytes(8192))


def said(bench: Any) -> list[str]:
    return list(sentences(bench.config, layout_of(bench.config), bench.assembler.ring))


# ------------------------------------------------------------------ when the proof comes


def test_a_proof_that_comes_while_the_image_is_open_makes_it_not_good() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(FRAME, 0)
    bench.assembler.receive(0, [proof(FRAME)])
    bench.receive(FRAME, 1)
    assert bench.assembler.slot(0).status == OTHER_FORMAT
    assert bench.assembler.count("RUN_KEPT", "RUN_OTHER_FORMAT", "RUN_NOT_GOOD", "RUN_MISSING") == {
        "RUN_KEPT": 1,
        "RUN_OTHER_FORMAT": 1,
        "RUN_NOT_GOOD": 1,
        "RUN_MISSING": 0,
    }


def test_a_proof_that_comes_after_the_image_was_published_changes_its_status_and_is_put_down() -> None:
    bench = Bench()
    bench.assembler.arm()
    verdicts = LateVerdicts(bench.assembler.ring)
    for frame in (6, 7, 8):
        bench.receive(frame)
    verdicts.note(np.array([0, 1, 2]), 0)
    for number in (65, 66, 127):
        bench.assembler.receive(0, [proof(FRAME, number)])
    assert [int(bench.assembler.slot(s).status) for s in range(3)] == [GOOD, OTHER_FORMAT, GOOD]
    assert bench.words[Word.RUN_OTHER_FORMAT] == bench.words[Word.RUN_NOT_GOOD] == 1
    assert verdicts.rows().tolist() == [1]
    assert verdicts.rows().tolist() == []


def test_a_proof_that_comes_before_all_other_packets_is_kept_in_mind() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.assembler.receive(0, [proof(FRAME)])
    bench.receive(FRAME)
    bench.receive(FRAME + 1)
    assert [int(bench.assembler.slot(s).status) for s in range(2)] == [OTHER_FORMAT, GOOD]
    assert bench.words[Word.RUN_OTHER_FORMAT] == 1


def test_a_frame_without_a_packet_of_the_config_is_no_image_but_is_said() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.assembler.receive(0, [proof(FRAME, number) for number in range(65, 128)])
    assert bench.words[Word.OPENED] == 0
    assert bench.words[Word.MALFORMED] == 63
    (sentence,) = said(bench)
    assert "UDP port 50000, module 0: packet 127" in sentence


def test_an_image_that_lacks_packets_too_says_that_its_format_is_another() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(FRAME, 0)
    bench.assembler.receive(0, [proof(FRAME)])
    bench.turn(1.0)
    slot = bench.assembler.slot(0)
    assert (slot.status, slot.n_missing) == (OTHER_FORMAT, 1)
    assert bench.words[Word.RUN_INCOMPLETE] == bench.words[Word.RUN_NOT_GOOD] == 1


def test_a_proof_for_an_image_that_lacked_packets_counts_it_once_as_not_good() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(FRAME, 0)
    bench.turn(1.0)
    assert bench.assembler.slot(0).status == MISSING_PACKETS
    bench.assembler.receive(0, [proof(FRAME)])
    assert bench.assembler.slot(0).status == OTHER_FORMAT
    assert bench.words[Word.RUN_OTHER_FORMAT] == bench.words[Word.RUN_NOT_GOOD] == 1


def test_more_early_proofs_than_can_be_kept_in_mind_are_counted_and_told() -> None:
    bench = Bench()
    bench.assembler.arm()
    for frame in range(REMEMBERED_PROOFS + 2):
        bench.assembler.receive(0, [proof(frame)])
    assert bench.words[Word.RUN_FORGOTTEN] == 2
    assert said(bench)[1].startswith("2 packets that the config's frames do not have")
    bench.receive(REMEMBERED_PROOFS + 1)
    assert bench.assembler.slot(0).status == OTHER_FORMAT


def test_a_proof_is_of_the_image_in_the_arm_of_its_port() -> None:
    """Module 0 was armed again, module 1 is still at the image of that number before: this is not good."""
    two = {"image_pixel_height": 16, "n_modules": 2}
    bench = Bench(**two, module_positions={"0": [0, 0, 1023, 7], "1": [0, 8, 1023, 15]})
    bench.assembler.arm()

    def receive(module: int, frame: int, ms: int) -> None:
        datagrams = [sent(bench.config, frame, module, nth) for nth in (0, 1)]
        bench.assembler.receive(module, datagrams, ms * 10**6)

    for module, frame, ms in ((0, 6, 0), (1, 6, 0), (0, FRAME, 1), (0, FRAME, 101), (1, FRAME, 102)):
        receive(module, frame, ms)
    bench.assembler.receive(1, [proof(FRAME)], 102 * 10**6)
    receive(1, FRAME, 202)
    bench.turn(0.202)
    slots = [bench.assembler.slot(s) for s in range(3)]
    assert [(int(s.frame), int(s.n_missing), int(s.status)) for s in slots] == [
        (6, 0, GOOD),
        (FRAME, 0, OTHER_FORMAT),
        (FRAME, 0, GOOD),
    ]
    assert bench.words[Word.RUN_OTHER_FORMAT] == 1


def test_an_early_proof_is_of_no_image_that_was_open_before() -> None:
    """The detector was armed again while image 5 still waited for a packet; the proof is of the next."""
    bench = Bench()
    bench.assembler.arm()
    for frame in (4, 5):
        bench.assembler.receive(0, [sent(bench.config, frame, 0, nth) for nth in (0, 1)[: 6 - frame]])
    for frame in (3, 4):
        bench.receive(frame, now=0.1)
    bench.assembler.receive(0, [proof(5)], 10**8)
    bench.receive(5, now=0.1)
    bench.turn(0.6)
    slots = [bench.assembler.slot(s) for s in range(5)]
    assert [(int(s.frame), int(s.status)) for s in slots] == [
        (4, GOOD),
        (5, MISSING_PACKETS),
        (3, GOOD),
        (4, GOOD),
        (5, OTHER_FORMAT),
    ]


def test_images_of_the_next_run_are_good_again() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(FRAME)
    bench.assembler.receive(0, [proof(FRAME)])
    bench.assembler.disarm()
    bench.assembler.end_writer()
    bench.assembler.arm()
    bench.receive(FRAME)
    assert bench.assembler.slot(1).status == GOOD
    assert bench.words[Word.RUN_OTHER_FORMAT] == bench.words[Word.RUN_NOT_GOOD] == 0
    assert said(bench) == []


# ------------------------------------------------------------------ headers


@pytest.mark.parametrize(
    ("kind", "version", "sentence"),
    [
        (3, 2, ""),
        (0, 2, ""),
        (3, 0, ""),
        (0, 0, ""),
        (1, 2, "detector type 1 (Eiger) in the header, of jungfrau it is 3"),
        (77, 0, "detector type 77 (unknown) in the header, of jungfrau it is 3"),
        (3, 1, "header version 1, only 2 is known"),
        (3, 3, "header version 3, only 2 is known"),
    ],
)
def test_a_header_of_another_detector_or_version_is_malformed_and_named(
    kind: int, version: int, sentence: str
) -> None:
    """A sender that leaves them at 0 says nothing wrong."""
    bench = Bench()
    for nth in range(2):
        one = bytearray(sent(bench.config, FRAME, 0, nth))
        one[46:48] = kind, version
        bench.assembler.receive(0, [bytes(one)])
    bench.assembler.publish_ready()
    assert bench.published() == ([] if sentence else [FRAME])
    assert bench.words[Word.MALFORMED] == (2 if sentence else 0)
    assert len(said(bench)) == bool(sentence)
    if sentence:
        assert f"UDP port 50000, module 0: {sentence}" in said(bench)[0]


@pytest.mark.parametrize(
    ("name", "config", "number"),
    [
        ("eiger", eiger(16, start_udp_port=50000), 1),
        ("jungfrau", jungfrau(rows=64, start_udp_port=50000), 3),
        ("moench", MOENCH, 5),
    ],
)
def test_each_detector_knows_its_own_header_and_names_anothers(
    name: str, config: DaqConfig, number: int
) -> None:
    """Of those whose packets have one header; each is sent by all others here."""
    for kind, whose in ((1, "Eiger"), (3, "Jungfrau"), (5, "Moench")):
        assembler = Assembler(config, 8)
        assembler.arm()
        ((*datagrams,),) = datagrams_of(config, FRAME)
        assembler.receive(0, [one[:46] + bytes((kind, 2)) + one[48:] for one in datagrams])
        assembler.publish_ready()
        told = list(sentences(config, assembler.layout, assembler.ring))
        if kind == number:
            assert (told, assembler.slot(0).status) == ([], GOOD)
        else:
            (sentence,) = told
            assert f"detector type {kind} ({whose}) in the header, of {name} it is {number}" in sentence
            assert assembler.words[Word.OPENED] == 0


def test_a_jungfrau_of_more_rows_than_the_configs_is_named_with_the_likely_cause() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(FRAME)
    bench.assembler.receive(0, [proof(FRAME)])
    (sentence,) = said(bench)
    assert "packet 65, a frame is of 2 packets from 63 to 64 here" in sentence
    assert "does the detector read more rows? Such images get status 3" in sentence


def test_a_packet_of_another_detector_proves_nothing_of_the_frame_with_its_number() -> None:
    bench = Bench()
    one = bytearray(proof(FRAME))
    one[46] = 1
    bench.receive(FRAME)
    bench.assembler.receive(0, [bytes(one)])
    assert bench.assembler.slot(0).status == GOOD


# ------------------------------------------------------------------ Eiger's bit depths

DEPTHS = sorted(PIXEL_TYPES)


def datagrams_of(config: DaqConfig, frame: int) -> list[list[bytes]]:
    """Return what each port of a detector sends of an image without dark pixels."""
    layout: Layout = layout_of(config)
    image = np.ones(layout.image_shape, layout.dtype)
    return [[bytes(one) for one in port] for port in format_of(config).pack(image, layout, frame)]


@pytest.mark.parametrize(("daq", "detector"), list(itertools.permutations(DEPTHS, 2)))
def test_no_image_of_an_eiger_at_another_depth_is_good(daq: int, detector: int) -> None:
    """Of one that sends more the format is seen; one that sends less always lacks packets."""
    config = eiger(daq, 2, start_udp_port=50000)
    assembler = Assembler(config, 8)
    assembler.arm()
    for frame in (1, 2):
        for port, datagrams in enumerate(datagrams_of(config.merge({"bit_depth": detector}), frame)):
            assembler.receive_at(port, datagrams)
    assembler.publish_ready(10**10)
    expected = OTHER_FORMAT if detector > daq else MISSING_PACKETS
    assert [int(assembler.slot(s).status) for s in assembler.run_images()] == [expected] * 2
    told = list(sentences(config, assembler.layout, assembler.ring))
    if detector > daq:
        n_sent, n = 4 * detector, 4 * daq
        (sentence,) = told
        assert sentence == (
            f"UDP port 50000, module 0: packet {n_sent - 1}, a {daq}-bit frame has {n}: is the detector at "
            f"{detector} bit? Such images get status 3; 1 more port alike"
        )
    else:
        assert told == []


@pytest.mark.parametrize(
    ("name", "depth", "is_good"),
    [
        ("eiger-500k-32bit", 32, True),
        ("eiger-500k-32bit", 16, False),
        ("eiger-500k-32bit", 12, False),
        ("eiger-500k-16bit", 16, True),
        ("eiger-500k-16bit", 12, False),
        ("eiger-500k-16bit", 8, False),
        ("jungfrau-1-module", 16, True),
    ],
)
def test_a_recording_is_good_under_its_own_config_alone(name: str, depth: int, is_good: bool) -> None:
    if not (SHARED / name).exists():
        absent("recordings", f"{name} is not there")
    config = DaqConfig.load(SHARED / name / "config.json").merge({"bit_depth": depth})
    assembler = Assembler(config, 8)
    assembler.arm()
    for port, udp_port in enumerate(assembler.layout.udp_ports):
        recorded, datagrams = (SHARED / name / f"{udp_port}.dat").read_bytes(), []
        while recorded:
            end = 8 + int.from_bytes(recorded[:8], "little")
            datagrams.append(recorded[8:end])
            recorded = recorded[end:]
        assembler.receive_at(port, datagrams)
    assembler.publish_ready(10**10)
    status = {int(assembler.slot(s).status) for s in assembler.run_images()}
    assert status == {GOOD if is_good else OTHER_FORMAT}
    assert (assembler.words[Word.MALFORMED] == 0) == is_good


# ------------------------------------------------------------------ when a run may be closed


def two_modules() -> Bench:
    positions = {"0": [0, 0, 1023, 7], "1": [0, 8, 1023, 15]}
    return Bench(n_modules=2, module_positions=positions, image_pixel_height=16)


def packets_of(bench: Bench, frame: int, module: int) -> list[bytes]:
    return [sent(bench.config, frame, module, nth) for nth in range(2)]


def test_a_run_is_judged_when_every_port_has_shown_a_later_image() -> None:
    bench = two_modules()
    assembler = bench.assembler
    assembler.arm(1)
    for module in range(2):
        assembler.receive(module, packets_of(bench, 1, module), 0)
    assembler.publish_ready(0)
    assert not assembler.read_to_its_end(0, packets_of(bench, 2, 0), 1)
    assert not assembler.read_to_its_end(1, [proof(1, 70)], 2)
    assert assembler.read_to_its_end(1, packets_of(bench, 2, 1), 3)
    assert assembler.slot(0).status == OTHER_FORMAT


def test_a_run_is_judged_when_its_ports_are_read_and_the_time_is_over() -> None:
    bench = two_modules()
    assembler = bench.assembler
    assembler.arm(1)
    for module in range(2):
        assembler.receive(module, packets_of(bench, 1, module), 5)
    assembler.publish_ready(5)
    assert not assembler.read_to_its_end(0, [], 5 + GRACE_NS - 1)
    assert not assembler.read_to_its_end(1, [], 5 + GRACE_NS)
    assert assembler.read_to_its_end(0, [], 5 + GRACE_NS)


def test_a_stop_long_after_the_last_image_waits_for_nothing() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(1)
    bench.assembler.disarm()
    assert bench.assembler.read_to_its_end(0, [], 10 * GRACE_NS)
