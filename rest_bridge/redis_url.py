"""A Redis URL as people write it, with any password, of which nothing is ever shown.

Passwords have characters that mean something in a URL, as # and /. They may be written as
they are here: what is before the last @ is user and password.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import redis.asyncio as redis

from daq_core.errors import Unavailable

LIKE = "It is like redis://user:password@host:6379/0."


def checked_url(text: str) -> str:
    """Return a URL that redis understands, of one that has ``redis://`` or only ``host:port``.

    Raises
    ------
    Unavailable
        It is none; the text shows nothing of it, for it may hold a password.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "redis", text
    secret, at, where = rest.rpartition("@")
    url = f"{scheme}://{quote(secret, safe=':%')}{at}{where}"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        raise Unavailable(
            f"The Redis URL cannot be used: its host or port is none, or an @ is missing. {LIKE}"
        ) from None
    try:
        redis.ConnectionPool.from_url(url)
    except ValueError as error:
        reason = str(error) if parts.scheme not in ("redis", "rediss", "unix") else "an option of it is wrong"
        raise Unavailable(f"The Redis URL cannot be used: {reason.rstrip('.')}. {LIKE}") from None
    return url


def place_of(url: str) -> str:
    """Return host and port of a checked URL, or the path of a socket; nothing else of it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or 6379}" if host else parts.path
