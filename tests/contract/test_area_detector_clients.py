"""Stock ophyd and stock ophyd-async count under Bluesky: real packets, a real file, documents that hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from tests.bluesky.bluesky_run import ROOT, Document, count
from tests.processes.service import Service


def of_kind(documents: list[Document], kind: str) -> list[dict[str, Any]]:
    return [document for name, document in documents if name == kind]


def sent(service: Service, ids: Iterable[int]) -> npt.NDArray[Any]:
    simulator = service.simulator()
    return np.stack([simulator.image(image_id) for image_id in ids])


def test_every_pv_of_the_stock_classes_of_ophyd_and_pyepics_is_served(service: Service) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bluesky.area_signals", service.prefix],
        cwd=ROOT,
        env=os.environ | service.ca_environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert set(read) >= {"AreaDetectorCam", "HDF5Plugin", "HDF5Plugin_V34", "AD_Camera", "AD_FilePlugin"}
    for kind, values in read.items():
        assert len(values) > 20, kind
        assert [pv for pv, value in values.items() if value is None] == [], kind


@contextmanager
def streaming(service: Service, rate_hz: float) -> Iterator[None]:
    """Have the detector send all the time, image ids from 1 on, whoever asks for images."""
    enough = threading.Event()

    def send() -> None:
        simulator, next_id = service.simulator(), 1
        while not enough.is_set():
            simulator.send(10, rate_hz=rate_hz, first_id=next_id)
            next_id += 10

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        enough.set()
        sender.join()


def check_stream(service: Service, path: Path, n_images: int) -> list[int]:
    """See that a file has so many images of the stream, each whole and itself; return their ids."""
    with h5py.File(path) as file:
        ids = [int(image_id) for image_id in file["entry/data/image_id"]]
        assert len(ids) == n_images
        assert list(file["entry/data/status"]) == [0] * n_images
        np.testing.assert_array_equal(file["entry/data/data"], sent(service, ids))
    assert ids == sorted(set(ids))
    return ids


@pytest.mark.parametrize("rate_hz", [20, pytest.param(200, marks=pytest.mark.night)])
def test_ophyd_counts_a_detector_that_streams_all_the_time(service: Service, rate_hz: float) -> None:
    with streaming(service, rate_hz):
        documents = count(
            "tests.bluesky.ophyd_count", service, service.output, n_points=3, n_images=2, streams=True
        )
    assert of_kind(documents, "stop")[0]["exit_status"] == "success"
    (resource,) = of_kind(documents, "resource")
    path = Path(resource["root"]) / resource["resource_path"]
    assert resource["resource_kwargs"]["frame_per_point"] == 2
    assert len(of_kind(documents, "event")) == 3
    ids = check_stream(service, path, 6)
    assert all(second == first + 1 for first, second in zip(ids[::2], ids[1::2], strict=True))


@pytest.mark.parametrize("rate_hz", [20, pytest.param(200, marks=pytest.mark.night)])
def test_ophyd_async_counts_a_detector_that_streams_all_the_time(service: Service, rate_hz: float) -> None:
    folder = service.output / f"at_{rate_hz}"
    folder.mkdir()
    with streaming(service, rate_hz):
        documents = count("tests.bluesky.ophyd_async_count", service, folder, n_points=3, streams=True)
    assert of_kind(documents, "stop")[0]["exit_status"] == "success"
    pieces = [datum["indices"] for datum in of_kind(documents, "stream_datum")]
    assert [(piece["start"], piece["stop"]) for piece in pieces] == [(0, 1), (1, 2), (2, 3)]
    check_stream(service, folder / "counted.h5", 3)


def test_ophyd_counts_and_its_documents_lead_to_the_images(service: Service) -> None:
    documents = count("tests.bluesky.ophyd_count", service, service.output, n_points=3, n_images=2)
    assert of_kind(documents, "stop")[0]["exit_status"] == "success"
    (resource,) = of_kind(documents, "resource")
    assert resource["spec"] == "AD_HDF5"
    path = Path(resource["root"]) / resource["resource_path"]
    n_images = resource["resource_kwargs"]["frame_per_point"]
    points = {
        datum["datum_id"]: datum["datum_kwargs"]["point_number"] for datum in of_kind(documents, "datum")
    }
    events = of_kind(documents, "event")
    assert len(events) == 3
    with h5py.File(path) as file:
        data = file["entry/data/data"]
        assert len(data) == 6
        for event in events:
            point = points[event["data"]["detector_image"]]
            images = data[point * n_images : (point + 1) * n_images]
            first = 1 + (event["seq_num"] - 1) * 2
            np.testing.assert_array_equal(images, sent(service, range(first, first + 2)))
    key = of_kind(documents, "descriptor")[0]["data_keys"]["detector_image"]
    assert key["shape"] == [2, *sent(service, range(1, 2)).shape[1:]]
    assert key["dtype_numpy"] == "<u2"


def test_ophyd_async_counts_and_its_documents_lead_to_the_images(service: Service) -> None:
    documents = count("tests.bluesky.ophyd_async_count", service, service.output, n_points=4)
    assert of_kind(documents, "stop")[0]["exit_status"] == "success"
    assert len(of_kind(documents, "event")) == 4
    (resource,) = of_kind(documents, "stream_resource")
    path = unquote(urlparse(resource["uri"]).path)
    assert path == str(service.output / "counted.h5")
    data_key = of_kind(documents, "descriptor")[0]["data_keys"]["detector"]
    pieces = [datum["indices"] for datum in of_kind(documents, "stream_datum")]
    assert [(piece["start"], piece["stop"]) for piece in pieces] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    with h5py.File(path) as file:
        data = file[resource["parameters"]["dataset"]]
        assert list(data.shape[1:]) == data_key["shape"][1:]
        assert data.dtype == np.dtype(data_key["dtype_numpy"])
        assert list(data.chunks) == list(resource["parameters"]["chunk_shape"])
        images = np.concatenate([data[piece["start"] : piece["stop"]] for piece in pieces])
    np.testing.assert_array_equal(images, sent(service, range(1, 5)))
