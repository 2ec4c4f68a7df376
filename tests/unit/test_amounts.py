"""Numbers as people read them."""

from __future__ import annotations

import pytest

from daq_core.amounts import counted, in_gb
from daq_core.kernels.progress import Compiled


@pytest.mark.parametrize(
    ("n", "thing", "text"),
    [(0, "image", "0 images"), (1, "image", "1 image"), (2, "complete image", "2 complete images")],
)
def test_one_thing_is_counted_as_one_and_others_as_several(n: int, thing: str, text: str) -> None:
    assert counted(n, thing) == text


def test_one_kernel_is_one_kernel() -> None:
    assert str(Compiled(0, 1)).endswith(": 0 of 1 kernel")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 kB"),
        (4096, "4 kB"),
        (71_234_567, "71 MB"),
        (999_000_000, "999 MB"),
        (1_000_000_000, "1.00 GB"),
        (7.9e12, "7900.00 GB"),
    ],
)
def test_a_size_below_a_gigabyte_is_not_a_zero(n_bytes: float, text: str) -> None:
    assert in_gb(n_bytes) == text
