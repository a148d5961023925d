"""One route of the relying party, for every framework: path and handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from session_core.asgi.web import Response, WebRequest
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.relying_party import RelyingParty

__all__ = ("Endpoint", "NoSuchProviderError", "Route", "head_of", "party_at")

Endpoint: TypeAlias = "Callable[[WebRequest, RelyingParties, str | None], Awaitable[Response]]"
"""Called with the request, the relying parties and the provider's id from the path, if the route has one."""


NO_CONTENT: Final[tuple[str, ...]] = ()


class NoSuchProviderError(Exception):
    """The path names a provider that is not configured: 404."""


class Route(NamedTuple):
    """`path` is below `/auth`; with `by_provider` a provider's id is appended."""

    method: Literal["GET", "HEAD", "POST"]
    path: str
    endpoint: Endpoint
    summary: str = ""
    """The summary in the OpenAPI schema; a route without one is not in the schema."""
    status: int = 200
    session: bool = False
    """Whether it uses the session. Other routes read no cookie, so cross-site requests are accepted."""
    by_provider: bool = False
    safe: bool = False
    """Whether it is a GET that starts no login, ends no session and uses up no code, so that a HEAD may run it."""
    answers: Mapping[int, tuple[str, ...]] = MappingProxyType({200: NO_CONTENT})
    """The media types of each response that is not one of `errors`, by its status, for the schema."""
    errors: tuple[int, ...] = ()
    """The statuses of its errors, for the schema: problem+json (RFC 9457), or a page for browsers."""


def head_of(route: Route) -> Route:
    """Return the route that answers HEAD where `route` answers GET (RFC 9110 9.3.2). It is not in the schema.

    Link scanners and monitors send HEAD: it must not do what only a browser may do for its user.
    """
    if route.safe:
        return route._replace(method="HEAD", summary="")
    return Route("HEAD", route.path, without_effect, by_provider=route.by_provider)


async def without_effect(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Answer 200, whatever the request presents: it is not read, so that the response discloses nothing about it."""
    del request
    if provider_id is not None:
        party_at(relying_parties, provider_id)
    return Response()


def party_at(relying_parties: RelyingParties, provider_id: str) -> RelyingParty:
    """Return the relying party of a provider. Raises `NoSuchProviderError`."""
    party = relying_parties.find(provider_id)
    if party is None:
        raise NoSuchProviderError
    return party
