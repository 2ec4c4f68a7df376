"""What a service manager is told: sd_notify(3) in a few lines, over the socket it names in NOTIFY_SOCKET.

Without that variable nothing is sent. The watchdog is fed from the event loop, so a
loop that hangs is noticed and the service started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping


class ServiceManager:
    """Usage: ``manager = ServiceManager(os.environ)``; ``manager.tell(READY=1)``.

    Attributes
    ----------
    watchdog_s : float or None
        How often it wants to hear WATCHDOG=1: half of WATCHDOG_USEC; None: never.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        limit_us = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        wanted = self._address and ours and limit_us.isdecimal() and int(limit_us) > 0
        self.watchdog_s = int(limit_us) / 2e6 if wanted else None

    def tell(self, **state: object) -> None:
        """Send e.g. ``READY=1, STATUS="all is well"``; never waits and never fails: nobody may listen."""
        if not self._address:
            return
        lines = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in state.items())
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel,
        ):
            channel.sendto(lines.encode(), self._address)

    async def keep_informed(self, status: Callable[[], str]) -> None:
        """Feed the watchdog, and send the status once a second when it changed, until cancelled."""
        shown = ""
        while True:
            news: dict[str, object] = {"WATCHDOG": 1} if self.watchdog_s is not None else {}
            if (now := status()) != shown:
                news["STATUS"] = shown = now
            if news:
                self.tell(**news)
            await asyncio.sleep(min(1.0, self.watchdog_s or 1.0))
