"""Parses and validates one RP-initiated logout request; ends no session."""

from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode

from auth_demo.op.provider import EmbeddedOp
from auth_demo.op.settings import RegisteredClient
from auth_demo.op.web.parameters import ParameterError, Parameters

__all__ = ("LogoutRequest", "read_logout_request")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutRequest:
    """A logout request (OIDC RP-Initiated Logout 1.0, 2): who asks, for whom, and where to go afterwards."""

    client: RegisteredClient | None
    hinted_sub: str | None
    hinted_sid: str | None
    return_to: str | None = field(repr=False)


def read_logout_request(op: EmbeddedOp, parameters: Parameters) -> LogoutRequest:
    """Return the request; raises `ParameterError` for a contradictory one or an unregistered return address.

    An ``id_token_hint`` that is not ours (after a restart the keys are new) counts as absent: the user is asked.
    """
    parameters.require_single()
    hint = parameters.get("id_token_hint")
    claims: dict[str, Any] = (op.id_tokens.read_hint(hint) if hint else None) or {}
    client_id = parameters.get("client_id") or cast("str | None", claims.get("aud"))
    if claims and client_id != claims["aud"]:
        message = "client_id and id_token_hint name different applications"
        raise ParameterError(message)
    known = op.oauth.query_client(client_id) if client_id else None
    client = known.registered if known else None
    if client_id and client is None:
        message = "the application is not known here"
        raise ParameterError(message)
    return LogoutRequest(
        client=client,
        hinted_sub=claims.get("sub"),
        hinted_sid=claims.get("sid"),
        return_to=_return_to(client, parameters),
    )


def _return_to(client: RegisteredClient | None, parameters: Parameters) -> str | None:
    """Return the exact registered address with ``state``; an unnamed client gets no redirect (section 3)."""
    uri, state = parameters.get("post_logout_redirect_uri"), parameters.get("state")
    if uri is None or client is None:
        return None
    if uri not in client.post_logout_redirect_uris:
        message = "the return address is not exactly a registered one of the application"
        raise ParameterError(message)
    if state is None:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode({'state': state})}"
