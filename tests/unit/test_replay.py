"""Recordings are made, opened and sent again exactly to the bit, and damaged ones say what is wrong."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.errors import InvalidConfig, InvalidRequest, Unavailable
from daq_core.recordings import recorder as record_module
from daq_core.recordings.recorder import RecordReport, record
from daq_core.recordings.recording import Recording, load_recording
from daq_core.recordings.replay import frame_ends, replay
from daq_core.simulating.simulator import Simulator
from ioc.program.ports import free_ports
from tests.daq.small_jungfrau import small_jungfrau
from tests.machine.judges import absent

SHARED = Path(__file__).parents[2].parent / "shared" / "recordings"
RECORDED_PORT = 50101
JUNGFRAU = small_jungfrau(start_udp_port=RECORDED_PORT)
"""Two modules of 16 and 8 rows: 4 and 2 packets an image."""


def write_recording(folder: Path, ports: list[list[bytes]], config: DaqConfig = JUNGFRAU) -> Path:
    """Write a recording by hand, as the format is described."""
    folder.mkdir()
    (folder / "config.json").write_text(config.as_json())
    for port, datagrams in enumerate(ports, RECORDED_PORT):
        records = [len(datagram).to_bytes(8, "little") + datagram for datagram in datagrams]
        (folder / f"{port}.dat").write_bytes(b"".join(records))
    return folder


def packets_of(*image_ids: int) -> list[list[bytes]]:
    """Return the datagrams of images, for each port."""
    images = [Simulator(JUNGFRAU).packets(image_id) for image_id in image_ids]
    return [[packet.tobytes() for image in images for packet in image[port]] for port in (0, 1)]


def frame_number(datagram: bytes) -> int:
    return int.from_bytes(datagram[:8], "little")


def datagrams_of(recording: Recording) -> list[list[bytes]]:
    return [[port.datagram(i) for i in range(len(port.offsets))] for port in recording.ports]


def free_offset(n_ports: int) -> int:
    """Return a port offset that leads from the recorded ports to free ones."""
    return free_ports(n_ports, socket.SOCK_DGRAM) - RECORDED_PORT


class Listener:
    """Plain sockets on the recorded ports plus a free offset.

    ``take`` after each frame: a buffer of Linux's default size holds a dozen packets.
    """

    def __init__(self) -> None:
        self.offset = free_offset(2)
        self.received: list[list[bytes]] = [[], []]
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for port, one in enumerate(self.sockets, RECORDED_PORT + self.offset):
            one.bind(("127.0.0.1", port))
            one.setblocking(False)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        for one in self.sockets:
            one.close()

    def take(self, n_frames: int) -> None:
        for one, received in zip(self.sockets, self.received, strict=True):
            with contextlib.suppress(BlockingIOError):
                while True:
                    received.append(one.recv(65536))


class Recorder:
    """``record`` in a thread; entered when it listens."""

    def __init__(self, config: DaqConfig, folder: Path, offset: int, n_images: int | None = None) -> None:
        self.stop = threading.Event()
        self._listening = threading.Event()
        self._reports: list[RecordReport] = []
        self._thread = threading.Thread(target=self._run, args=(config, folder, offset, n_images))

    def _run(self, config: DaqConfig, folder: Path, offset: int, n_images: int | None) -> None:
        report = record(
            config,
            folder,
            udp_host="127.0.0.1",
            port_offset=offset,
            n_images=n_images,
            duration_s=20,
            stop=self.stop,
            progress=lambda _: self._listening.set(),
        )
        self._reports.append(report)

    def __enter__(self) -> Recorder:
        self._thread.start()
        assert self._listening.wait(20)
        return self

    def __exit__(self, *exc: object) -> None:
        self.report()

    def report(self) -> RecordReport:
        self._thread.join()
        return self._reports[0]


def test_a_recording_is_sent_exactly_as_it_came(tmp_path: Path) -> None:
    """Lost, late, doubled and malformed datagrams included."""
    first, second = packets_of(5, 6)
    late = [*first[:3], first[5], first[4], first[3], first[5], *first[6:]]
    odd = [b"", second[0], second[0][:100], b"\x01", second[1] + bytes(800), *second[2:]]
    folder = write_recording(tmp_path / "r", [late, odd])
    with Listener() as listener:
        report = replay(
            load_recording(folder), port_offset=listener.offset, rate_hz=0, progress=listener.take
        )
        assert listener.received == [late, odd]
    assert report.n_packets == len(late) + len(odd)
    assert report.n_images == 2


def test_a_port_that_stayed_silent_is_replayed_silently(tmp_path: Path) -> None:
    first, _ = packets_of(1)
    folder = write_recording(tmp_path / "r", [first, []])
    with Listener() as listener:
        report = replay(load_recording(folder), port_offset=listener.offset, progress=listener.take)
        assert report.n_packets == 4
        assert listener.received == [first, []]


def test_loops_keep_the_frame_numbers_rising_and_change_nothing_else(tmp_path: Path) -> None:
    ports = packets_of(7, 8, 10)
    folder = write_recording(tmp_path / "r", ports)
    with Listener() as listener:
        replay(
            load_recording(folder),
            port_offset=listener.offset,
            rate_hz=200,
            loops=2,
            progress=listener.take,
        )
        for sent, received in zip(ports, listener.received, strict=True):
            once, again = received[: len(sent)], received[len(sent) :]
            assert once == sent
            assert [frame_number(d) for d in again] == [frame_number(d) + 4 for d in sent]
            assert [d[8:] for d in again] == [d[8:] for d in sent]


def test_stop_ends_a_replay_without_end(tmp_path: Path) -> None:
    recording = load_recording(write_recording(tmp_path / "r", packets_of(1, 2)))
    stop = threading.Event()
    report = replay(
        recording,
        port_offset=free_offset(2),
        rate_hz=0,
        loops=0,
        stop=stop,
        progress=lambda n: stop.set() if n == 5 else None,
    )
    assert report.n_images == 5


def test_frames_go_out_at_the_rate_asked_for(tmp_path: Path) -> None:
    recording = load_recording(write_recording(tmp_path / "r", packets_of(*range(1, 6))))
    report = replay(recording, port_offset=free_offset(2), rate_hz=50)
    assert report.seconds >= 4 / 50
    assert report.rate_hz < 51


@given(st.lists(st.lists(st.integers(-1, 12) | st.integers(5000, 5010), max_size=40), min_size=1, max_size=3))
def test_cutting_into_frames_keeps_every_datagram_once_and_in_order(ports: list[list[int]]) -> None:
    ends = frame_ends([np.array(port, np.int64) for port in ports])
    assert (np.diff(ends, axis=0) >= 0).all()
    assert ends[0].tolist() == [0] * len(ports)
    assert ends[-1].tolist() == [len(port) for port in ports]


def cut(*ports: list[int]) -> list[list[list[int]]]:
    """Return the frame numbers of each port's datagrams, frame for frame."""
    ends = frame_ends([np.array(port, np.int64) for port in ports])
    return [[ports[p][ends[k, p] : ends[k + 1, p]] for p in range(len(ports))] for k in range(len(ends) - 1)]


