"""Carries out a client's puts, and logs each in a line: who, from where, which PV, what value, what result.

An accepted put is logged at INFO where the rule that allows it says TRAPWRITE, at DEBUG where
not; a refused one always, and as a warning where the access rules do not allow it. A command that
may last (a `busy` record) has a line when it begins, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import caproto as ca

from daq_core.errors import DaqError, RunFailed
from ioc.channel_access.channels import Channel, Denied, Refused
from ioc.channel_access.printable import printable
from ioc.commands.client import Client
from ioc.commands.commands import Commands

log = logging.getLogger(__name__)

MAX_PUTS = 100  # of a client, that wait for their completion; one more is refused
SHOWN = 200  # characters of a value or a reason


class Puts:
    """The puts of one client."""

    def __init__(self, commands: Commands, report: Callable[[str, BaseException], None]) -> None:
        self._commands = commands
        self._report = report  # (where, what): an error of ours, to be shown
        self._n_waiting = 0

    async def carry_out(self, channel: Channel, request: Any, client: Client) -> None:
        """Carry out a put request; returns when it is complete.

        Raises
        ------
        Refused
            It is not allowed, means nothing, or failed; with the CA status, and the reason as text.
        """
        self._n_waiting += 1
        try:
            await self._carry_out(channel, _Put(channel, request, client), client)
        finally:
            self._n_waiting -= 1

    async def _carry_out(self, channel: Channel, put: _Put, client: Client) -> None:
        record = channel.record
        try:
            act, value = channel.put(), put.value()
            if self._n_waiting > MAX_PUTS:
                raise Refused(ca.CAStatus.ECA_PUTFAIL, f"{MAX_PUTS} puts of this client wait already.")
            if record.row.record == "busy":
                put.note("begun")
            await act(self._commands, value, client)
        except Denied as denied:
            put.note(f"refused: {denied}", logging.WARNING)
            raise
        except Refused as refused:
            put.note(f"refused: {refused}", logging.INFO)
            self._commands.results.reject(record.row.name, str(refused), client)
            raise
        except (DaqError, TimeoutError) as reason:  # shown by the command itself
            text = str(reason) or "timed out"
            late = isinstance(reason, (RunFailed, TimeoutError))
            put.note(f"{'failed' if late else 'refused'}: {text}", logging.INFO)
            raise Refused(ca.CAStatus.ECA_PUTFAIL, text) from None
        except Exception as fault:
            put.note(f"failed: {fault}", logging.INFO)
            self._report(f"put of {record.name}", fault)
            raise Refused(ca.CAStatus.ECA_PUTFAIL, f"internal error: {fault}") from None
        put.note("accepted")


class _Put:
    """A put's value, and what its log lines begin with."""

    def __init__(self, channel: Channel, request: Any, client: Client) -> None:
        self._level = logging.INFO if channel.rights.trap else logging.DEBUG
        self._value: Any = None
        self._unreadable: Refused | None = None
        try:
            self._value = channel.decoded(request)
            shown = f"{self._value!r:.{SHOWN}}"
        except Refused as unreadable:
            self._unreadable = unreadable
            shown = _as_sent(request)
        self._begin = f"{client} ({client.address}) puts {channel.record.name} = {shown}"

    def value(self) -> Any:
        if self._unreadable is not None:
            raise self._unreadable
        return self._value

    def note(self, result: str, level: int | None = None) -> None:
        log.log(self._level if level is None else level, "%s: %s", self._begin, printable(result, SHOWN))


def _as_sent(request: Any) -> str:
    """Return the beginning of a value that means nothing for its PV, as the client sent it."""
    try:
        values = request.data[: min(SHOWN, request.data_count)]
        if request.data_type == ca.ChannelType.CHAR:
            values = [bytes(int(v) & 0xFF for v in values)]
        shown = ", ".join(map(_element_as_sent, values))
    except Exception:  # the payload is not what its header announces
        return "what cannot be read"
    return printable(shown if len(values) == 1 else f"[{shown}]", SHOWN)


def _element_as_sent(value: Any) -> str:
    if isinstance(value, bytes):
        return repr(value.partition(b"\0")[0].decode(errors="replace"))
    return repr(value.item() if hasattr(value, "item") else value)
