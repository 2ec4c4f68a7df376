"""Who may change things, as the service will be started: what is open by default is said once."""

from __future__ import annotations

from pathlib import Path

from daq_core.errors import Unavailable
from daq_core.linux.network import is_loopback
from daq_core.token_file import MAKE_ONE, read_token
from ioc.program.doctor.finding import Finding, Findings

SUBJECT = "who may change"


def look_at_access(bind: str, token_file: Path | None) -> Findings:
    """Look at what guards the service's commands."""
    if token_file is not None:
        try:
            read_token(token_file)
        except Unavailable as refused:
            yield Finding(SUBJECT, "problem", str(refused), MAKE_ONE)
        else:
            yield Finding(SUBJECT, "good", f"by REST everybody who has the token of {token_file}")
    elif is_loopback(bind):
        yield Finding(
            SUBJECT,
            "limits",
            "every user of this machine can do what the service can: on loopback there is no token",
            "serve --token-file FILE, and --acf FILE for Channel Access   # where others have accounts here",
        )
