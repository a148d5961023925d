"""Selects the provider of a login, or lets the user choose. Starts no login."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from typing import Final
from urllib.parse import quote, urlencode

from session_core.asgi.answers import wants_page
from session_core.asgi.web import HTML, JSON, Response, WebRequest
from session_core.errors import AuthorizationResponseError
from session_core.identity import Identity
from session_core.oidc.config import ProviderChoice
from session_core.oidc.login.request import LoginRequest
from session_core.oidc.provider.registration import DEFAULT_ID
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.relying_party import RelyingParty

__all__ = ("choice_response", "chosen_party", "usual_party")

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Log in</title></head>
<body><main><h1>Log in with</h1><ul>{items}</ul><p><a href="{start}">Back to the start page</a></p></main></body></html>
"""


def chosen_party(relying_parties: RelyingParties, asked: LoginRequest, path_id: str | None = None) -> RelyingParty | None:
    """Return the relying party that the request names by path, `provider` or `iss`; None without a name.

    Raises `AuthorizationResponseError` for an unknown name, and for two that differ: a request can never add a provider.
    """
    found: set[str] = set()
    for provider_id in (path_id, asked.provider):
        if provider_id is not None:
            if relying_parties.find(provider_id) is None:
                raise AuthorizationResponseError("unknown_provider")
            found.add(provider_id)
    if asked.issuer is not None:
        party = relying_parties.by_issuer(asked.issuer)
        if party is None:
            raise AuthorizationResponseError("unknown_issuer")
        found.add(party.provider.id)
    if len(found) > 1:
        raise AuthorizationResponseError("provider_mismatch")
    return relying_parties.find(found.pop()) if found else None


def usual_party(relying_parties: RelyingParties, identity: Identity | None) -> RelyingParty | None:
    """Return the provider of a login without a name: the only one, or that of the current session."""
    if len(relying_parties) == 1:
        return relying_parties.first
    return relying_parties.by_issuer(identity.issuer) if identity is not None else None


def choice_response(request: WebRequest, relying_parties: RelyingParties, params: Mapping[str, str]) -> Response:
    """Return the choice of providers: a page of links for a browser, a JSON list for a program. `params`: those of the login."""
    base = relying_parties.base.at(request.scope)
    choices = [
        ProviderChoice(party.provider.id, party.provider.title or party.provider.id, base.of(_address(party, params)))
        for party in relying_parties
    ]
    if not wants_page(request):
        return Response({"providers": [asdict(each) for each in choices]}, media_type=JSON)
    if relying_parties.config.choice_page is not None:
        return Response(relying_parties.config.choice_page(choices), media_type=HTML)
    items = "".join(f'<li><a href="{escape(each.href)}">{escape(each.title)}</a></li>' for each in choices)
    return Response(_PAGE.format(items=items, start=escape(base.of("/"))), media_type=HTML)


def _address(party: RelyingParty, params: Mapping[str, str]) -> str:
    provider_id = party.provider.id
    given = {**params, "provider": provider_id} if provider_id == DEFAULT_ID else dict(params)
    path = "/auth/login" if provider_id == DEFAULT_ID else f"/auth/login/{provider_id}"
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path
