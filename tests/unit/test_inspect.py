"""``inspect`` says what is in a file or a recording, and exactly what is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from daq_core.config import DaqConfig
from daq_core.errors import InvalidRequest, Unavailable
from daq_core.files.contents import read_file
from daq_core.files.image_file import ImageFile
from daq_core.files.repair import repair
from daq_core.recordings.contents import RecordingContents, read_recording
from ioc.program.inspect import STATUS_WORDS
from tests.processes import image_writer
from tests.processes.image_writer import RUN, START_TIME, STOP_TIME, append, images, rows
from tests.unit.test_replay_detectors import EIGER, GIGAFROST, JUNGFRAU, datagrams_of, write_recording

ROOT = Path(__file__).parents[2]


def new_file(path: Path) -> ImageFile:
    return ImageFile.create(str(path), shape=(48, 64), dtype=np.dtype("u2"), detector_name="eiger", run=RUN)


def close(file: ImageFile, **counters: int) -> None:
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters=counters)


def file_with_ids(path: Path, ids: list[int]) -> Path:
    file = new_file(path)
    _, status, missing, timestamps = rows(0, len(ids))
    file.append(list(images(0, len(ids))), np.array(ids, np.uint64), status, missing, timestamps)
    close(file)
    return path


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command, as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "ioc", "inspect", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


# ------------------------------------------------------------ files


def test_a_closed_file_is_described_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    file = new_file(path)
    append(file, 10)
    close(file, missing_packets=20)
    found = read_file(path)
    assert (found.condition, found.shape, found.dtype) == ("closed", (10, 48, 64), "uint16")
    assert found.ids is not None
    assert (found.ids.first, found.ids.last) == (2**40, 2**40 + 9)
    assert (found.ids.rising, found.ids.n_repeated, found.ids.gaps) == (True, 0, [])
    assert found.status == {0: 4, 1: 3, 2: 3}
    assert found.missing_packets == 20
    assert found.images_with_losses == {2**40 + i: i % 5 for i in range(10) if i % 5}
    assert (found.seconds, found.rate_hz) == (9 / 8, 8.0)
    run = found.run
    assert (run["state"], run["message"], run["run_id"]) == ("FINISHED", "Completed.", RUN.run_id)
    assert (run["n_images"], run["detector_type"], run["bit_depth"]) == (10, "eiger", 16)
    assert run["start_time"].startswith("2023-11-14T22:13:20.25")
    assert run["counters"]["missing_packets"] == 20
    assert run["software"] == RUN.software
    assert START_TIME < STOP_TIME


@pytest.mark.parametrize(
    ("ids", "gaps", "rising", "n_repeated"),
    [
        ([5], [], True, 0),
        ([5, 6, 9, 10, 12], [(7, 8), (11, 11)], True, 0),
        ([5, 4, 6], [], False, 0),
        ([5, 5, 7], [(6, 6)], False, 1),
        ([2**64 - 1, 1], [(2, 2**64 - 2)], False, 0),
    ],
)
def test_ids_that_are_missing_repeated_or_out_of_order_are_found(
    ids: list[int], gaps: list[tuple[int, int]], rising: bool, n_repeated: int, tmp_path: Path
) -> None:
    found = read_file(file_with_ids(tmp_path / "a.h5", ids)).ids
    assert found is not None
    assert (found.first, found.last, found.gaps) == (ids[0], ids[-1], gaps)
    assert (found.rising, found.n_repeated) == (rising, n_repeated)


def test_a_file_without_images_has_no_ids(tmp_path: Path) -> None:
    found = read_file(file_with_ids(tmp_path / "a.h5", []))
    assert (found.shape, found.ids, found.status, found.rate_hz) == ((0, 48, 64), None, {}, 0.0)
    printed = inspect(tmp_path / "a.h5")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "images      0 of 48 x 64 pixels" in printed.stdout


def test_a_file_that_is_being_written_shows_what_a_reader_can_see(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with image_writer.start(path, "--hand-over", "3") as process:
        assert process.stdout is not None
        process.stdout.readline()
        n_written = int(process.stdout.readline().split()[0])
        found = read_file(path)
        assert found.condition == "being written"
        assert found.shape[0] >= n_written > 0
        assert found.run["state"] == "WRITING"
        assert "is being written; what follows is what a reader can see now" in inspect(path).stdout
        process.kill()


def test_every_status_of_an_image_has_words(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    file = new_file(path)
    _, _, missing, timestamps = rows(0, 4)
    file.append(list(images(0, 4)), np.arange(4, dtype=np.uint64), np.arange(4), missing, timestamps)
    counters = json.loads(inspect("--json", path).stdout)["run"]["counters"]
    assert (counters["mismatched_images"], counters["other_format_images"]) == (1, 1)
    close(file)
    said = [line for line in inspect(path).stdout.splitlines() if line.startswith("status")]
    assert [line.split(None, 4)[4] for line in said] == list(STATUS_WORDS.values())


def test_losses_are_summed_while_the_file_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    file = new_file(path)
    append(file, 10)
    found = json.loads(inspect("--json", path).stdout)  # in another process, as its reader is
    counters = found["run"]["counters"]
    assert (found["condition"], found["missing_packets"]) == ("being written", 20)
    assert (counters["missing_packets"], counters["incomplete_images"]) == (20, 8)
    assert (counters["mismatched_images"], counters["dropped_images"]) == (3, -1)
    (line,) = [line for line in inspect(path).stdout.splitlines() if line.startswith("counters")]
    assert line.split(None, 1)[1].startswith("so far: dropped_images ?, incomplete_images 8, ")
    close(file, missing_packets=20, dropped_images=1)
    assert read_file(path).run["counters"]["dropped_images"] == 1
    assert "so far" not in inspect(path).stdout


def test_a_file_that_a_killed_writer_left_open_says_how_it_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from tests.unit.test_inspect import append, new_file;"
        "file = new_file(Path(sys.argv[1])); append(file, 5); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(OSError, match="file is already open for write"):
        h5py.File(path)
    before = path.read_bytes()
    found = read_file(path)
    assert (found.condition, found.shape[0]) == ("left open", 5)
    printed = inspect(path)
    assert printed.returncode == 0
    assert f"was not closed by its writer; `std-daq-ioc repair {path}`" in printed.stdout
    assert path.read_bytes() == before
    assert repair(str(path)).outcome == "repaired"
    found = read_file(path)
    assert (found.condition, found.run["state"]) == ("closed", "FAILED")
    assert found.run["message"] == "ERROR: writer lost; 5 images recovered."


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["entry/data/other"] = 1
    with pytest.raises(InvalidRequest, match=r"other\.h5 is an HDF5 file, but not one of this DAQ"):
        read_file(tmp_path / "other.h5")
    (tmp_path / "text").write_text("text")
    with pytest.raises(InvalidRequest, match="neither an HDF5 file nor a recording"):
        read_file(tmp_path / "text")


def test_a_file_that_cannot_be_opened_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no\.h5 cannot be opened: No such file"):
        read_file(tmp_path / "no.h5")
    printed = inspect(tmp_path / "no.h5")
    assert (printed.returncode, printed.stdout) == (1, "")
    assert printed.stderr.count("\n") == 1
    cut = file_with_ids(tmp_path / "a.h5", [1, 2])
    os.truncate(cut, 700)
    with pytest.raises(Unavailable, match=r"a\.h5 cannot be read by HDF5"):
        read_file(cut)


# ------------------------------------------------------------ recordings


def recording(folder: Path, values: dict[str, Any], change: Any, ids: tuple[int, ...]) -> RecordingContents:
    """Return what is found in a recording of images, after `change` of the datagrams of all ports."""
    config = DaqConfig.parse(values)
    every = [datagrams_of(config, image_id) for image_id in ids]
    ports = [[one for image in every for one in image[port]] for port in range(len(every[0]))]
    change(ports)
    return read_recording(write_recording(folder, config, [ports]))


def test_losses_of_each_frame_and_module_are_counted_and_the_rest_is_told_apart(tmp_path: Path) -> None:
    """Module 3 loses packets 1 and 2 of frame 5 and its late packet 0 of frame 6 is none."""
    two = {"n_modules": 4, "image_pixel_height": 32, "module_positions": {}}
    two["module_positions"] = {"1": [0, 0, 1023, 15], "3": [0, 16, 1023, 31]}

    def change(ports: list[list[bytes]]) -> None:
        of_module_3 = ports[1]
        late = of_module_3.pop(4)
        del of_module_3[1:3]
        of_module_3 += [late, of_module_3[0], b"", b"not a packet"]

    found = recording(tmp_path / "r", JUNGFRAU | two, change, (5, 6, 7))
    assert (found.n_frames, found.first_frame, found.last_frame, found.n_complete) == (3, 5, 7, 2)
    assert (found.missing_packets, found.losses) == (2, {3: {5: 2}})
    first, second = found.ports
    assert (first.udp_port, first.module, first.n_datagrams, first.sizes) == (50202, 1, 12, {8240: 12})
    assert (second.udp_port, second.module) == (50204, 3)
    assert (second.n_malformed, second.n_repeated) == (2, 1)
    assert second.sizes == {0: 1, 12: 1, 8240: 11}
    assert [header["packet_number"] for header in first.headers] == [62, 63, 64]  # 16 rows, the centre
    assert first.headers[0]["frame_number"] == 5
    assert first.headers[0]["detector_type"] == 3


def test_losses_of_both_interfaces_are_their_modules(tmp_path: Path) -> None:
    def change(ports: list[list[bytes]]) -> None:
        del ports[0][0], ports[1][1]

    found = recording(tmp_path / "r", JUNGFRAU | {"n_udp_interfaces": 2}, change, (1, 2))
    assert found.losses == {0: {1: 2}}
    assert [port.module for port in found.ports] == [0, 0]


@pytest.mark.parametrize("n_udp_ports", [8, 16])
@pytest.mark.parametrize("rows_per_packet", [None, 5])
def test_a_gigafrosts_losses_are_counted_in_the_packets_of_its_sender(
    n_udp_ports: int, rows_per_packet: int | None, tmp_path: Path
) -> None:
    config = DaqConfig.parse(GIGAFROST | {"n_udp_ports": n_udp_ports})
    ports: list[list[bytes]] = [[] for _ in range(n_udp_ports)]
    for image_id in (1, 2, 3, 4):
        for port, packets in enumerate(datagrams_of(config, image_id, rows=rows_per_packet)):
            module = port % 8
            if (image_id, module) == (2, 5):
                packets = packets[:-1]
            if (image_id, module) == (3, 6):
                packets = []
            ports[port] += packets
    found = read_recording(write_recording(tmp_path / "r", config, [ports]))
    assert found.losses == {5: {2: 1}, 6: {3: 7 if rows_per_packet else 2}}
    assert (found.n_frames, found.n_complete) == (4, 2)
    assert sum(port.n_malformed for port in found.ports) == 0
    assert found.ports[0].headers[0]["protocol_id"] == 0xCB


def test_a_silent_module_misses_all_of_every_frame(tmp_path: Path) -> None:
    two = {"n_modules": 2, "image_pixel_width": 1028, "bit_depth": 12}
    two["module_positions"] = {"0": [0, 0, 513, 255], "1": [514, 0, 1027, 255]}
    found = recording(tmp_path / "r", EIGER | two, lambda ports: ports[1].clear(), (1, 2))
    assert found.losses == {1: {1: 48, 2: 48}}
    assert found.n_complete == 0
    assert (found.ports[1].first_frame, found.ports[1].headers) == (None, [])


def test_a_recording_is_printed_for_people_and_as_json(tmp_path: Path) -> None:
    found = recording(tmp_path / "r", JUNGFRAU, lambda ports: ports[0].pop(2), (1, 2))
    printed = inspect(tmp_path / "r")
    assert (printed.returncode, printed.stderr) == (0, "")
    lines = printed.stdout.splitlines()
    assert "frames      2 (1 to 2), 1 of them complete" in lines
    assert "module 0    misses 1 packet: 1 in frame 1" in lines
    assert any("frame_number=1 exposure_length=0 packet_number=62" in line for line in lines)
    as_json = json.loads(inspect(tmp_path / "r", "--json").stdout)
    assert as_json["losses"] == {"0": {"1": 1}}
    assert as_json["n_datagrams"] == found.n_datagrams


def test_a_file_is_printed_for_people_and_as_json(tmp_path: Path) -> None:
    path = file_with_ids(tmp_path / "a.h5", [1, 2, 4])
    lines = inspect(path).stdout.splitlines()
    assert "images      3 of 48 x 64 pixels (rows x columns), uint16" in lines
    assert "ids         1 to 4, rising" in lines
    assert "id gaps     3" in lines
    assert "missing     3 packets: 1 in image 2, 2 in image 4" in lines
    as_json = json.loads(inspect(path, "--json").stdout)
    assert as_json["shape"] == [3, 48, 64]
    assert as_json["ids"]["gaps"] == [[3, 3]]


def test_a_folder_that_is_no_recording_is_one_line(tmp_path: Path) -> None:
    printed = inspect(tmp_path)
    assert printed.returncode == 1
    assert "is not a recording: it has no config.json" in printed.stderr
