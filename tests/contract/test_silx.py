"""silx, with which people look at these files, finds the images by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import silx.io
from silx.io import nxdata

from daq_core.codecs.compressor import FILTERS
from daq_core.files.image_file import ImageFile
from tests.image_writer import RUN, STOP_TIME, append, compressor, images


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
