"""The simulated detector of the self-test, a process that is asked for images line by line.

One JSON object a line, after the config as the argument::

    {"n_images": …, "rate_hz": …, "first_id": …}     0 Hz: as fast as possible
    {"seconds": …}                                   from the first datagram to the last
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Self

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable


class SenderProcess:
    """Our end: starts the process, and ends it with the block."""

    def __init__(self, config: DaqConfig) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ioc.program.doctor.sender", config.as_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._next_id = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            self._process.kill()  # it may have much left to send
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()

    def send(self, n_images: int, rate_hz: float) -> tuple[range, float]:
        """Send the next images; return their ids, and the seconds from the first datagram to the last."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        ids = range(self._next_id, self._next_id + n_images)
        self._next_id = ids.stop
        order = {"n_images": n_images, "rate_hz": rate_hz, "first_id": ids.start}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise Unavailable("The simulator ended; the lines above say why.")
        return ids, float(json.loads(answer)["seconds"])


def main() -> None:
    """Be that process."""
    from daq_core.simulating.simulator import Simulator

    simulator = Simulator(DaqConfig.parse(json.loads(sys.argv[1])))
    with contextlib.suppress(KeyboardInterrupt):  # of everybody at this terminal: our input ends, too
        for line in sys.stdin:
            report = simulator.send(**json.loads(line))
            print(json.dumps({"seconds": report.seconds}), flush=True)


if __name__ == "__main__":
    main()
