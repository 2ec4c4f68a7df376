"""Becoming the user that owns the files: groups, gid and uid, all three, for good.

Done in the forked writer before it touches a file, never in a process with
threads, and never undone.
"""

from __future__ import annotations

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


def find_owner(writer_user_id: int, *, writer_group: int | None = None, min_user_id: int = 1) -> FileOwner:
    """Work out the owner for a config's ``writer_user_id``; below 1 means the service's own user.

    Raises
    ------
    InvalidRequest
        The id is below what the site allows, or needs root and the service is not root.
    """
    own = os.geteuid()
    if writer_user_id < 1:
        warning = "files will belong to root: writer_user_id is not set" if own == 0 else ""
        return FileOwner(own, os.getegid(), tuple(os.getgroups()), warning)
    if writer_user_id < min_user_id:
        raise InvalidRequest(
            f"Invalid writer_user_id={writer_user_id}. The lowest allowed here is {min_user_id}."
        )
    if own not in (0, writer_user_id):
        raise InvalidRequest(
            f"Cannot write as writer_user_id={writer_user_id}: the service runs as user {own}, and only "
            "root can change the user. Set writer_user_id to 0, or start the service as root."
        )
    try:
        known = pwd.getpwuid(writer_user_id)
    except KeyError:
        gid = writer_user_id if writer_group is None else writer_group
        return FileOwner(
            writer_user_id, gid, (gid,), f"user {writer_user_id} is not known here; files get group {gid}"
        )
    return FileOwner(writer_user_id, known.pw_gid, tuple(os.getgrouplist(known.pw_name, known.pw_gid)))


def become(owner: FileOwner) -> None:
    """Turn this process into the owner's, entirely; a process that is not root must be it already."""
    if os.geteuid() != 0 or owner.uid == 0:
        return
    os.setgroups(owner.groups)
    os.setresgid(owner.gid, owner.gid, owner.gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)
    if (os.getresuid(), os.getresgid()) != ((owner.uid,) * 3, (owner.gid,) * 3):
        # 4294967295 means "as it is" to the kernel; nothing may be opened as root by mistake.
        raise InvalidRequest(f"Cannot write as user {owner.uid} with group {owner.gid}: the kernel refused.")


def user_name(uid: int) -> str:
    """Return the name of a user, or its number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
