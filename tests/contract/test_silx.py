"""silx, with which people look at these files, finds the images by itself; and who reads a growing file."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import silx.io
from silx.io import nxdata

from daq_core.codecs.compressor import FILTERS
from daq_core.files.image_file import ImageFile
from tests.processes.image_writer import RUN, STOP_TIME, append, compressor, images

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=FILTERS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A finished file, stored in each of the ways there are."""
    path = str(tmp_path / "run.h5")
    file = ImageFile.create(
        path,
        shape=(48, 64),
        dtype=np.dtype("u2"),
        detector_name="eiger",
        run=RUN,
        compressor=compressor(request.param),
    )
    append(file, 3)
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})
    return path


def test_silx_opens_the_images_as_the_default_plot(path: str) -> None:
    with silx.io.open(path) as file:
        plot = nxdata.get_default(file, validate=True)
        assert plot is not None
        assert plot.group.name == "/entry/data"
        assert plot.signal_name == "data"
        assert plot.is_stack or plot.is_image
        assert plot.interpretation == "image"
        np.testing.assert_array_equal(plot.signal[2], images(2, 1)[0])


def test_silx_addresses_the_images_by_url(path: str) -> None:
    np.testing.assert_array_equal(silx.io.get_data(f"silx:{path}?path=/eiger/data&slice=1"), images(1, 1)[0])


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[ImageFile, str]]:
    """A file of three images whose writer goes on."""
    path = str(tmp_path / "growing.h5")
    file = ImageFile.create(path, shape=(48, 64), dtype=np.dtype("u2"), detector_name="eiger", run=RUN)
    append(file, 3)
    yield file, path
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})


ALONG = """
import sys
import silx.io
with silx.io.open(sys.argv[1]) as file:
    data = file["entry/data/data"]
    print(len(data), flush=True)
    sys.stdin.readline()
    data.refresh()
    print(len(data), data[-1].sum(), flush=True)
"""
FABIO = "import sys, fabio; print(fabio.open(sys.argv[1]).nframes)"
PLAIN = "import sys, h5py; h5py.File(sys.argv[1])"


def test_silx_reads_a_growing_file_by_itself_and_sees_what_comes(growing: tuple[ImageFile, str]) -> None:
    file, path = growing
    with subprocess.Popen(
        [sys.executable, "-c", ALONG, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "3\n"
        append(file, 2)
        said, _ = reader.communicate("go on\n", timeout=60)
    assert said == f"5 {images(4, 1)[0].sum()}\n"


def test_a_growing_file_is_refused_without_swmr_with_the_advice_that_the_page_warns_of(
    growing: tuple[ImageFile, str],
) -> None:
    _, path = growing
    assert re.search("already open for write.*h5clear", told(PLAIN, path))
    page = (ROOT / "docs/how-to/read-a-growing-file.md").read_text(encoding="utf-8")
    assert re.search("Do not follow the advice.*`h5clear`", page)


def test_fabio_reads_a_file_only_after_its_end(tmp_path: Path) -> None:
    path = str(tmp_path / "run.h5")
    file = ImageFile.create(path, shape=(48, 64), dtype=np.dtype("u2"), detector_name="eiger", run=RUN)
    append(file, 3)
    assert "Fabio could not identify" in told(FABIO, path)
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})
    assert told(FABIO, path).endswith("3\n")


def told(code: str, path: str) -> str:
    """Return what another process prints of a file: HDF5 has one mode for a file in each process."""
    reader = [sys.executable, "-c", code, path]
    return subprocess.run(
        reader, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    ).stdout
