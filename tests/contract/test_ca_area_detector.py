"""The areaDetector names, as the C library drives them: file names, Capture, Acquire, refusals."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daq_core.state.status import WriteRequest
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.channel_access.ioc_thread import IocThread
from tests.conftest import StartService
from tests.processes.service import JUNGFRAU_2, Service


@pytest.fixture
def prepared(ioc: IocThread, peer: EpicsPeer, tmp_path: Path) -> Path:
    """The file that the next Capture writes, 5 images."""
    for name, value in (
        ("FilePath", str(tmp_path)),
        ("FileName", "run"),
        ("FileNumber", 7),
        ("FileTemplate", "%s%s_%3.3d.h5"),
        ("AutoIncrement", 1),
        ("NumCapture", 5),
    ):
        assert peer.put(ioc.pv(f"HDF1:{name}"), value) == ECA_NORMAL
    return tmp_path / "run_007.h5"


def test_file_path_is_looked_at_when_its_put_completes(
    ioc: IocThread, peer: EpicsPeer, tmp_path: Path
) -> None:
    assert peer.put(ioc.pv("HDF1:FilePath"), str(tmp_path)) == ECA_NORMAL
    assert peer.text(ioc.pv("HDF1:FilePath_RBV")) == f"{tmp_path}/"
    assert peer.text(ioc.pv("HDF1:FilePathExists_RBV")) == "Yes"
    assert peer.put(ioc.pv("HDF1:FilePath"), f"{tmp_path}/not/there/with/a/long/name/") == ECA_NORMAL
    assert peer.text(ioc.pv("HDF1:FilePathExists_RBV")) == "No"
    assert peer.info(ioc.pv("HDF1:FilePathExists_RBV"))["severity"] == 2


def test_a_capture_completes_when_its_run_ends(ioc: IocThread, peer: EpicsPeer, prepared: Path) -> None:
    names = {name: ioc.pv(f"HDF1:{name}") for name in ("Capture", "Capture_RBV", "NumCaptured_RBV")}
    peer.monitor(*names.values())
    peer.send_put(names["Capture"], 1)
    wait_until_open(ioc)
    ioc.receive(5)
    assert peer.put_status() == ECA_NORMAL
    assert prepared.exists()
    assert peer.text(ioc.pv("HDF1:FullFileName_RBV")) == str(prepared)
    assert peer.get(ioc.pv("HDF1:FileNumber")) == peer.get(ioc.pv("HDF1:FileNumber_RBV")) == 8
    assert peer.text(ioc.pv("HDF1:WriteStatus")) == "Write OK"
    assert peer.text(ioc.pv("HDF1:WriteMessage")) == "Completed."
    peer.wait_for(names["NumCaptured_RBV"], 5)
    assert peer.updates(names["Capture"]) == ["Done", "Capture", "Done"]
    assert peer.updates(names["Capture_RBV"]) == ["Done", "Capturing", "Done"]
    counts = peer.updates(names["NumCaptured_RBV"])[1:]
    assert counts == sorted(counts)


def test_name_and_number_and_count_change_before_capture_rbv(
    ioc: IocThread, peer: EpicsPeer, prepared: Path
) -> None:
    seen: list[tuple[str, object]] = []
    watched = ("FullFileName_RBV", "FileNumber", "FileNumber_RBV", "NumCaptured_RBV", "Capture_RBV")

    class Watcher:
        """A monitor of one record that notes the order of all."""

        data_type, n, mask = 0, 0, 1

        def __init__(self, name: str) -> None:
            self.name = name

        def offer(self, update: object) -> None:
            seen.append((self.name, ioc.ioc.records[ioc.pv(f"HDF1:{self.name}")].value))

    assert peer.put(ioc.pv("HDF1:NumCapture"), 1) == ECA_NORMAL
    for _ in range(2):
        watchers = {name: Watcher(name) for name in watched}
        for name, watcher in watchers.items():
            ioc.ioc.records[ioc.pv(f"HDF1:{name}")].monitors.add(watcher)
        peer.send_put(ioc.pv("HDF1:Capture"), 1)
        wait_until_open(ioc)
        ioc.receive(1)
        assert peer.put_status() == ECA_NORMAL
        for name, watcher in watchers.items():
            ioc.ioc.records[ioc.pv(f"HDF1:{name}")].monitors.discard(watcher)
    folder = prepared.parent
    second = seen[seen.index(("FullFileName_RBV", f"{folder}/run_008.h5")) :]
    assert sorted(second[:4]) == [
        ("FileNumber", 9),
        ("FileNumber_RBV", 9),
        ("FullFileName_RBV", f"{folder}/run_008.h5"),
        ("NumCaptured_RBV", 0),
    ]
    assert second[4] == ("Capture_RBV", "Capturing")


def test_capture_0_ends_an_open_ended_capture_and_that_is_a_success(
    ioc: IocThread, peer: EpicsPeer, other: EpicsPeer, prepared: Path
) -> None:
    assert peer.put(ioc.pv("HDF1:NumCapture"), 0) == ECA_NORMAL
    peer.send_put(ioc.pv("HDF1:Capture"), 1)
    wait_until_open(ioc)
    ioc.receive(3)
    assert other.text(ioc.pv("HDF1:Capture_RBV")) == "Capturing"
    assert other.get(ioc.pv("HDF1:NumCaptured_RBV")) == 3
    assert other.put(ioc.pv("HDF1:Capture"), 0) == ECA_NORMAL
    assert other.text(ioc.pv("HDF1:Capture_RBV")) == "Done"
    assert peer.put_status() == ECA_NORMAL
    assert peer.text(ioc.pv("HDF1:WriteMessage")) == "Interrupted."
    assert peer.text(ioc.pv("HDF1:WriteStatus")) == "Write OK"
    assert peer.put(ioc.pv("HDF1:Capture"), 0) == ECA_NORMAL  # idle


def test_a_refused_capture_says_why_and_counts_no_file(
    ioc: IocThread, peer: EpicsPeer, prepared: Path
) -> None:
    assert peer.put(ioc.pv("HDF1:FilePath"), "/no/such/folder/for/anybody/anywhere") == ECA_NORMAL
    assert peer.put(ioc.pv("HDF1:Capture"), 1) != ECA_NORMAL
    for name in ("HDF1:WriteMessage", "DAQ:CmdMessage_RBV"):
        assert "/no/such/folder" in peer.text(ioc.pv(name))
    assert peer.text(ioc.pv("HDF1:WriteStatus")) == "Write error"
    assert peer.info(ioc.pv("HDF1:WriteStatus"))["severity"] == 2
    assert peer.text(ioc.pv("HDF1:Capture_RBV")) == "Done"
    assert peer.get(ioc.pv("HDF1:Capture")) == 0
    assert peer.get(ioc.pv("HDF1:FileNumber_RBV")) == 7
    assert peer.put(ioc.pv("DAQ:OutputFile"), str(prepared)) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:WriteAsync"), 1) == ECA_NORMAL  # a run of any other face clears it
    assert peer.text(ioc.pv("HDF1:WriteStatus")) == "Write OK"


def test_write_file_writes_one_image(ioc: IocThread, peer: EpicsPeer, prepared: Path) -> None:
    peer.send_put(ioc.pv("HDF1:WriteFile"), 1)
    wait_until_open(ioc)
    ioc.receive(1)
    assert peer.put_status() == ECA_NORMAL
    assert peer.get(ioc.pv("HDF1:NumCaptured_RBV")) == 1
    assert peer.text(ioc.pv("HDF1:WriteFile_RBV")) == "Done"


@pytest.mark.parametrize("pv", ["cam1:Acquire", "cam1:AcquireBusy"])
def test_acquire_completes_when_its_images_have_come(ioc: IocThread, peer: EpicsPeer, pv: str) -> None:
    states, acquiring = ioc.pv("cam1:DetectorState_RBV"), ioc.pv("cam1:Acquire_RBV")
    assert peer.put(ioc.pv("cam1:NumImages"), 3) == ECA_NORMAL
    with EpicsPeer(ioc.ca_port) as watcher:
        watcher.monitor(states, acquiring)
        peer.send_put(ioc.pv(pv), 1)
        watcher.wait_for(acquiring, "Acquiring")
        publish(ioc, 2)
        watcher.wait_for(states, "Acquire")
        assert watcher.updates(acquiring)[-1] == "Acquiring"
        publish(ioc, 1)
        assert peer.put_status() == ECA_NORMAL
        assert peer.get(ioc.pv("cam1:NumImagesCounter_RBV")) == 3
        assert watcher.updates(states)[1:] == ["Waiting", "Acquire", "Idle"]
        assert watcher.updates(acquiring) == ["Done", "Acquiring", "Done"]


@pytest.mark.parametrize(("pv", "value"), [("cam1:Acquire", 0), ("DAQ:Stop", 1)])
def test_another_client_ends_an_acquire(
    ioc: IocThread, peer: EpicsPeer, other: EpicsPeer, pv: str, value: int
) -> None:
    assert other.put(ioc.pv(pv), value) == ECA_NORMAL  # nothing to end
    with EpicsPeer(ioc.ca_port) as watcher:
        watcher.monitor(ioc.pv("cam1:Acquire"))
        peer.send_put(ioc.pv("cam1:Acquire"), 1)
        watcher.wait_for(ioc.pv("cam1:Acquire"), "Acquire")
    assert other.put(ioc.pv("cam1:Acquire"), 1) != ECA_NORMAL  # a second one is refused
    assert other.put(ioc.pv(pv), value) == ECA_NORMAL
    assert other.text(ioc.pv("cam1:Acquire_RBV")) == "Done"
    assert other.text(ioc.pv("cam1:DetectorState_RBV")) == "Aborted"
    assert peer.put_status() == ECA_NORMAL


def test_an_array_counter_counts_from_what_was_put_while_acquire_is_on(
    ioc: IocThread, peer: EpicsPeer
) -> None:
    counter, own = ioc.pv("cam1:ArrayCounter_RBV"), ioc.pv("HDF1:ArrayCounter_RBV")
    for name in ("cam1:ArrayCounter", "HDF1:ArrayCounter"):
        assert peer.put(ioc.pv(name), 0) == ECA_NORMAL
    assert peer.put(ioc.pv("cam1:NumImages"), 3) == ECA_NORMAL
    publish(ioc, 5)
    assert (peer.get(counter), peer.get(own)) == (0, 0)
    for first in (100, 0):
        assert peer.put(ioc.pv("cam1:ArrayCounter"), first) == ECA_NORMAL
        assert peer.get(counter) == first
        acquire(ioc, peer, lambda: publish(ioc, 5))
        assert peer.get(counter) == first + 3
        assert peer.get(ioc.pv("cam1:ArrayCounter")) == first
    publish(ioc, 5)
    assert (peer.get(counter), peer.get(own)) == (3, 6)


def test_a_capture_of_a_client_that_acquires_takes_images_while_acquire_is_on(
    ioc: IocThread, peer: EpicsPeer, other: EpicsPeer, prepared: Path
) -> None:
    assert peer.put(ioc.pv("cam1:Acquire"), 0) == ECA_NORMAL  # which is using it
    for name, value in (("HDF1:ArrayCounter", 0), ("HDF1:NumCapture", 0)):
        assert peer.put(ioc.pv(name), value) == ECA_NORMAL
    assert peer.put(ioc.pv("cam1:NumImages"), 2) == ECA_NORMAL
    peer.send_put(ioc.pv("HDF1:Capture"), 1)
    wait_until_open(ioc)
    ioc.receive(4)
    assert other.get(ioc.pv("HDF1:NumCaptured_RBV")) == 0
    assert other.text(ioc.pv("HDF1:WriteMessage")) == "Waiting for Acquire."
    for n_captured in (2, 4):
        with EpicsPeer(ioc.ca_port) as acquirer:  # whoever acquires lets images through
            acquire(ioc, acquirer, lambda: ioc.receive(5))
        assert other.get(ioc.pv("HDF1:NumCaptured_RBV")) == n_captured
        assert other.get(ioc.pv("HDF1:ArrayCounter_RBV")) == n_captured
        ioc.receive(1)
        assert other.get(ioc.pv("HDF1:NumCaptured_RBV")) == n_captured
    assert other.put(ioc.pv("HDF1:Capture"), 0) == ECA_NORMAL
    assert peer.put_status() == ECA_NORMAL


def test_a_client_that_never_acquires_captures_at_once_beside_one_that_does(
    ioc: IocThread, peer: EpicsPeer, other: EpicsPeer, prepared: Path
) -> None:
    assert other.put(ioc.pv("cam1:Acquire"), 0) == ECA_NORMAL
    counted = peer.get(ioc.pv("HDF1:ArrayCounter_RBV"))
    with EpicsPeer(ioc.ca_port) as simple:
        simple.send_put(ioc.pv("HDF1:Capture"), 1)
        wait_until_open(ioc)
        ioc.receive(5)
        assert simple.put_status() == ECA_NORMAL
    assert peer.get(ioc.pv("HDF1:NumCaptured_RBV")) == 5
    assert peer.get(ioc.pv("HDF1:ArrayCounter_RBV")) == counted


def test_a_run_that_is_no_capture_takes_images_at_once_whatever_acquire_is(
    ioc: IocThread, peer: EpicsPeer, prepared: Path
) -> None:
    """By WriteAsync of a client that uses Acquire, and by the door that REST and the commands use."""
    assert peer.put(ioc.pv("cam1:Acquire"), 0) == ECA_NORMAL
    first, second = prepared.with_name("by_ca.h5"), prepared.with_name("by_rest.h5")
    assert peer.put(ioc.pv("DAQ:OutputFile"), str(first)) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:NImages"), 3) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:WriteAsync"), 1) == ECA_NORMAL
    ioc.receive(3)
    assert ioc.do(ioc.daq.wait()).acquisition.n_write_completed == 3
    ioc.do(ioc.daq.start(WriteRequest.checked(str(second), 3)))
    ioc.receive(3)
    assert ioc.do(ioc.daq.wait()).acquisition.n_write_completed == 3
    assert second.exists()


def test_a_continuous_acquire_lets_images_through_until_it_is_put_to_0(
    ioc: IocThread, peer: EpicsPeer, other: EpicsPeer
) -> None:
    assert other.put(ioc.pv("cam1:ImageMode"), 2) == ECA_NORMAL
    assert other.put(ioc.pv("cam1:ArrayCounter"), 0) == ECA_NORMAL
    other.monitor(ioc.pv("cam1:Acquire_RBV"), ioc.pv("cam1:ArrayCounter_RBV"))
    peer.send_put(ioc.pv("cam1:Acquire"), 1)
    other.wait_for(ioc.pv("cam1:Acquire_RBV"), "Acquiring")
    publish(ioc, 7)
    other.wait_for(ioc.pv("cam1:ArrayCounter_RBV"), 7)
    assert other.put(ioc.pv("cam1:Acquire"), 0) == ECA_NORMAL
    assert peer.put_status() == ECA_NORMAL
    publish(ioc, 7)
    assert other.get(ioc.pv("cam1:ArrayCounter_RBV")) == 7
    assert other.put(ioc.pv("cam1:ImageMode"), 1) == ECA_NORMAL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("cam1:MinX", 5), ("cam1:BinY", 2), ("cam1:SizeX", 10), ("cam1:DataType", 0)),
        *(("cam1:ReverseX", 1), ("cam1:NumImages", -1), ("HDF1:Compression", 3)),
        *(("HDF1:NDArrayPort", "SIM1"), ("HDF1:NumExtraDims", 1), ("HDF1:NumFramesChunks", 4)),
        *(("HDF1:FilePath", "relative"), ("HDF1:FileName", "../x"), ("HDF1:FileTemplate", "%n")),
        *(("HDF1:SWMRMode", 0), ("HDF1:PositionMode", 1), ("HDF1:TempSuffix", ".tmp")),
        *(("cam1:ShutterMode", 1), ("cam1:ShutterControl", 1), ("cam1:FrameType", 2)),
        *(("cam1:TriggerSoftware", 1), ("HDF1:ReadFile", 1), ("HDF1:ProcessPlugin", 1)),
        *(("HDF1:MinCallbackTime", 0.5), ("HDF1:NumRowChunks", 3), ("HDF1:ColorMode", 2)),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_changes_nothing(
    ioc: IocThread, peer: EpicsPeer, name: str, value: object
) -> None:
    before = peer.text(ioc.pv(name))
    assert peer.put(ioc.pv(name), value) != ECA_NORMAL
    assert peer.text(ioc.pv(name)) == before
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"


def test_what_is_not_known_of_the_detector_is_not_shown(ioc: IocThread, peer: EpicsPeer) -> None:
    for name in (
        "cam1:TemperatureActual",
        "cam1:Gain_RBV",
        "cam1:ShutterStatus_RBV",
        "cam1:BayerPattern_RBV",
    ):
        assert peer.info(ioc.pv(name))["severity"] == 3, name
    assert peer.put(ioc.pv("cam1:Gain"), 2.5) == ECA_NORMAL
    assert peer.get(ioc.pv("cam1:Gain_RBV")) == 2.5
    assert peer.get(ioc.pv("cam1:TimeRemaining_RBV")) == 0


def test_counters_beyond_31_bits_begin_again_at_0(ioc: IocThread, peer: EpicsPeer, prepared: Path) -> None:
    largest = 2**31 - 1
    for name in ("cam1:ArrayCounter", "HDF1:FileNumber"):
        assert peer.put(ioc.pv(name), largest) == ECA_NORMAL
        assert peer.get(ioc.pv(f"{name}_RBV")) == largest
    assert peer.put(ioc.pv("cam1:NumImages"), 3) == ECA_NORMAL
    acquire(ioc, peer, lambda: publish(ioc, 3))
    assert peer.get(ioc.pv("cam1:ArrayCounter_RBV")) == 2
    with EpicsPeer(ioc.ca_port) as simple:
        simple.send_put(ioc.pv("HDF1:Capture"), 1)
        wait_until_open(ioc)
        ioc.receive(5)
        assert simple.put_status() == ECA_NORMAL
    assert peer.text(ioc.pv("HDF1:FullFileName_RBV")).endswith(f"run_{largest}.h5")
    assert peer.get(ioc.pv("HDF1:FileNumber_RBV")) == peer.get(ioc.pv("HDF1:FileNumber")) == 0


def test_processing_a_pv_is_taken_and_changes_nothing(ioc: IocThread, peer: EpicsPeer) -> None:
    for name in ("HDF1:FileNumber", "HDF1:FileNumber_RBV", "DAQ:WriteAsync"):
        before = peer.get(ioc.pv(name))
        assert peer.put(ioc.pv(f"{name}.PROC"), 1) == ECA_NORMAL
        assert peer.get(ioc.pv(name)) == before
    assert peer.text(ioc.pv("DAQ:AcqState_RBV")) != "WAITING_IMAGES"


def test_the_image_is_described_as_areadetector_does(ioc: IocThread, peer: EpicsPeer) -> None:
    size = [ioc.config.image_pixel_width, ioc.config.image_pixel_height]
    for prefix in ("cam1:", "HDF1:"):
        assert list(peer.get(ioc.pv(f"{prefix}Dimensions_RBV"))) == size
        assert peer.get(ioc.pv(f"{prefix}ArraySize9_RBV")) == 0
        assert peer.text(ioc.pv(f"{prefix}Codec_RBV")) == ""
    assert peer.get(ioc.pv("HDF1:NumRowChunks_RBV")) == size[1]
    assert peer.get(ioc.pv("HDF1:NumColChunks_RBV")) == size[0]


@pytest.fixture
def clients(service: Service) -> Iterator[tuple[EpicsPeer, EpicsPeer, EpicsPeer]]:
    """Who captures, who acquires, and who watches."""
    with (
        EpicsPeer(service.ca_port) as one,
        EpicsPeer(service.ca_port) as two,
        EpicsPeer(service.ca_port) as three,
    ):
        yield one, two, three


Clients = tuple[EpicsPeer, EpicsPeer, EpicsPeer]


def test_folders_are_made_as_many_as_create_directory_says(service: Service, clients: Clients) -> None:
    peer, hdf = clients[0], service.prefix + "HDF1:"
    folder = service.output / "made" / "for this run"
    assert peer.put(hdf + "CreateDirectory", -2) == ECA_NORMAL
    assert peer.put(hdf + "FilePath", str(folder)) == ECA_NORMAL
    assert folder.is_dir()
    assert peer.text(hdf + "FilePathExists_RBV") == "Yes"
    assert peer.put(hdf + "FilePath", str(folder / "1/2/3")) == ECA_NORMAL
    assert peer.text(hdf + "FilePathExists_RBV") == "No"
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as somebody else")
def test_a_folder_is_looked_at_as_the_user_who_will_write(start_service: StartService) -> None:
    service = start_service({**JUNGFRAU_2, "writer_user_id": 65534})
    theirs = service.output / "closed to others"
    theirs.mkdir(mode=0o700)
    with EpicsPeer(service.ca_port) as peer:
        assert peer.put(service.prefix + "HDF1:FilePath", str(theirs)) == ECA_NORMAL
        assert peer.text(service.prefix + "HDF1:FilePathExists_RBV") == "No"


def test_an_acquire_that_waits_for_plugins_ends_with_its_images_on_disk(
    service: Service, clients: Clients
) -> None:
    capturing, acquiring, watching = clients
    cam, hdf = service.prefix + "cam1:", service.prefix + "HDF1:"
    for name, value in (("FilePath", str(service.output)), ("FileName", "flushed"), ("NumCapture", 0)):
        assert capturing.put(hdf + name, value) == ECA_NORMAL
    watching.monitor(hdf + "Capture_RBV", cam + "Acquire_RBV", cam + "DetectorState_RBV")
    capturing.send_put(hdf + "Capture", 1)
    watching.wait_for(hdf + "Capture_RBV", "Capturing")
    assert acquiring.put(cam + "WaitForPlugins", 1) == ECA_NORMAL
    assert acquiring.put(cam + "NumImages", 4) == ECA_NORMAL
    acquiring.send_put(cam + "Acquire", 1)
    watching.wait_for(cam + "Acquire_RBV", "Acquiring")
    service.simulator().send(4, rate_hz=100)
    assert acquiring.put_status() == ECA_NORMAL
    assert acquiring.get(hdf + "NumCaptured_RBV") == 4
    assert acquiring.put(hdf + "FlushNow", 1) == ECA_NORMAL
    assert acquiring.put(hdf + "Capture", 0) == ECA_NORMAL
    assert capturing.put_status() == ECA_NORMAL
    assert watching.updates(cam + "DetectorState_RBV")[-1] == "Idle"
    assert acquiring.get(cam + "UniqueId_RBV") == 4
    assert acquiring.get(cam + "TimeStamp_RBV") == pytest.approx(time.time(), abs=30)


def test_the_arrays_are_described_before_any_came(service: Service, clients: Clients) -> None:
    peer = clients[0]
    for prefix in (service.prefix + "cam1:", service.prefix + "HDF1:"):
        assert peer.get(prefix + "ArraySize0_RBV") == service.config.image_pixel_width
        assert peer.get(prefix + "ArraySize1_RBV") == service.config.image_pixel_height
        assert peer.text(prefix + "DataType_RBV") == "UInt16"


def acquire(ioc: IocThread, peer: EpicsPeer, send: Callable[[], None]) -> None:
    """Acquire once, and have images sent meanwhile."""
    with EpicsPeer(ioc.ca_port) as watcher:
        watcher.monitor(ioc.pv("cam1:Acquire_RBV"))
        peer.send_put(ioc.pv("cam1:Acquire"), 1)
        watcher.wait_for(ioc.pv("cam1:Acquire_RBV"), "Acquiring")
        send()
        assert peer.put_status() == ECA_NORMAL


def publish(ioc: IocThread, n_images: int) -> None:
    """Let images arrive while nothing is written."""
    ioc.do(ioc.daq.publish_images(n_images))


def wait_until_open(ioc: IocThread) -> None:
    """Wait until the run's file is open, as seen from within."""
    deadline = time.monotonic() + 10
    while not ioc.daq.snapshot.status.acquisition.running:
        assert time.monotonic() < deadline
        time.sleep(0.005)
