"""Our IOC beside a C IOC with the same PVs and access file, and a client that heeds no access rights."""

from __future__ import annotations

import os
import pwd
import struct
from dataclasses import dataclass
from pathlib import Path

from daq_core.config import DaqConfig
from ioc.commands.client import Client
from tests.channel_access.ca_wire import (
    ACCESS_RIGHTS,
    CLIENT_NAME,
    CREATE,
    HOST_NAME,
    LONG,
    WRITE,
    Answer,
    Connection,
    message,
)
from tests.channel_access.ioc_thread import IocThread
from tests.channel_access.soft_ioc import SoftIoc
from tests.processes.service import JUNGFRAU_2

ME = pwd.getpwuid(os.geteuid()).pw_name  # as the C library claims it
READ_ONLY = "ASG(DEFAULT) {RULE(1, READ)}"
NOTHING = "ASG(DEFAULT) {RULE(1, NONE)}"
EVERYTHING = "ASG(DEFAULT) {RULE(1, WRITE, TRAPWRITE)}"


def config() -> DaqConfig:
    return DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})


@dataclass
class Pair:
    """Our IOC and a C IOC, with the same PVs and the same access file."""

    file: Path
    ours: IocThread
    theirs: SoftIoc

    def use(self, text: str) -> None:
        self.file.write_text(text)
        self.ours.do(self.ours.ioc.commands.access.reload())
        self.theirs.read_access_file()


async def put_inside(ioc: IocThread, n_images: int) -> None:
    await ioc.ioc.commands.put_n_images(n_images, Client("", "", ""))


class Wire(Connection):
    """A client that does what the C library would not: it puts and reads what it was told that it may not."""

    def __init__(
        self,
        port: int,
        user: bytes = b"",
        *,
        host: bytes = b"",
        source: str = "127.0.0.1",
        to: str = "127.0.0.1",
    ) -> None:
        super().__init__(port, to=to, source=source)
        self._user, self._host = user, host

    def __enter__(self) -> Wire:
        super().__enter__()
        self.claim(HOST_NAME, self._host)
        self.claim(CLIENT_NAME, self._user)
        return self

    def claim(self, what: int, name: bytes) -> None:
        self.send(message(what, name + b"\0"))

    def next(self, wanted: int) -> Answer:
        """Return the next answer of a kind."""
        (found,) = self.answers(wanted)
        return found

    def channel(self, name: str) -> tuple[int, int]:
        """Return a channel's server id, and its rights: 1 read, 2 write."""
        self.send(message(CREATE, name.encode() + b"\0", p1=next(self._ids), p2=13))
        rights = self.next(ACCESS_RIGHTS).p2
        return self.next(CREATE).p2, rights

    def told(self, n: int) -> list[tuple[int, int, int]]:
        """Return the next n messages as command, first parameter, size; sorted, for C IOCs vary the order."""
        found = [self.answer() for _ in range(n)]
        return sorted(
            (answer.command, answer.p1, len(answer.payload)) for answer in found if answer is not None
        )

    def put(self, sid: int, value: int, command: int = WRITE) -> None:
        self.send(message(command, struct.pack(">i", value), kind=LONG, n=1, p1=sid, p2=7))
