"""The folder of the files, as the user who will own them: is it writable, how full and how fast is it?"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from daq_core.amounts import in_gb
from daq_core.config import DaqConfig
from daq_core.errors import InvalidRequest
from daq_core.files.output import UNKNOWN, check_folder, space_left
from daq_core.linux.user import become, find_owner, user_name
from ioc.program.doctor.finding import Finding, Findings

PIECE_BYTES = 8 * 2**20
MOST_BYTES = 2**30
MOST_S = 2.0  # of each of the two speeds
FAST_ENOUGH = 1e9  # bytes a second: a ten-gigabit link
IN_MEMORY = ("tmpfs", "ramfs")
GB = 1e9


@dataclass(frozen=True)
class Speed:
    """Bytes a second, into the page cache and to the disk: by direct writes, else synced."""

    cache: float
    disk: float
    direct: bool


def look_at_storage(folder: Path, config: DaqConfig) -> Findings:
    """Write for some seconds into a folder, and look at what becomes of it."""
    path = str(folder.resolve())
    try:
        owner = find_owner(config.writer_user_id)
    except InvalidRequest:
        owner = find_owner(0)  # that is a finding of its own
    refused = as_user(owner.uid, config, lambda: _refusal(path))
    if refused:
        cure = f"chown {user_name(owner.uid)} {path}" if folder.is_dir() else f"mkdir -p {path}"
        yield Finding("output folder", "problem", refused, cure)
        return
    kind, mount = file_system(path)
    yield _folder(path, kind)
    free = space_left(os.statvfs(path))
    yield _space(path, mount, free)
    if free == UNKNOWN:
        free = 2 * MOST_BYTES
    if free < 4 * PIECE_BYTES:
        return
    try:
        measured = as_user(owner.uid, config, lambda: _measure(path, min(MOST_BYTES, free // 2)))
    except OSError as error:
        yield Finding(
            "file system", "problem", f"{path}: {error.strerror or error}", f"df -h {path}; dmesg | tail"
        )
        return
    yield _speed(Speed(**json.loads(measured)), kind, mount)


def _folder(path: str, kind: str) -> Finding:
    if kind in IN_MEMORY:
        return Finding(
            "output folder",
            "limits",
            f"{path} is on {kind}: its files are in memory",
            f"findmnt --types {kind}",
        )
    return Finding("output folder", "good", f"{path} is writable, on {kind}")


def _space(path: str, mount: str, free: int) -> Finding:
    if free == UNKNOWN:
        return Finding(
            "disk space", "limits", f"{mount} does not say how much is free", f"findmnt --target {path}"
        )
    text = f"{in_gb(free)} free on {mount}"
    if free < 1 * GB:
        return Finding("disk space", "problem", text, f"du -xsh {mount}/* | sort -h   # what takes it?")
    if free < 10 * GB:
        return Finding(
            "disk space", "limits", f"{text}: {free / GB:.0f} s at 1 GB/s", f"du -xsh {mount}/* | sort -h"
        )
    return Finding("disk space", "good", text)


def _speed(speed: Speed, kind: str, mount: str) -> Finding:
    how = "past the page cache" if speed.direct else "synced"
    text = f"{in_gb(speed.cache)}/s into memory, {in_gb(speed.disk)}/s to the disk ({how})"
    if speed.disk >= FAST_ENOUGH or (kind in IN_MEMORY and speed.cache >= FAST_ENOUGH):
        return Finding("file system", "good", text)
    return Finding(
        "file system",
        "limits",
        f"{text}: longer runs above that drop images once the page cache is full",
        f"std-daq-ioc doctor --output OTHER_FOLDER   # is another one than {mount} faster?",
    )


def _refusal(path: str) -> str:
    try:
        check_folder(path, ["/"])
    except InvalidRequest as refused:
        return str(refused)
    try:
        with tempfile.TemporaryFile(dir=path):
            return ""
    except OSError as error:
        return f"Output file folder {path}: {error.strerror}."


def _measure(path: str, most_bytes: int) -> str:
    cache = _write(path, most_bytes, 0)
    try:
        disk, direct = _write(path, most_bytes, os.O_DIRECT), True
    except OSError:
        disk, direct = _write(path, most_bytes, 0, sync=True), False
    return json.dumps({"cache": cache, "disk": disk, "direct": direct})


def _write(path: str, most_bytes: int, flags: int, *, sync: bool = False) -> float:
    """Write a file that is gone afterwards; return bytes a second."""
    with (
        tempfile.NamedTemporaryFile(dir=path, prefix="std-daq-doctor-") as file,
        mmap.mmap(-1, PIECE_BYTES) as piece,
    ):
        piece.write(os.urandom(1 << 16) * (PIECE_BYTES >> 16))  # no zeros, which some file systems leave out
        descriptor = os.open(file.name, os.O_WRONLY | flags)
        try:
            begin = time.monotonic()
            n_bytes = 0
            while n_bytes + PIECE_BYTES <= most_bytes and time.monotonic() - begin < MOST_S:
                n_bytes += os.pwrite(descriptor, piece, n_bytes)
            if sync:
                os.fdatasync(descriptor)
            return n_bytes / (time.monotonic() - begin)
        finally:
            os.close(descriptor)


def as_user(uid: int, config: DaqConfig, work: Callable[[], str]) -> str:
    """Do some work as the user who owns the files, in a process of its own where that is somebody else.

    Raises
    ------
    OSError
        The work failed; errno and text are those of its own error.
    """
    if uid == os.geteuid():
        return work()
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: dict[str, str | int] = {"errno": 0, "text": "it ended without a word"}
        with contextlib.suppress(BaseException):
            try:
                become(find_owner(config.writer_user_id))
                answer = {"result": work()}
            except OSError as error:
                answer = {"errno": error.errno or 0, "text": error.strerror or str(error)}
            os.write(ours, json.dumps(answer).encode())
        os._exit(0)
    os.close(ours)
    with open(theirs, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    heard = json.loads(said or b'{"errno": 0, "text": "the process ended without a word"}')
    if "result" not in heard:
        raise OSError(heard["errno"], heard["text"])
    return str(heard["result"])


def file_system(path: str) -> tuple[str, str]:
    """Return type and mount point of the file system that a path is on."""
    device = os.stat(path).st_dev
    found = ("unknown", "/")
    for mounted in psutil.disk_partitions(all=True):
        mount = mounted.mountpoint
        with contextlib.suppress(OSError):
            if os.path.commonpath([path, mount]) == mount and os.stat(mount).st_dev == device:
                found = (mounted.fstype, mount)
    return found
