"""File names from FileTemplate: what C's printf gives, and nothing that could harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.errors import InvalidRequest
from ioc.commands.area_file_name import checked_folder, checked_name, checked_template, full_file_name


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("%s%s.h5", "/data/run.h5"),
        ("%s%s_%6.6d.h5", "/data/run_000042.h5"),
        ("%s%s_%d.h5", "/data/run_42.h5"),
        ("%s%s_%05i.h5", "/data/run_00042.h5"),
        ("%s%s%%.h5", "/data/run%.h5"),
        ("%s%10s.h5", "/data/       run.h5"),
    ],
)
def test_a_template_is_filled_in_as_c_does(template: str, path: str) -> None:
    assert full_file_name(template, "/data/", "run", 42) == path


@pytest.mark.parametrize(
    "template",
    ["%s%s_%n.h5", "%s%s%s.h5", "%d%s.h5", "%s%s_%*d", "%s%s_%9999d", "%(x)s", "%", "%s%s%d%d", "%s%s%x"],
)
def test_a_template_that_means_something_else_is_refused(template: str) -> None:
    with pytest.raises(InvalidRequest, match="FileTemplate"):
        checked_template(template)


@given(st.text(max_size=40), st.text(max_size=20), st.integers(0, 2**31 - 1))
def test_any_template_gives_a_legal_path_or_a_reason(template: str, name: str, number: int) -> None:
    try:
        path = full_file_name(template, "/data/", name, number)
    except InvalidRequest:
        return
    assert path.startswith("/")
    assert ".." not in path.split("/")


def test_a_folder_is_shown_with_its_last_slash() -> None:
    assert checked_folder("/data") == checked_folder("/data/") == "/data/"
    assert checked_folder("/") == "/"


@pytest.mark.parametrize("path", ["", "data", "/data/../etc", "/a\nb", "/" + 256 * "x", 600 * "/x"])
def test_a_path_that_is_no_folder_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="FilePath"):
        checked_folder(path)


@pytest.mark.parametrize("name", ["../up", "a/../b", "a\0b", 256 * "x"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="FileName"):
        checked_name(name)
