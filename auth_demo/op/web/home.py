"""The provider's front page and its packaged static files."""

from typing import Any

from litestar import Response, route

from auth_demo.op.web.pages import render, static_asset
from auth_demo.op.web.web import READ, OpRequest, op_of, session_of

__all__ = ("auto_submit", "home", "icon", "stylesheet")


@route("/", http_method=READ)
async def home(request: OpRequest) -> Response[Any]:
    """Show who is signed in here and at which applications."""
    op, session = op_of(request), session_of(request)
    account = op.oauth.query_account(session.sub) if session else None
    signed_in_at = [client for client in op.clients if session and client.client_id in session.client_ids]
    return render("home.html", account=account, accounts=op.accounts, signed_in_at=signed_in_at, issuer=op.settings.issuer)


@route("/static/op.css", http_method=READ)
async def stylesheet() -> Response[bytes]:
    """Serve the one stylesheet."""
    return Response(static_asset("op.css"), media_type="text/css; charset=utf-8")


@route("/static/op.svg", http_method=READ)
async def icon() -> Response[bytes]:
    """Serve the icon."""
    return Response(static_asset("op.svg"), media_type="image/svg+xml")


@route("/static/form_post.js", http_method=READ)
async def auto_submit() -> Response[bytes]:
    """Serve the script that sends the form_post page; the page has a button without it."""
    return Response(static_asset("form_post.js"), media_type="text/javascript; charset=utf-8")
