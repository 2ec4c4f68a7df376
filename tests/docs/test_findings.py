"""The table of findings/README.md names every script, and each can be run and says what it finds."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.docs.page import ROOT

SCRIPTS = sorted(ROOT.glob("findings/*.sh"))


def test_the_table_of_findings_names_every_script_once_and_no_other() -> None:
    table = (ROOT / "findings/README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[([\w-]+\.sh)\]\(\1\) \|", table, re.MULTILINE)
    assert named == [script.name for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_finding_is_a_program_that_says_its_behaviour_and_pins_what_it_installs(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK), "chmod +x"
    assert text.startswith("#!/usr/bin/env bash\n# "), "the behaviour, in words, is the head of the script"
    assert "\nset -euo pipefail\n" in text
    installed = re.findall(r"pip\" install (.*)$", text, re.MULTILINE)
    packages = [word for line in installed for word in line.split() if not word.startswith("-")]
    assert packages, "it installs nothing"
    assert all("==" in package for package in packages), packages
