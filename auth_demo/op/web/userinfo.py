"""The userinfo endpoint: claims of the user for a bearer token in the Authorization header."""

from typing import Any

from litestar import HttpMethod, Response, route

from auth_demo.op.protocol.claims import claims_for
from auth_demo.op.web.web import READ, OpRequest, op_of

__all__ = ("userinfo",)


@route("/userinfo", http_method=[*READ, HttpMethod.POST], status_code=200)
async def userinfo(request: OpRequest) -> Response[Any]:
    """Answer with the claims the token's scope releases (OIDC Core 5.3).

    Tokens in the query or the body are not looked at (RFC 9700 4.3.2): they end up in logs and histories.
    """
    op = op_of(request)
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value:
        return _refuse(401, None)
    token = op.grants.find_access_token(value.strip())
    account = op.oauth.query_account(token.grant.sub) if token is not None else None
    if token is None or account is None:
        return _refuse(401, "invalid_token")
    if "openid" not in token.scope.split():
        return _refuse(403, "insufficient_scope")
    return Response(claims_for(account, token.scope))


def _refuse(status: int, error: str | None) -> Response[Any]:
    """Challenge as RFC 6750 3 wants: no error code when no token came."""
    challenge = 'Bearer realm="demo"' + (f', error="{error}"' if error else "")
    return Response({"error": error or "invalid_request"}, status_code=status, headers={"WWW-Authenticate": challenge})
