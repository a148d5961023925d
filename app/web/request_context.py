"""The client of the current request, for the log, the audit trail and the device list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from litestar.types import Scope

    from app.settings.settings import Network

__all__ = ("RequestContext", "client_address", "current_request", "user_agent")

_MAX_USER_AGENT: Final = 256


class RequestContext(msgspec.Struct, frozen=True):
    """The loggable facts about a request."""

    request_id: str = ""
    ip: str = ""
    user_agent: str = ""


current_request: ContextVar[RequestContext] = ContextVar("current_request", default=RequestContext())  # noqa: B039 - frozen


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """Return the client's address: the peer's, or the one reported by trusted proxies.

    X-Forwarded-For is read from the right, up to the first untrusted hop, so entries written by the client are never used.
    """
    client = scope.get("client")
    peer = _parse(client[0] if client else "")
    if peer is None:
        return ""
    address = peer
    if trusted:
        for hop in _forwarded(scope["headers"]):
            if not any(address in network for network in trusted):
                break
            previous = _parse(hop)
            if previous is None:
                break
            address = previous
    return str(address)


def user_agent(scope: Scope) -> str:
    """Return the User-Agent header, shortened, without control characters."""
    raw = next((value for name, value in scope["headers"] if name == b"user-agent"), b"").decode("latin-1")
    return "".join(character for character in raw[:_MAX_USER_AGENT] if character.isprintable())


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    joined = ",".join(value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for")
    return [hop.strip() for hop in reversed(joined.split(",")) if hop.strip()]


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
