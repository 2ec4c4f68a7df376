"""Which addresses are of this machine alone, and which are in a list of networks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.linux.network import is_in, is_loopback, parse_networks


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("", False),
        ("localhost.elsewhere.org", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


def test_a_list_has_addresses_and_networks_of_both_kinds() -> None:
    networks = parse_networks("10.1.2.0/24, 10.1.3.7,fd00::/8")
    for inside in ("10.1.2.0", "10.1.2.255", "10.1.3.7", "::ffff:10.1.3.7", "fd12::1"):
        assert is_in(inside, networks)
    for outside in ("10.1.3.8", "10.1.1.255", "::ffff:10.1.3.8", "fe80::1", "", "localhost", "testclient"):
        assert not is_in(outside, networks)
    assert not is_in("10.1.3.7", parse_networks(""))


@pytest.mark.parametrize("text", ["10.1.2.3/24", "10.1.2.0/33", "300.1.1.1", "beamline", "10.1.2", "*"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_networks(text)


@given(st.text(max_size=60))
def test_any_text_is_a_list_of_networks_or_refused(text: str) -> None:
    try:
        networks = parse_networks(text)
    except ValueError:
        return
    assert all(is_in(str(network.network_address), [network]) for network in networks)
