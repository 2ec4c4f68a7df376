"""``python -m tests.torture --seed 7 --minutes 10``: tortures a service, judges every run, prints a table.

Each round is made by the seed and its own number, so one that broke something can be
had again by itself: ``--first 37 --rounds 1``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.system.checker import INVARIANTS, Broken
from tests.torture.detector import JUNGFRAU
from tests.torture.plan import detector_before
from tests.torture.rounds import Rounds, Tally
from tests.torture.session import Session


def main() -> int:
    """Torture, print the table; 0 when no invariant was broken."""
    options = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    options.add_argument(
        "--seed", type=int, default=time.time_ns() % 10**6, help="of every choice; default: by the clock"
    )
    options.add_argument("--minutes", type=float, default=10.0, help="how long; default 10")
    options.add_argument("--first", type=int, default=1, help="number of the first round")
    options.add_argument("--rounds", type=int, default=0, help="how many; 0: as many as the time allows")
    options.add_argument("--keep", action="store_true", help="keep the folder, also when nothing was broken")
    chosen = options.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="std-daq-torture-"))
    tally = Tally()
    print(f"torture: seed {chosen.seed}, {chosen.minutes:g} minutes, in {folder}", flush=True)
    torture(folder, tally, chosen.seed, 60 * chosen.minutes, chosen.first, chosen.rounds)
    print(table(tally))
    if tally.broken or chosen.keep:
        print(f"files and log are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if tally.broken else 0


def torture(folder: Path, tally: Tally, seed: int, seconds: float, first: int = 1, n_rounds: int = 0) -> None:
    """Take rounds until the time is over, or there were so many."""
    with Session(folder) as session:
        end = time.monotonic() + seconds
        if (detector := detector_before(seed, first)) != JUNGFRAU:
            session.configure(detector)
        rounds = Rounds(session, tally)
        number = first
        while time.monotonic() < end and (n_rounds == 0 or number < first + n_rounds):
            try:
                broken = rounds.run_one(number, seed)
            except AssertionError as error:
                broken = [Broken(8, "the round", str(error))]
                tally.broken += [(number, said) for said in broken]
                session.recover()
            except BaseException:
                print(f"round {number}: {rounds.story}\nagain: {again(seed, number)}", flush=True)
                raise
            for said in broken:
                print(f"BROKEN in round {number}: {said}\n  round: {rounds.story}")
                print(f"  again: {again(seed, number)}", flush=True)
            number += 1


def again(seed: int, number: int) -> str:
    """Return the command that repeats a round."""
    return f"{sys.executable} -m tests.torture --seed {seed} --first {number} --rounds 1"


def table(tally: Tally) -> str:
    """Return what was done, and what was broken, as a table."""
    lines = ["", f"{'fault':<36} {'injected':>9} {'packets':>9}", "-" * 56]
    for name, n in sorted(tally.faults.items()):
        lines.append(f"{name:<36} {n:>9} {tally.packets[name] or '':>9}")
    lines += [
        "-" * 56,
        f"{'all':<36} {tally.faults.total():>9} {tally.packets.total():>9}",
        "",
        f"rounds {tally.n_rounds}, runs checked {tally.n_runs}, images compared {tally.n_images}",
        "rounds by detector: " + "; ".join(f"{name} {n}" for name, n in sorted(tally.detectors.items())),
        "runs ended as " + ", ".join(f"{name} {n}" for name, n in sorted(tally.outcomes.items())),
        "",
        "invariants broken:",
    ]
    for number, text in INVARIANTS.items():
        n = sum(said.invariant == number for _, said in tally.broken)
        lines.append(f"  {number} {text:<60} {n}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.exit(130)
