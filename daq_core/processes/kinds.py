"""The kinds of processes that the fork server forks."""

from __future__ import annotations

RECEIVER, WRITER, MEND, LOOK, MAPS = b"r", b"w", b"f", b"l", b"m"
"""What a request for one says."""

NAMES = {
    RECEIVER: b"daq-receiver",
    WRITER: b"daq-writer",
    MEND: b"daq-mend",
    LOOK: b"daq-look",
    MAPS: b"daq-maps",
}
"""As ps and top show them."""
