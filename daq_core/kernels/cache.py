"""Where compiled kernels are kept: a folder for each version of this package, and who removes old ones.

The folder is named after the sources' content, because numba looks only at the file of
the outermost function: without it, an edit in a called file would go on running the old code.
``NUMBA_CACHE_DIR`` overrides the place, and is left alone then.

A cache is a help and never a condition. One that cannot be written is read where it can be, one that is
damaged counts as none, and without any folder the kernels are compiled at each start.

Each process that uses a folder holds a lock on it (flock(2), shared), so that whoever compiles
anew can remove the folders of other versions that nobody uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator

log = logging.getLogger(__name__)

NAME = "kernels-"

_held: list[int] = []  # descriptors whose locks last as long as this process and what it forks


def choose_folder() -> Path | None:
    """Return the folder for kernels of this version: of this user, else one in the place for temporary files.

    The first that has kernels, or can have some; None when none can.
    """
    name = NAME + _digest()
    own = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "std-daq-ioc", name)
    # Without an account, "~" stays as it is, and would be a folder wherever the service was started.
    if own.is_absolute() and _is_of_use(own):
        return own
    temporary = Path(tempfile.gettempdir(), f"std-daq-ioc-{os.geteuid()}")
    if _make_private(temporary) and _is_of_use(temporary / name):
        return temporary / name
    return None


def _is_of_use(folder: Path) -> bool:
    return has_kernels(folder) or _is_writable(folder)


def _digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _make_private(folder: Path) -> bool:
    """Tell whether a folder is ours alone: what is in it will be run."""
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return False


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def has_kernels(folder: Path) -> bool:
    """Tell whether something was compiled into a folder."""
    try:
        return any(folder.rglob("*.nbi"))
    except OSError:
        return False


def hold(folder: Path) -> None:
    """Keep a folder from being removed by other versions, until this process and its children are gone."""
    with contextlib.suppress(OSError):  # it cannot be read, or its file system has no locks
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        _held.append(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def remove_others(folder: Path) -> list[Path]:
    """Remove the folders of other versions beside one, but for those in use; return what was removed."""
    removed = []
    with contextlib.suppress(OSError):
        for other in sorted(folder.parent.glob(NAME + "*")):
            if other != folder and not other.is_symlink() and _remove_unused(other):
                removed.append(other)
    return removed


def _remove_unused(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError:  # somebody uses it, or it is not ours to remove
        return False
    else:
        return True
    finally:
        os.close(descriptor)


class _Locator(UserProvidedCacheLocator):  # type: ignore[misc]  # numba is Any to mypy
    """numba's own for ``NUMBA_CACHE_DIR``, which passes over a folder that it cannot write in."""

    def ensure_cache_path(self) -> None:
        with contextlib.suppress(OSError):
            os.makedirs(self.get_cache_path(), exist_ok=True)


class _Kept(CompileResultCacheImpl):  # type: ignore[misc]  # numba is Any to mypy
    _locator_classes = (_Locator,)


class KernelCache(FunctionCache):  # type: ignore[misc]  # numba is Any to mypy
    """The kernels of one function on disk, as far as the disk allows."""

    _impl_class = _Kept
    trouble = ""  # why the last one could not be kept

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # a damaged file can raise whatever its bytes say to pickle
            index = self._cache_file._index_path
            log.warning("%s is damaged (%r): compiled anew", index, error)
            with contextlib.suppress(OSError):
                os.unlink(index)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # not writable, full, or the index that is there is damaged
            KernelCache.trouble = f"{type(error).__name__}: {error}"


def is_kept(kernel: Any) -> bool:
    """Tell whether something of a kernel is in the cache."""
    return isinstance(kernel._cache, KernelCache) and os.path.exists(kernel._cache._cache_file._index_path)
