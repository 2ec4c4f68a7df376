"""A short slice of ``make torture``: whatever is done to a service, none of the invariants is broken."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.__main__ import again, table, torture
from tests.torture.rounds import Tally

SEED = 2923  # its first rounds are of a GigaFRoST, then of Jungfraus


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that the user who owns the files may enter; pytest's own are for one user alone."""
    folder = Path(tempfile.mkdtemp(prefix="std-daq-torture-"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("seconds", "n_rounds", "n_faults"), [(20, 1, 1), pytest.param(60, 3, 10, marks=pytest.mark.night)]
)
def test_faults_of_every_kind_break_no_invariant(
    public_folder: Path, seconds: float, n_rounds: int, n_faults: int
) -> None:
    tally = Tally()
    torture(public_folder, tally, SEED, seconds)
    says = [f"{said}\n  again: {again(SEED, number)}" for number, said in tally.broken]
    assert not says, "\n".join(says)
    print(table(tally))
    assert tally.n_rounds >= n_rounds
    assert tally.faults.total() >= n_faults
    assert tally.detectors["gigafrost 16 bit"] >= 1, tally.detectors
