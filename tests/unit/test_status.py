"""Every value of a write request that is accepted or refused, and in which words."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from daq_core.errors import InvalidRequest
from daq_core.state.status import WriteRequest


@pytest.mark.parametrize(
    "path",
    [
        "/data/a.h5",
        "/data/no-extension",
        "/data/ with space.and.dots/a b.h5",
        "/data/µ-Röntgen/画像.h5",
        "/a//b.h5",
        "/data/./a.h5",
        "/data/..a.h5",
        "/" + "x" * 255,
        "/x" * 511 + "/",
    ],
)
def test_a_path_is_accepted_as_it_is(path: str) -> None:
    path = path.rstrip("/")
    assert WriteRequest.checked(path, 1).output_file == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "Mandatory field missing: output_file"),
        ("", 'Invalid output_file=. Path must be absolute - starts with "/".'),
        ("a.h5", 'Invalid output_file=a.h5. Path must be absolute - starts with "/".'),
        ("~/a.h5", "Path must be absolute"),
        (5, "Path must be absolute"),
        (["/data/a.h5"], "Path must be absolute"),
        (b"/data/a.h5", "Path must be absolute"),
        ("/data/../a.h5", "must not contain '..'"),
        ("/..", "must not contain '..'"),
        ("/data/a\0.h5", "control character"),
        ("/data/a\n.h5", "control character"),
        ("/data/a\x7f.h5", "control character"),
        ("/data/a\x85.h5", "control character"),
        ("/data/\ud800.h5", "not valid Unicode"),
        ("/data/", "must name a file"),
        ("/", "must name a file"),
        ("/data/.", "must name a file"),
        ("/" + "x" * 256, "255"),
        ("/" + "µ" * 128, "255"),
        ("/x" * 512, "1023"),
    ],
)
def test_a_path_is_refused(path: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        WriteRequest.checked(path, 1)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "n_images"),
    [
        (1, 1),
        (10, 10),
        ("10", 10),
        (" 10 ", 10),
        (10.0, 10),
        (2**31 - 1, 2**31 - 1),
        (str(2**31 - 1), 2**31 - 1),
    ],
)
def test_a_number_of_images_is_accepted_as_an_integer(value: Any, n_images: int) -> None:
    request = WriteRequest.checked("/a.h5", value)
    assert request.n_images == n_images
    assert type(request.n_images) is int


NO_INTEGER = "Cannot convert n_images={} to an integer. Must be an integer >= 1."
TOO_SMALL = "Invalid n_images={}. Must be an integer >= 1."
TOO_LARGE = "Invalid n_images={}. Must be at most 2147483647."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "Mandatory field missing: n_images"),
        (True, NO_INTEGER),
        (False, NO_INTEGER),
        (10.5, NO_INTEGER),
        (float("nan"), NO_INTEGER),
        (float("inf"), NO_INTEGER),
        ("", NO_INTEGER),
        ("ten", NO_INTEGER),
        ("10.5", NO_INTEGER),
        ("0x10", NO_INTEGER),
        ([10], NO_INTEGER),
        ({}, NO_INTEGER),
        (0, TOO_SMALL),
        (0.0, TOO_SMALL),
        (-1, TOO_SMALL),
        ("-1", TOO_SMALL),
        (2**31, TOO_LARGE),
        (2**63, TOO_LARGE),
        (1e18, TOO_LARGE),
        (10**400, TOO_LARGE),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_number_of_images_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        WriteRequest.checked("/a.h5", value)
    assert str(refused.value) == message.format(value)


@pytest.mark.parametrize(
    "run_id", [0, -1, 2**63 - 1, -(2**63), "20230526_113713.793", " ", "Röntgen µ", "x" * 256]
)
def test_a_run_id_is_echoed_as_given(run_id: Any) -> None:
    request = WriteRequest.checked("/a.h5", 1, run_id)
    assert request.run_id == run_id
    assert type(request.run_id) is type(run_id)
    assert json.loads(json.dumps(request.run_id)) == run_id


@pytest.mark.parametrize(
    "run_id", [2**63, -(2**63) - 1, 1.5, True, "", "a\nb", "a\0", "\ud800", "x" * 257, [], {}]
)
def test_a_run_id_is_refused(run_id: Any) -> None:
    with pytest.raises(InvalidRequest, match="Invalid run_id="):
        WriteRequest.checked("/a.h5", 1, run_id)


def test_a_run_id_that_is_not_given_is_the_time_in_nanoseconds() -> None:
    before = time.time_ns()
    run_id = WriteRequest.checked("/a.h5", 1).run_id
    assert isinstance(run_id, int)
    assert before <= run_id <= time.time_ns()


def test_the_path_is_looked_at_before_the_number_and_the_number_before_the_run_id() -> None:
    with pytest.raises(InvalidRequest, match="output_file"):
        WriteRequest.checked(None, None, True)
    with pytest.raises(InvalidRequest, match="n_images"):
        WriteRequest.checked("/a.h5", None, True)


def test_the_folder_is_that_of_the_file() -> None:
    assert WriteRequest.checked("/data/visit 1/a.h5", 1).folder == "/data/visit 1"
    assert WriteRequest.checked("/a.h5", 1).folder == "/"
