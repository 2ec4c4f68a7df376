"""The URL of a Redis server: what is refused, and what of it may be shown."""

from __future__ import annotations

import pytest

from daq_core.errors import Unavailable
from rest_bridge.redis_url import checked_url, place_of


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret#word",
        "redis://:secret/word",
        "redis://secret:word",
        "redis://user:secret@host:port/0",
        "redis://user:secret@[::1/0",
        "http://user:secret@host:1",
        "redis://host:1/0?password=secret&socket_timeout=word",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Unavailable, match="The Redis URL cannot be used") as refused:
        checked_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("host", "host:6379"),
        ("host:7", "host:7"),
        ("redis://u:p#@host:7/1", "host:7"),
        ("rediss://u:p/@host", "host:6379"),
        ("redis://u:p@[::1]:7", "[::1]:7"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock"),
    ],
)
def test_the_place_of_a_server_is_shown_and_nothing_else(url: str, place: str) -> None:
    assert place_of(checked_url(url)) == place
