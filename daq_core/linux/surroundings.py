"""What of the environment the processes of this program do not obey.

HDF5 reads its own names there: another driver or connector would make other files than
HDF5 files, or none, and one that is not to be had keeps the library from loading at all. And
Python takes the encoding of file names from the locale: a file is named by the UTF-8 bytes
of what was asked for, whatever that is. Nobody but owner and group may change the files that
are made here (a journal, a kernel that is run, an image), even where the umask would let everybody.

Source: HDF5's "Environment Variables"; Python's ``-X utf8``.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Mapping

HDF5_SETTINGS = (
    "HDF5_DRIVER",
    "HDF5_DRIVER_CONFIG",
    "HDF5_TEST_DRIVER",
    "HDF5_VOL_CONNECTOR",
    "HDF5_PLUGIN_PRELOAD",
    "HDF5_VDS_PREFIX",
    "HDF5_EXTFILE_PREFIX",
    "HDF5_EXT_PREFIX",
)
"""What changes which file is opened, and as what. Not where plug-ins are, nor whether a reader locks."""

HDF5_LOCKING = "HDF5_USE_FILE_LOCKING"
"""It outdoes what a program says; whether a writer locks its file is ours to decide."""
LOCKS_ALWAYS = ("TRUE", "1")
"""Its other values are for file systems without locks, where readers need them."""


def environment_of_forks(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the fork server, and so each receiver and writer, has of an environment."""
    kept = {k: v for k, v in environment.items() if k not in HDF5_SETTINGS and k != HDF5_LOCKING}
    return kept | {
        "OPENBLAS_NUM_THREADS": "1",  # a process that forks has one thread
        "PYTHONUTF8": "1",
    }


def disregard_hdf5_settings() -> None:
    """Take from this process what HDF5 would obey; before it is loaded."""
    for name in HDF5_SETTINGS:
        os.environ.pop(name, None)
    if os.environ.get(HDF5_LOCKING) in LOCKS_ALWAYS:  # a file that `repair` holds already
        del os.environ[HDF5_LOCKING]


def speak_utf8() -> None:
    """Begin anew with UTF-8 where the locale has another encoding; this process stays the same one."""
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def let_no_others_write() -> None:
    """Take from files and folders that are made from now on the right of others to change them."""
    umask = os.umask(0o022)
    os.umask(umask | 0o002)
