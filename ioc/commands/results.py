"""What is shown of a command: that it is running, then that it is done, or why not.

A refusal or a result looks on ``CmdStatus_RBV`` and its neighbours as it is written here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from daq_core.errors import DaqError, RunFailed
from ioc.commands.client import Client
from ioc.values.operator import LastCommand

TIMEOUT_S = 30.0  # of a command that waits for the data path to follow


class Results:
    """The last command, and those that are active; `changed` is called at each change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.last = LastCommand()

    @asynccontextmanager
    async def carry_out(self, name: str, client: Client) -> AsyncIterator[None]:
        """Show a command as Running, then as OK, or why not; the reason goes on to the put."""
        began = time.monotonic()
        self._show(status="Running", name=name, message="", user=str(client), duration_s=0.0)

        def show(status: str, message: str = "") -> None:
            accepted = self.last.accepted + (status != "Rejected")
            rejected = self.last.rejected + (status == "Rejected")
            self._show(
                status=status,
                name=name,
                message=message,
                user=str(client),
                duration_s=time.monotonic() - began,
                accepted=accepted,
                rejected=rejected,
            )

        try:
            yield
        except RunFailed as failed:
            show("Failed", str(failed))
            raise
        except TimeoutError:
            show("Timeout", f"{name} did not complete within {TIMEOUT_S:.0f} s.")
            raise
        except DaqError as refused:
            show("Rejected", str(refused))
            raise
        except Exception as fault:
            show("Failed", f"{type(fault).__name__}: {fault}")
            raise
        show("OK")

    def reject(self, name: str, reason: str, client: Client) -> None:
        """Show that a put was refused."""
        self._show(
            status="Rejected",
            name=name,
            message=reason,
            user=str(client),
            duration_s=0.0,
            rejected=self.last.rejected + 1,
        )

    @contextmanager
    def setting(self, name: str, client: Client) -> Iterator[None]:
        """Show a setpoint's new value; a refused one is shown as a rejected command until it is put right.

        For not every client shows the error of a put.
        """
        try:
            yield
        except DaqError as refused:
            self.reject(name, str(refused), client)
            raise
        if self.last.status == "Rejected" and self.last.name == name:
            self._show(status="OK", message="", user=str(client))
        else:
            self.changed()

    @contextmanager
    def active(self, name: str) -> Iterator[None]:
        """Let the command's PV read 1 meanwhile."""
        self._show(active=self.last.active | {name})
        try:
            yield
        finally:
            self._show(active=self.last.active - {name})

    def _show(self, **changes: Any) -> None:
        self.last = replace(self.last, **changes)
        self.changed()
