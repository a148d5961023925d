"""One route of the relying party, for every framework: path and handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from session_core.asgi.web import Response, WebRequest
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.relying_party import RelyingParty

__all__ = ("Endpoint", "NoSuchProviderError", "Route", "party_at")

Endpoint: TypeAlias = "Callable[[WebRequest, RelyingParties, str | None], Awaitable[Response]]"
"""Called with the request, the relying parties and the provider's id from the path, if the route has one."""


NO_CONTENT: Final[tuple[str, ...]] = ()


class NoSuchProviderError(Exception):
    """The path names a provider that is not configured: 404."""


class Route(NamedTuple):
    """`path` is below `/auth`; with `by_provider` a provider's id is appended."""

    method: Literal["GET", "POST"]
    path: str
    endpoint: Endpoint
    summary: str = ""
    """The summary in the OpenAPI schema; a route without one is not in the schema."""
    status: int = 200
    session: bool = False
    """Whether it uses the session. Other routes read no cookie, so cross-site requests are accepted."""
    by_provider: bool = False
    head: bool = False
    """Whether it answers HEAD: a GET without effects. The others start a login, end a session or use up a code."""
    answers: Mapping[int, tuple[str, ...]] = MappingProxyType({200: NO_CONTENT})
    """The media types of each response that is not one of `errors`, by its status, for the schema."""
    errors: tuple[int, ...] = ()
    """The statuses of its errors, for the schema: problem+json (RFC 9457), or a page for browsers."""


def party_at(relying_parties: RelyingParties, provider_id: str) -> RelyingParty:
    """Return the relying party of a provider. Raises `NoSuchProviderError`."""
    party = relying_parties.find(provider_id)
    if party is None:
        raise NoSuchProviderError
    return party
