"""The file with a site's own names: what it means, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from daq_core.errors import InvalidConfig
from ioc.site.aliases import MAX_NAME_BYTES, check_prefix, pv_names, read_aliases


def read(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "aliases.csv"
    file.write_text(text)
    return read_aliases(file, "X:")


def test_a_name_is_whole_or_without_the_prefix(tmp_path: Path) -> None:
    aliases = read(tmp_path, '# ours, theirs\n\nSITE-DET:STOP, X:DAQ:Stop\n"SITE-DET:STATE",DAQ:State_RBV\n')
    assert aliases == {"SITE-DET:STOP": "X:DAQ:Stop", "SITE-DET:STATE": "X:DAQ:State_RBV"}


def test_two_aliases_may_be_of_one_pv(tmp_path: Path) -> None:
    assert read(tmp_path, "A,DAQ:Stop\nB,DAQ:Stop") == {"A": "X:DAQ:Stop", "B": "X:DAQ:Stop"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A,DAQ:Stop\nB,DAQ:Nothing", "line 2: there is no PV DAQ:Nothing"),
        ("A,DAQ:Stop\n\nA,DAQ:NImages", "line 3: A is an alias of X:DAQ:Stop already"),
        ("X:DAQ:NImages,DAQ:Stop", "line 1: X:DAQ:NImages is the name of a PV itself"),
        ("A", "line 1: expected 'alias, name', got 'A'"),
        ("A,DAQ:Stop,more", "line 1: expected"),
        ("A B,DAQ:Stop", "line 1: 'A B' cannot be a PV's name"),
        ("A.VAL,DAQ:Stop", "line 1: 'A.VAL' cannot be a PV's name"),
        (",DAQ:Stop", "line 1: '' cannot be a PV's name"),
        ("A" * 61 + ",DAQ:Stop", "cannot be a PV's name"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        read(tmp_path, text)
    assert says in str(refusal.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="No such file"):
        read_aliases(tmp_path / "none.csv", "X:")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match="not UTF-8"):
        read_aliases(tmp_path / "binary.csv", "X:")


def test_the_mark_that_spreadsheets_write_at_the_beginning_is_no_name(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffA,DAQ:Stop") == {"A": "X:DAQ:Stop"}


def test_a_name_may_have_curly_brackets(tmp_path: Path) -> None:
    assert read(tmp_path, "XF:11ID-ES{Det:1}Stop,DAQ:Stop") == {"XF:11ID-ES{Det:1}Stop": "X:DAQ:Stop"}


@pytest.mark.parametrize("prefix", ["", "XF:11ID-ES{Det:1}", "X:", "X02DA-ES1_[1]<a>;+:", "X" * 30])
def test_a_prefix_that_records_may_have_is_taken(prefix: str) -> None:
    check_prefix(prefix)
    assert all(len(name) <= MAX_NAME_BYTES for name in pv_names(prefix))


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("X 1:", "--prefix 'X 1:': a PV's name has letters"),
        ("X.VAL", "--prefix 'X.VAL'"),
        ("$(P)", "letters, digits"),
        ("Ä:", "letters, digits"),
        ("X" * 60, "for the prefix"),
    ],
)
def test_a_prefix_that_no_record_could_have_is_refused(prefix: str, says: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        check_prefix(prefix)
    assert says in str(refusal.value)
