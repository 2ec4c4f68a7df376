"""The kinds of processes that the fork server forks."""

from __future__ import annotations

RECEIVER, WRITER, LOOK, MAPS = b"r", b"w", b"l", b"m"
"""What a request for one says."""

NAMES = {RECEIVER: b"daq-receiver", WRITER: b"daq-writer", LOOK: b"daq-look", MAPS: b"daq-maps"}
"""As ps and top show them."""
