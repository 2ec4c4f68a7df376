"""Absent judges: a test is skipped and says how to get the judge, or fails where the judge is required."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.machine import judges

ROOT = Path(__file__).parents[2]


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


def test_make_night_goes_without_no_judge() -> None:
    """One that is missing in its list is one that nobody notices to be absent."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (named,) = re.findall(r"^REQUIRE \?= (.*)$", makefile, re.MULTILINE)
    assert named.split(",") == sorted(judges.JUDGES)
    nightly = makefile.partition("\nnight:")[2].partition("\n\n")[0]
    assert nightly.count("STD_DAQ_REQUIRE=$(REQUIRE) $(BIN)/python -m pytest") == 2


def test_each_judge_is_asked_for_by_some_test() -> None:
    texts = [
        path.read_text(encoding="utf-8")
        for path in ROOT.glob("tests/**/*.py")
        if path.name != "test_judges.py"
    ]
    asked = {
        judge
        for text in texts
        for judge in re.findall(r'(?:absent\(|if )"([\w-]+)"(?:,| in required\(\))', text)
    }
    assert asked == set(judges.JUDGES)
