"""What is kept of datagrams that are not the config's, port by port, for the sentences of ``strangers``.

All of them are counted as malformed. A packet number that the config's frames do not
have says more than that: its frame has another format (``daq_core.assembling.verdicts``).
"""

from __future__ import annotations

from typing import Any

from daq_core.kernels.compiling import kernel
from daq_core.ring.words import SocketState, Word

ODD = -5  # of a datagram in `taken`, besides what claim answers: to be looked at after the batch


@kernel
def note_length(ring: Any, port: int, length: Any) -> None:
    """Count a datagram of another length."""
    ring.words[Word.MALFORMED] += 1
    ring.sockets[port, SocketState.ODD_LENGTHS] += 1
    ring.sockets[port, SocketState.ODD_LENGTH] = length


@kernel
def note_header(ring: Any, port: int, header: Any) -> None:
    """Count a datagram whose header is another detector's: the bits of it that were looked at."""
    ring.words[Word.MALFORMED] += 1
    ring.sockets[port, SocketState.ODD_HEADERS] += 1
    ring.sockets[port, SocketState.ODD_HEADER] = header


@kernel
def note_number(ring: Any, port: int, number: Any) -> None:
    """Count a datagram with a packet or row that the config's frames do not have."""
    ring.words[Word.MALFORMED] += 1
    ring.sockets[port, SocketState.ODD_NUMBERS] += 1
    ring.sockets[port, SocketState.ODD_NUMBER] = max(ring.sockets[port, SocketState.ODD_NUMBER], number)