def test_a_late_datagram_goes_out_with_the_frame_before_it() -> None:
    assert cut([1, 1, 2, 1, 2, 3]) == [[[1, 1]], [[2, 1, 2]], [[3]]]


def test_frames_of_all_ports_go_out_together_even_when_one_port_lost_some() -> None:
    assert cut([1, 2, 3], [2, 3], [1, 3]) == [[[1], [], [1]], [[2], [2], []], [[3], [3], [3]]]


def test_a_detector_that_was_armed_again_is_replayed_frame_by_frame() -> None:
    frames = [5000, 5001, 1, 2, 3]
    assert cut(frames, frames[1:]) == [
        [[5000], []],
        [[5001], [5001]],
        [[1], [1]],
        [[2], [2]],
        [[3], [3]],
    ]


def test_what_was_recorded_is_what_was_sent_exactly_to_the_bit(tmp_path: Path) -> None:
    first, second = packets_of(1, 2, 3)
    first.insert(3, b"not a packet")
    second.insert(0, b"")
    second.append(bytes(65507))
    folder = write_recording(tmp_path / "sent", [first, second])
    offset = free_offset(2)
    with Recorder(JUNGFRAU, tmp_path / "recorded", offset) as recorder:
        replay(load_recording(folder), port_offset=offset, rate_hz=50)
        time.sleep(0.2)
        recorder.stop.set()
    for name in ("50101.dat", "50102.dat"):
        assert (tmp_path / "recorded" / name).read_bytes() == (folder / name).read_bytes()
    assert load_recording(tmp_path / "recorded").config == JUNGFRAU
    report = recorder.report()
    assert (report.n_packets, report.n_images, report.kernel_drops) == (21, 3, 0)


@pytest.mark.parametrize("name", ["eiger-500k-16bit", "eiger-500k-32bit", "jungfrau-1-module"])
def test_a_real_recording_recorded_again_is_the_same(name: str, tmp_path: Path) -> None:
    if not (SHARED / name).is_dir():
        absent("recordings", f"{name} is not there")
    recording = load_recording(SHARED / name)
    n_images = len(json.loads((SHARED / name / "expected.json").read_text()))
    offset = free_offset(4) + RECORDED_PORT - recording.ports[0].udp_port
    with Recorder(recording.config, tmp_path / "again", offset, n_images) as recorder:
        assert replay(recording, port_offset=offset, rate_hz=20).n_images == n_images
    assert recorder.report().n_images == n_images
    for port in recording.ports:
        file = f"{port.udp_port}.dat"
        assert (tmp_path / "again" / file).read_bytes() == (SHARED / name / file).read_bytes()


