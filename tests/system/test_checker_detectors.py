"""The checker judges the images of every detector under torture, whose packets another oracle has cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.oracle.frames import Frame, datagrams, frames_of, image_of
from tests.oracle.units import units_of
from tests.system.checker import check_run
from tests.system.evidence import Counters, End, Images, RunEvidence, Sent
from tests.torture.detector import DETECTORS, GIGAFROST_OTHER_ROWS

N_IMAGES = 4
LOST = 2  # number of the image that lacks packets
KINDS = {f"{d['detector_type']} {d['bit_depth']} bit": d for d in DETECTORS if "n_udp_ports" not in d}
GIGAFROST = KINDS["gigafrost 16 bit"]
SIXTEEN_PORTS = next(d for d in DETECTORS if d.get("n_udp_ports") == 16)
MOENCH = {
    "detector_type": "moench",
    "bit_depth": 16,
    "image_pixel_height": 402,
    "image_pixel_width": 400,
    "module_positions": {"0": [399, 401, 0, 2]},
}
EVERY = KINDS | {"moench": MOENCH, "gigafrost, 16 ports": SIXTEEN_PORTS}
ROWS = 17  # of a full packet of it


def config_of(detector: dict[str, Any]) -> dict[str, Any]:
    return detector | {"module_sync_queue_size": 50, "image_timeout_s": 0.5, "incomplete_images": "write"}


def frames(config: dict[str, Any], per_packet: int | None = None, number: int = 0) -> list[Frame]:
    positions = {int(module): corners for module, corners in config["module_positions"].items()}
    about = {"n_udp_ports": 8, "n_udp_interfaces": 1} | config | {"module_positions": positions}
    return frames_of(SimpleNamespace(**about), number, rows=per_packet)


def bits(config: dict[str, Any]) -> int:
    return 12 if config["detector_type"] == "gigafrost" else int(config["bit_depth"])


def picture(config: dict[str, Any], cut: list[Frame], number: int) -> npt.NDArray[Any]:
    """An image without zeros, but for what no packet has."""
    shape = config["image_pixel_height"], config["image_pixel_width"]
    dtype = np.uint8 if bits(config) <= 8 else np.uint16
    random = np.random.default_rng(number)
    image = np.zeros(shape, dtype)
    for frame in cut:
        image[frame.y, frame.x] = random.integers(1, 2 ** bits(config), len(frame.y), np.uint16)
    return image


Loses = Callable[[int, int, bytes], bytes | None]


def second_packet(port: int, i_packet: int, datagram: bytes) -> bytes | None:
    """Lose the second packet of the first port."""
    return None if (port, i_packet) == (0, 1) else datagram


def nothing(port: int, i_packet: int, datagram: bytes) -> bytes | None:
    return datagram


def run_of(config: dict[str, Any], loses: Loses = second_packet, rows: int | None = None) -> RunEvidence:
    """Return a run of four images, of which the second lacks a packet: all of it as it has to be."""
    sent, images = [], []
    for number in range(1, N_IMAGES + 1):
        cut = frames(config, rows, number)
        image = picture(config, cut, number)
        arrived: list[tuple[Frame, list[bytes | None]]] = []
        for port, frame in enumerate(cut):
            parts: list[bytes | None] = list(datagrams(frame, image, bits(config), number))
            if number == LOST:
                parts = [loses(port, i, part) for i, part in enumerate(parts) if part is not None]
            arrived.append((frame, parts))
            times = 10 + 0.01 * number, 10.01 + 0.01 * number
            sent += [Sent(*times, number, frame.port, False, part) for part in parts if part is not None]
        images.append(image_of(arrived, image.shape, image.dtype, bits(config)))
    n_missing = np.array([0, 1, 0, 0], np.uint32)
    counters = {"missing_packets": 1, "incomplete_images": 1, "dropped_images": 0}
    columns: dict[str, npt.NDArray[Any]] = {
        "image_id": np.arange(1, N_IMAGES + 1, dtype=np.uint64),
        "status": n_missing.astype(np.uint64),
        "missing_packets": n_missing,
        "timestamp": np.full(N_IMAGES, 1e9),
    }
    return RunEvidence(
        name="run",
        output_file="/data/run.h5",
        n_images=N_IMAGES,
        run_id=1,
        ends={"REST": End("READY", "FINISHED", "Completed.", "/data/run.h5", N_IMAGES, N_IMAGES)},
        file=Images(np.array(images), columns, "FINISHED", "Completed.", counters),
        sent=sent,
        armed_s=10.0,
        before=Counters(),
        after=Counters(received=len(sent), placed=len(sent)),
        losses=counters,
    )


def contents(run: RunEvidence) -> Images:
    assert run.file is not None
    return run.file


@pytest.mark.parametrize("kind", EVERY)
def test_a_good_outcome_breaks_nothing(kind: str) -> None:
    config = config_of(EVERY[kind])
    assert check_run(config, run_of(config)) == []


def test_a_gigafrost_may_be_cut_as_other_senders_do() -> None:
    config = config_of(GIGAFROST)
    assert check_run(config, run_of(config, rows=GIGAFROST_OTHER_ROWS)) == []


# ------------------------------------------------------------------ how an outcome can be bad

Bend = Callable[[Images, Frame], None]


def wrong_pixel(file: Images, frame: Frame) -> None:
    file.pixels[0, frame.y[-1], frame.x[-1]] ^= 1


def exchanged_pixels(file: Images, frame: Frame) -> None:
    """Two neighbours have changed places, as when packed pixels are taken in the wrong order."""
    pixels = file.pixels[0]
    (y, x), (_, right) = zip(frame.y[:2], frame.x[:2], strict=True)
    pixels[y, [x, right]] = pixels[y, [right, x]]


def exchanged_images(file: Images, frame: Frame) -> None:
    file.pixels[[0, 2]] = file.pixels[[2, 0]]


def exchanged_ids(file: Images, frame: Frame) -> None:
    file.columns["image_id"][[0, 2]] = file.columns["image_id"][[2, 0]]


def loss_uncounted(file: Images, frame: Frame) -> None:
    file.columns["missing_packets"][LOST - 1] = file.columns["status"][LOST - 1] = 0


def one_too_many_counted(file: Images, frame: Frame) -> None:
    file.columns["missing_packets"][LOST - 1] += 1


def old_pixels_shine_through(file: Images, frame: Frame) -> None:
    lacks = file.pixels[LOST - 1] == 0
    file.pixels[LOST - 1][lacks] = file.pixels[0][lacks]


def packet_left_out(file: Images, frame: Frame) -> None:
    """One that arrived; its image says so."""
    lacks = file.pixels[LOST - 1] == 0
    file.pixels[0][lacks] = 0
    file.columns["missing_packets"][0] = file.columns["status"][0] = 1


BAD: dict[str, tuple[int, Bend, str]] = {
    "a pixel is another": (2, wrong_pixel, "were never sent"),
    "two pixels are exchanged": (2, exchanged_pixels, "were never sent"),
    "two images are exchanged": (2, exchanged_images, "were never sent"),
    "two ids are exchanged": (2, exchanged_ids, "were never sent"),
    "a lost packet is not counted": (3, loss_uncounted, "1 packets are missing, it says 0"),
    "a packet too many is counted": (3, one_too_many_counted, "1 packets are missing, it says 2"),
    "old pixels where some are missing": (3, old_pixels_shine_through, "were never sent"),
    "a packet that arrived is left out": (2, packet_left_out, "1 packets more than are in the file"),
}


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_is_noticed(case: str, kind: str) -> None:
    invariant, bend, says = BAD[case]
    config = config_of(EVERY[kind])
    run = run_of(config)
    bend(contents(run), frames(config)[0])
    broken = check_run(config, run)
    assert any(b.invariant == invariant and says in b.says for b in broken), broken


@pytest.mark.parametrize("kind", EVERY)
def test_an_image_that_is_not_there_or_twice_is_noticed(kind: str) -> None:
    config = config_of(EVERY[kind])
    run = run_of(config)
    for keep, says in (([0, 1, 2], "1 whole images are not in the file"), ([0, 1, 2, 3, 3], "2 times in")):
        file = contents(run)
        columns = {name: values[keep] for name, values in file.columns.items()}
        bent = replace(run, file=replace(file, pixels=file.pixels[keep], columns=columns))
        assert any(b.invariant == 2 and says in b.says for b in check_run(config, bent))


@pytest.mark.parametrize("kind", EVERY)
def test_a_packet_that_no_counter_has_is_noticed(kind: str) -> None:
    config = config_of(EVERY[kind])
    run = run_of(config)
    n = len(run.sent)
    lost = replace(run, after=Counters(received=n - 1, placed=n - 1))
    assert any("received, 0 dropped" in b.says for b in check_run(config, lost) if b.invariant == 1)
    refused = replace(run, after=Counters(received=n, placed=n - 1, malformed=1))
    assert any("counted 0 and 1" in b.says for b in check_run(config, refused) if b.invariant == 1)


# ------------------------------------------------------------------ a GigaFRoST's packets tell their size


SHORT = 32 + 5 * 252 * 3 // 2 + 100  # bytes with 5 of the 17 rows, and a piece of the next


def with_five_rows() -> tuple[RunEvidence, Frame]:
    """Return a run in which that is left of the packet which is else lost, and the frame it is of."""
    config = config_of(GIGAFROST)
    cut = frames(config)
    run, complete = run_of(config), run_of(config, nothing)
    second = second_of(complete)
    sent = [s._replace(data=s.data[:SHORT]) if s == second else s for s in complete.sent]
    rows = slice(ROWS * 252, (ROWS + 5) * 252)
    where = cut[0].y[rows], cut[0].x[rows]
    contents(run).pixels[LOST - 1][where] = picture(config, cut, LOST)[where]
    return replace(run, sent=sent, after=complete.after), cut[0]


def second_of(run: RunEvidence) -> Sent:
    """Return what `second_packet` loses."""
    return [sent for sent in run.sent if (sent.image, sent.port) == (LOST, 0)][1]


def test_of_a_packet_that_was_cut_short_the_whole_rows_have_to_be_there() -> None:
    config = config_of(GIGAFROST)
    run, first = with_five_rows()
    assert check_run(config, run) == []
    y, x = first.y[ROWS * 252], first.x[ROWS * 252]
    contents(run).pixels[LOST - 1, y, x : x + 252] = 0
    says = [b.says for b in check_run(config, run) if b.invariant == 2]
    assert says == [f"image id {LOST} arrived with 1 packets more than are in the file"]


@pytest.mark.parametrize(("n", "is_good"), [(0, False), (1, True), (3, True), (4, False)])
def test_the_rows_that_a_short_packet_lacks_may_be_counted_by_its_own_size(n: int, is_good: bool) -> None:
    """12 rows are missing: one packet of 17, or three of 5 where the receiver believes that one."""
    config = config_of(GIGAFROST)
    run, _ = with_five_rows()
    contents(run).columns["missing_packets"][LOST - 1] = n
    counts = [b for b in check_run(config, run) if b.invariant == 3]
    assert (counts == []) is is_good


def test_of_two_packets_that_begin_with_the_same_row_the_first_counts_whatever_its_size() -> None:
    config = config_of(GIGAFROST)
    run, _ = with_five_rows()
    whole = second_of(run_of(config, nothing))
    place = max(i for i, sent in enumerate(run.sent) if sent.image == LOST)
    sent = [*run.sent[: place + 1], whole, *run.sent[place + 1 :]]
    assert run.after is not None
    after = replace(run.after, received=run.after.received + 1, duplicate=1)
    assert check_run(config, replace(run, sent=sent, after=after)) == []


def test_datagrams_that_are_no_rows_of_this_gigafrost_are_malformed() -> None:
    units = units_of(GIGAFROST)
    whole = second_of(run_of(config_of(GIGAFROST), nothing)).data
    heading = units.heading(3, whole)
    assert heading is not None
    assert (heading.frame, heading.first, heading.numbers) == (LOST, (3, ROWS), range(ROWS, 2 * ROWS))
    bad = (
        whole[: 32 + 377],
        whole[:20],
        b"",
        whole + bytes(7433 - len(whole)),
        b"\xcc" + whole[1:],
        whole[:1] + b"\x14" + whole[2:],
        whole[:14] + (38).to_bytes(2, "little") + whole[16:],
    )
    assert [units.heading(3, data) for data in bad] == [None] * len(bad)


def test_the_second_of_two_packets_counts_only_where_the_kernel_may_have_dropped_the_first() -> None:
    config = config_of(GIGAFROST)
    run = complete_run(config)
    genuine = run.sent[0]
    other = genuine._replace(data=genuine.data[:-50] + bytes(50))
    assert run.after is not None
    n = len(run.sent)
    dropped = replace(run, sent=[other, *run.sent], after=Counters(received=n, placed=n, kernel_drops=1))
    assert check_run(config, dropped) == []
    taken = replace(dropped, after=Counters(received=n + 1, placed=n, duplicate=1))
    assert any("is not the first that was sent" in b.says for b in check_run(config, taken))


# ------------------------------------------------------------------ with 16 ports each link has two


def complete_run(config: dict[str, Any]) -> RunEvidence:
    run = run_of(config, nothing)
    file, counts = contents(run), dict.fromkeys(contents(run).counters, 0)
    file.columns["missing_packets"][:] = file.columns["status"][:] = 0
    return replace(run, file=replace(file, counters=counts), losses=counts)


def test_which_of_two_ports_was_read_first_is_not_asked() -> None:
    config = config_of(SIXTEEN_PORTS)
    complete = complete_run(config)
    assert check_run(config, complete) == []
    genuine = complete.sent[0]
    rival = genuine._replace(port=(genuine.port + 8) % 16, data=genuine.data[:-50] + bytes(50))
    assert complete.after is not None
    n = len(complete.sent) + 1
    raced = replace(complete, sent=[rival, *complete.sent], after=Counters(received=n, placed=n))
    assert check_run(config, raced) == []
    same_port = replace(raced, sent=[rival._replace(port=genuine.port), *complete.sent])
    assert any("is not the first that was sent" in b.says for b in check_run(config, same_port))


def test_even_and_odd_images_of_two_sets_of_ports_may_overtake_each_other_but_none_may_lack() -> None:
    config = config_of(SIXTEEN_PORTS)
    complete = complete_run(config)
    order, file = [1, 3, 0, 2], contents(complete)
    columns = {name: values[order] for name, values in file.columns.items()}
    file = replace(file, pixels=file.pixels[order], columns=columns)
    mixed = replace(complete, file=file, is_perfect=True)
    assert check_run(config, mixed) == []
    assert any("the ids are" in b.says for b in check_run(config | {"n_udp_ports": 8}, mixed))
