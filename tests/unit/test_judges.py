"""Absent judges: a test is skipped and says how to get the judge, or fails where the judge is required."""

from __future__ import annotations

import pytest

from tests.machine import judges


def test_an_absent_judge_skips_the_test_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STD_DAQ_REQUIRE", "mounts")
    with pytest.raises(pytest.skip.Exception, match=r"strace is not to be had here: not installed .*apt-get"):
        judges.absent("strace", "not installed")


def test_a_required_judge_that_is_absent_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STD_DAQ_REQUIRE", "mounts, strace")
    with pytest.raises(pytest.fail.Exception, match="names strace, which is absent: not installed"):
        judges.absent("strace", "not installed")


def test_a_judge_that_nobody_knows_is_an_error_and_not_a_silent_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STD_DAQ_REQUIRE", "strase")
    with pytest.raises(ValueError, match=r"no such judge: strase; there are: .*strace"):
        judges.required()