def test_recording_ends_when_as_many_images_as_asked_for_are_complete(tmp_path: Path) -> None:
    """Of four images the second lacks a packet; three complete ones are enough."""
    offset = free_offset(2)
    first, second = packets_of(1, 2, 3, 4)
    del first[5]
    folder = write_recording(tmp_path / "sent", [first, second])
    with Recorder(JUNGFRAU, tmp_path / "r", offset, n_images=3) as recorder:
        replay(load_recording(folder), port_offset=offset, rate_hz=50)
    report = recorder.report()
    assert (report.n_images, report.n_packets) == (3, 23)
    assert report.seconds < 15


def test_recording_ends_after_its_duration(tmp_path: Path) -> None:
    report = record(
        JUNGFRAU, tmp_path / "r", udp_host="127.0.0.1", port_offset=free_offset(2), duration_s=0.1
    )
    assert 0.1 <= report.seconds < 10
    assert (report.n_packets, report.n_images) == (0, 0)
    with pytest.raises(InvalidRequest, match="empty recording"):
        load_recording(tmp_path / "r")


def test_packets_the_kernel_dropped_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "BUFFER_BYTES", 65536)
    offset = free_offset(2)
    sent: list[int] = []

    def overrun(n_complete: int) -> None:
        if not sent:
            sent.append(Simulator(JUNGFRAU, port_offset=offset).send(100, 0).n_packets)

    report = record(
        JUNGFRAU, tmp_path / "r", udp_host="127.0.0.1", port_offset=offset, duration_s=0.3, progress=overrun
    )
    assert report.kernel_drops > 0
    assert report.n_packets + report.kernel_drops == sent[0] == 600


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    folder = write_recording(tmp_path / "r", packets_of(1))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(InvalidRequest, match=r"r holds a recording already; choose another folder"):
        record(JUNGFRAU, folder, udp_host="127.0.0.1", port_offset=free_offset(2), duration_s=0.1)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_taken_port_leaves_nothing_behind(tmp_path: Path) -> None:
    with Listener() as listener, pytest.raises(Unavailable, match=r"it is held by python"):
        record(JUNGFRAU, tmp_path / "r", udp_host="127.0.0.1", port_offset=listener.offset, duration_s=0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no/r cannot be written: No such file or directory\."):
        record(
            JUNGFRAU, tmp_path / "no" / "r", udp_host="127.0.0.1", port_offset=free_offset(2), duration_s=0.1
        )


@pytest.mark.parametrize(
    ("name", "value"), [("n_images", 0), ("duration_s", 0), ("duration_s", float("nan"))]
)
def test_a_number_out_of_range_is_refused(name: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="must be"):
        record(JUNGFRAU, tmp_path / "r", **{name: value})  # type: ignore[arg-type]  # the wrong value is the point
    assert not (tmp_path / "r").exists()


def test_a_negative_number_of_loops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="loops"):
        replay(load_recording(write_recording(tmp_path / "r", packets_of(1))), loops=-1)


def test_a_folder_without_config_is_no_recording(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "not-there"):
        with pytest.raises(InvalidRequest, match=r"is not a recording: it has no config\.json"):
            load_recording(folder)


def test_a_recording_with_a_wrong_config_says_so(tmp_path: Path) -> None:
    folder = write_recording(tmp_path / "r", packets_of(1))
    (folder / "config.json").write_text('{"detector_name": "x"}')
    with pytest.raises(InvalidConfig, match=r"r/config\.json: Config errors: missing"):
        load_recording(folder)


def test_a_missing_port_is_named(tmp_path: Path) -> None:
    folder = write_recording(tmp_path / "r", packets_of(1)[:1])
    with pytest.raises(InvalidRequest, match=r"50102\.dat is missing: .* UDP port 50102"):
        load_recording(folder)


@pytest.mark.parametrize("kept", [1, 7, 8, 9, 8000])
def test_a_last_record_that_was_cut_off_is_left_out_with_a_warning(
    kept: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_recording(tmp_path / "r", packets_of(1))
    records = (folder / "50101.dat").read_bytes()
    (folder / "50101.dat").write_bytes(records + records[:kept])
    with caplog.at_level(logging.WARNING):
        recording = load_recording(folder)
    assert datagrams_of(recording) == packets_of(1)
    assert f"50101.dat: the last record, at byte {len(records)}, was cut off" in caplog.text


def test_a_damaged_file_is_refused_with_the_byte(tmp_path: Path) -> None:
    folder = write_recording(tmp_path / "r", packets_of(1))
    records = (folder / "50102.dat").read_bytes()
    (folder / "50102.dat").write_bytes(records + (65508).to_bytes(8, "little") + bytes(65508))
    with pytest.raises(
        InvalidRequest, match=rf"50102\.dat is damaged at byte {len(records)}: .* 65508 bytes"
    ):
        load_recording(folder)


def test_a_recording_of_many_packets_is_found_whole(tmp_path: Path) -> None:
    """More records than are searched for at a time."""
    first = [frame.to_bytes(8, "little") for frame in range(70_000)]
    recording = load_recording(write_recording(tmp_path / "r", [first, []]))
    assert recording.n_packets == 70_000
    assert recording.ports[0].frames.tolist() == list(range(70_000))
    assert recording.ports[0].datagram(69_999) == first[-1]
