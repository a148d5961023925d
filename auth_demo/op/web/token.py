"""The token and revocation endpoints: strict form in, Authlib's answer out."""

from typing import Any

from litestar import Response, post

from auth_demo.op.protocol.authorization_server import OAuthReply, ProtocolRequest
from auth_demo.op.web.web import OpRequest, op_of, read_form

__all__ = ("revoke", "token")


@post("/token", status_code=200)
async def token(request: OpRequest) -> Response[Any]:
    """Redeem a code or a refresh token (RFC 6749 4.1.3 and 6, OIDC Core 3.1.3)."""
    protocol = await _protocol_request(request, "/token")
    return _send(op_of(request).oauth.create_token_response(protocol))


@post("/revoke", status_code=200)
async def revoke(request: OpRequest) -> Response[Any]:
    """Revoke a token of the client (RFC 7009); an unknown token is revoked already."""
    protocol = await _protocol_request(request, "/revoke")
    return _send(op_of(request).oauth.create_endpoint_response("revocation", protocol))


async def _protocol_request(request: OpRequest, path: str) -> ProtocolRequest:
    """Read the form; raises `ParameterError` for a malformed or repeated parameter (RFC 6749 3.2)."""
    form = (await read_form(request)).require_single()
    uri = f"{op_of(request).settings.issuer}{path}"
    return ProtocolRequest("POST", uri, form.values, request.headers.get("authorization"))


def _send(reply: Any) -> Response[Any]:  # noqa: ANN401 - Authlib is untyped
    given: OAuthReply = reply
    status, body, headers = given
    kept = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    return Response(dict(body), status_code=status, headers=kept)
