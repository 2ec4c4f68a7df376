"""The page about the house says the truth: its rooms are the folders, and its questions lead to files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.test_links import LINK

ROOT = Path(__file__).parents[2]
EXPLANATIONS = ROOT / "docs/explanations"
HOUSE = EXPLANATIONS / "architecture.md"
JOURNEYS = [
    HOUSE,
    *(EXPLANATIONS / f"{name}.md" for name in ("a-packets-journey", "a-commands-journey", "processes")),
]
PACKAGES = ("daq_core", "ioc", "rest_bridge")
MOST_FILES = 14
ROOM = r"^\| \[`(\w+)/`\]\(\.\./\.\./{}/(\w+)/\) \| (.+) \|$"
QUESTION = re.compile(r"^\| (.+?) \| (.*\]\(.+) \|$", re.MULTILINE)

ANSWERS = {
    "what a packet's frame number means": ["daq_core/assembling/claims.py"],
    "why a put is refused": ["ioc/channel_access/channels.py", "ioc/channel_access/puts.py"],
    "a new detector": ["daq_core/detectors/__init__.py", "docs/how-to/add-a-detector.md"],
    "a new PV": ["ioc/pvs/daq.py"],
    "a new field of the file": ["daq_core/files/layout.py", "daq_core/files/places.py"],
    "a new option of `serve`": ["ioc/service/options.py", "daq_core/state/options.py"],
}
DEFINED = {  # what is there now, so that an answer does not outlive what it answers
    "daq_core/assembling/claims.py": "def claim(",
    "ioc/channel_access/puts.py": "except Refused",
    "ioc/channel_access/channels.py": "def check_type(",
    "daq_core/detectors/__init__.py": "FORMATS: dict",
    "ioc/pvs/daq.py": "PVS",
    "daq_core/files/layout.py": "def create_layout(",
    "daq_core/files/places.py": "ENTRY = ",
    "ioc/service/options.py": "class ReceiveOptions",
    "daq_core/state/options.py": "class DaqOptions",
}


def says(folder: Path) -> str:
    """Return the first sentence of a folder's ``__init__``, as the page writes it."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`")


def leads_to(page: Path, text: str) -> list[str]:
    """Return the files of the project that the links of a text on a page lead to."""
    links = [link.partition("#")[0] for link in LINK.findall(text) if "://" not in link]
    return [str((page.parent / link).resolve().relative_to(ROOT)) for link in links if link]


@pytest.mark.parametrize("package", ["daq_core", "ioc"])
def test_the_rooms_of_the_page_are_the_folders_with_their_own_sentences(package: str) -> None:
    page = HOUSE.read_text(encoding="utf-8")
    rooms = re.findall(ROOM.format(package), page, re.MULTILINE)
    folders = [init.parent for init in (ROOT / package).glob("*/__init__.py")]
    assert {named: sentence for named, _, sentence in rooms} == {f.name: says(f) for f in folders}
    assert all(named == linked for named, linked, _ in rooms)


def test_a_folder_is_one_subject_with_a_sentence_and_at_most_fourteen_files() -> None:
    """A folder with more has a second subject, which deserves a name: three rooms were found that way."""
    folders = [file.parent for package in PACKAGES for file in (ROOT / package).rglob("__init__.py")]
    n_files = {folder.relative_to(ROOT): len([*folder.glob("*.py")]) - 1 for folder in folders}
    modules = {file.parent for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    assert len(folders) > 20
    assert modules == set(folders)  # none is without its sentence
    assert all(map(says, folders))
    assert {str(folder): n for folder, n in n_files.items() if n > MOST_FILES} == {}


@pytest.mark.parametrize("question", ANSWERS)
def test_a_newcomers_question_leads_from_the_readme_to_the_file_in_two_links(question: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert str(HOUSE.relative_to(ROOT)) in leads_to(ROOT / "README.md", readme)
    answers = dict(QUESTION.findall(HOUSE.read_text(encoding="utf-8")))
    assert leads_to(HOUSE, answers[question]) == ANSWERS[question]
    for answer in ANSWERS[question]:
        assert DEFINED.get(answer, "") in (ROOT / answer).read_text(encoding="utf-8"), answer


@pytest.mark.parametrize("page", JOURNEYS, ids=lambda page: page.stem)
def test_every_file_that_is_named_is_a_link_to_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = re.findall(r"\[`([\w./]+\.py)`\]\(([^)]+)\)", text)
    for name, link in linked:
        assert (page.parent / link).is_file(), link
        assert link.endswith(name), f"{name} leads to {link}"
    assert len(re.findall(r"[\w./]+\.py`", text)) == len(linked)


def test_the_house_fits_on_a_page() -> None:
    assert len(HOUSE.read_text(encoding="utf-8").splitlines()) <= 80
