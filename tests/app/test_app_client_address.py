"""The client's address is the peer's, unless a trusted proxy forwards another one."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, cast

import pytest

from app.web.request_context import client_address, user_agent

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


def scope(peer: str, *forwarded: str) -> Any:
    return {"client": (peer, 1), "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded]}


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.9",), "192.0.2.1"),
        ("10.0.0.1", ("198.51.100.9",), "198.51.100.9"),
        ("10.0.0.1", ("203.0.113.66, 198.51.100.9",), "198.51.100.9"),
        ("10.0.0.1", ("203.0.113.66", "198.51.100.9, 10.0.0.2"), "198.51.100.9"),
        ("10.0.0.1", ("unknown",), "10.0.0.1"),
        ("10.0.0.1", ("<script>, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("::ffff:10.0.0.1", ("198.51.100.9",), "198.51.100.9"),
        ("2001:db8::1", ("2001:db9::7",), "2001:db9::7"),
        ("unix:", (), ""),
    ],
)
def test_forwarded_addresses_are_trusted_hop_by_hop_from_the_right(peer: str, forwarded: tuple[str, ...], expected: str) -> None:
    assert client_address(scope(peer, *forwarded), TRUSTED) == expected


def test_without_trusted_proxies_forwarding_headers_are_ignored() -> None:
    assert client_address(scope("10.0.0.1", "198.51.100.9"), ()) == "10.0.0.1"


def test_a_user_agent_is_shortened_and_printable() -> None:
    given = cast("Any", {"headers": [(b"user-agent", b"Mo\x1b[31mzilla\r\n" + b"x" * 999)]})
    assert user_agent(given).startswith("Mo[31mzilla")
    assert len(user_agent(given)) <= 256
