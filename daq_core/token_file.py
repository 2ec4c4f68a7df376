"""The file that holds the secret of a service: read by ``serve``, and by the client commands that send it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from daq_core.errors import Unavailable

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")
"""What can follow ``Authorization: Bearer`` (RFC 6750), and is not guessed."""
MAKE_ONE = "Make one with: (umask 077; openssl rand -hex 32 > FILE)"


def read_token(path: Path) -> str:
    """Return the token in a file that only its owner can read.

    Raises
    ------
    Unavailable
        It is missing, others may read or write it, or it holds no token.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            about = os.fstat(file.fileno())
            text = file.read(1024)
    except OSError as error:
        raise Unavailable(f"The token file {path} cannot be read: {error.strerror}. {MAKE_ONE}") from None
    if not stat.S_ISREG(about.st_mode):
        raise Unavailable(f"The token file {path} is not a regular file. {MAKE_ONE}")
    if about.st_mode & 0o077:
        raise Unavailable(
            f"The token file {path} is open to others (mode {stat.S_IMODE(about.st_mode):04o}): "
            f"chmod 600 {path}"
        )
    if about.st_uid not in (0, os.geteuid()):
        raise Unavailable(f"The token file {path} belongs to user {about.st_uid}, not to us or root.")
    token = text.decode("ascii", errors="replace").strip()
    if TOKEN.fullmatch(token) is None:
        raise Unavailable(
            f"The token file {path} holds no token: a line of 16 to 512 letters and digits. {MAKE_ONE}"
        )
    return token


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not keep us waiting
