"""Whether a file may be written where a user asks for it; runs as the user who will own it.

Everything here touches the file system and may hang with it, so it happens in
the run's own writer process before the run is accepted: a refusal changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from daq_core.amounts import in_gb
from daq_core.errors import InvalidRequest
from daq_core.files.roots import check_roots
from daq_core.linux.user import user_name

UNKNOWN = 0
"""Free bytes where nobody says how many there are; of a full file system they are 1."""


def check_output(path: str, *, roots: Sequence[str], overwrite: bool) -> int:
    """Check an output path and return the free bytes of its file system, or UNKNOWN.

    Raises
    ------
    InvalidRequest
        The folder is missing, not writable or outside the allowed roots, or
        something is at the path already that must not be replaced.
    """
    folder = os.path.dirname(path)
    check_folder(folder, roots)
    _check_existing(path, overwrite)
    return space_left(os.statvfs(folder))


def space_left(space: os.statvfs_result) -> int:
    """Return the free bytes of a file system, or UNKNOWN where it counts none, as ramfs and some of FUSE."""
    if space.f_blocks * space.f_frsize == 0:
        return UNKNOWN
    return max(1, space.f_bavail * space.f_frsize)


def check_folder(folder: str, roots: Sequence[str]) -> None:
    """Raise InvalidRequest unless a folder exists, lies in one of the allowed roots, and can be written."""
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
    except PermissionError:
        raise InvalidRequest(f"Output file folder {folder} cannot be entered by user {_me()}.") from None
    except OSError:
        is_folder = False
    if not is_folder:
        raise InvalidRequest(f"Output file folder {folder} does not exist. Please create it first.")
    check_roots(folder, roots)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidRequest(f"Output file folder {folder} is not writable for user {_me()}.")


def _check_existing(path: str, overwrite: bool) -> None:
    try:
        about = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidRequest(f"Invalid output_file={path}. {error.strerror}.") from None
    mode = about.st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "not a regular file"
        raise InvalidRequest(f"Invalid output_file={path}. There is {kind} of that name.")
    if not overwrite:
        raise InvalidRequest(
            f"Output file {path} exists already. Choose another name; existing files are only replaced "
            "by a service started with --overwrite."
        )
    if why := why_not_replaced(about):
        raise InvalidRequest(f"Output file {path} exists already, and is not replaced: {why}.")


def why_not_replaced(about: os.stat_result) -> str:
    """Return why a regular file must not be overwritten by this user, "" when it may be."""
    if about.st_nlink > 1:
        return "it has other names too (hard links)"
    if about.st_uid != os.geteuid():
        return f"it belongs to user {user_name(about.st_uid)}, not to {_me()}"
    return ""


def _me() -> str:
    return user_name(os.geteuid())


def check_space(free_bytes: int, n_images: int, image_bytes: int, *, compressed: bool = False) -> str:
    """Return a warning when little space would be left, "" otherwise, and where nobody knows.

    How small images become nobody knows before, so of compressed ones this is never sure.

    Raises
    ------
    InvalidRequest
        A run of known length, uncompressed, cannot fit.
    """
    if free_bytes == UNKNOWN:
        return ""
    needed = n_images * image_bytes
    if needed > free_bytes and compressed:
        return (
            f"{n_images} images are up to {in_gb(needed)}, as far as compression does not help, "
            f"and {in_gb(free_bytes)} are free"
        )
    if needed > free_bytes:
        raise InvalidRequest(
            f"Not enough space: {n_images} images need {in_gb(needed)}, but {in_gb(free_bytes)} are free."
        )
    if compressed:
        needed = 0
    if free_bytes - needed < 1e9:
        return f"only {in_gb(free_bytes - needed)} will be left on the file system"
    return ""
