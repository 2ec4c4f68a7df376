"""Becoming the user that owns the files: groups, gid and uid, all three, for good.

Done in the forked writer before it touches a file, never in a process with
threads, and never undone.
"""

from __future__ import annotations

import errno
import os
import pwd
from dataclasses import dataclass

from daq_core.errors import InvalidRequest


@dataclass(frozen=True)
class FileOwner:
    """Who the files of a run belong to."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    warning: str = ""
    note: str = ""  # for the log; nothing to look at


def find_owner(writer_user_id: int, *, writer_group: int | None = None, min_user_id: int = 0) -> FileOwner:
    """Work out the owner for a config's ``writer_user_id``; below 1 means the service's own user.

    `min_user_id` is the least that the site allows, for the service's own user too; 0: it says nothing.

    Raises
    ------
    InvalidRequest
        The owner would be below what the site allows, or needs root and the service is not root.
    """
    check_right(writer_user_id, min_user_id)
    own = os.geteuid()
    if writer_user_id < 1:
        note = f"files will belong to root: writer_user_id is {writer_user_id}" if own == 0 else ""
        return FileOwner(own, os.getegid(), tuple(os.getgroups()), note=note)
    try:
        known = pwd.getpwuid(writer_user_id)
    except KeyError:
        gid = writer_user_id if writer_group is None else writer_group
        return FileOwner(
            writer_user_id, gid, (gid,), f"user {writer_user_id} is not known here; files get group {gid}"
        )
    return FileOwner(writer_user_id, known.pw_gid, tuple(os.getgrouplist(known.pw_name, known.pw_gid)))


def check_right(writer_user_id: int, min_user_id: int) -> None:
    """Raise InvalidRequest where files may not belong to a user; looks no user up, which may hang."""
    own = os.geteuid()
    if writer_user_id < 1:
        if own < min_user_id:
            raise InvalidRequest(
                f"Invalid writer_user_id={writer_user_id}. Files would belong to {user_name(own)}, user "
                f"{own}, whom the service runs as; the lowest allowed here is {min_user_id}."
            )
        return
    if writer_user_id < min_user_id:
        raise InvalidRequest(
            f"Invalid writer_user_id={writer_user_id}. The lowest allowed here is {min_user_id}."
        )
    if own not in (0, writer_user_id):
        raise InvalidRequest(
            f"Cannot write as writer_user_id={writer_user_id}: the service runs as user {own}, and only "
            "root can change the user. Set writer_user_id to 0, or start the service as root."
        )


def become(owner: FileOwner) -> None:
    """Turn this process into the owner's, entirely; a process that is not root must be it already.

    Raises
    ------
    InvalidRequest
        The kernel does not allow it. What the process is then is not said: it must open nothing.
    """
    if os.geteuid() != 0 or owner.uid == 0:
        return
    try:
        os.setgroups(owner.groups)
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)
    except OSError as error:
        raise InvalidRequest(
            f"Cannot write as writer_user_id={owner.uid}: the service runs as root, but {_why_not(error)}. "
            "Set writer_user_id to 0, or start the service where root may change the user."
        ) from None
    if (os.getresuid(), os.getresgid()) != ((owner.uid,) * 3, (owner.gid,) * 3):
        # 4294967295 means "as it is" to the kernel; nothing may be opened as root by mistake.
        raise InvalidRequest(f"Cannot write as user {owner.uid} with group {owner.gid}: the kernel refused.")


def _why_not(error: OSError) -> str:
    """Say what root lacks, as in a container or a user namespace: see capabilities(7), user_namespaces(7)."""
    if error.errno == errno.EPERM:
        return "without CAP_SETUID and CAP_SETGID, or in a user namespace that has only one user"
    if error.errno == errno.EINVAL:
        return "that user or its groups do not exist in its user namespace"
    return f"the kernel refused: {error.strerror}"


def user_name(uid: int) -> str:
    """Return the name of a user, or its number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
