"""The few kinds of errors the DAQ raises, each also the builtin it is a case of.

::

    DaqError
    ├── InvalidRequest (ValueError)    a start that cannot be: bad path, bad number
    ├── InvalidConfig  (ValueError)    a detector config that cannot be
    ├── Busy           (RuntimeError)  a command that is not legal in the present state
    ├── Stopped        (RuntimeError)  a start that a Stop came after, before it was a run
    ├── Unavailable    (OSError)       a port, a process or a file system is not to be had
    └── RunFailed      (RuntimeError)  an accepted run could not open, write or close its file

The text of each is made for the person who reads it at 3 in the morning: what,
where, and what to do. None of the first four changes anything.
"""

from __future__ import annotations


class DaqError(Exception):
    """Anything the DAQ refuses or fails to do; ``str()`` is fit to be shown to a user."""


class InvalidRequest(DaqError, ValueError):
    """A write request that cannot be carried out as asked; nothing was changed."""


class InvalidConfig(DaqError, ValueError):
    """A detector config that is incomplete, inconsistent or out of range; nothing was changed."""


class Busy(DaqError, RuntimeError):
    """A command that the present state does not allow; nothing was changed."""


class Stopped(DaqError, RuntimeError):
    """A start that was ended before its file was open; nothing was changed."""


class Unavailable(DaqError, OSError):
    """Something of the machine that the DAQ needs is missing or taken."""


class RunFailed(DaqError, RuntimeError):
    """An accepted run ended as FAILED; the text is the acquisition's message."""
