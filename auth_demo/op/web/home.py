"""The provider's front page and its packaged static files."""

from typing import Any

from litestar import Response, get

from auth_demo.op.web.pages import render, static_asset
from auth_demo.op.web.web import OpRequest, op_of, session_of

__all__ = ("auto_submit", "home", "icon", "stylesheet")


@get("/")
async def home(request: OpRequest) -> Response[Any]:
    """Show who is signed in here and at which applications."""
    op, session = op_of(request), session_of(request)
    account = op.oauth.query_account(session.sub) if session else None
    signed_in_at = [client for client in op.clients if session and client.client_id in session.client_ids]
    return render("home.html", account=account, accounts=op.accounts, signed_in_at=signed_in_at, issuer=op.settings.issuer)


@get("/static/op.css")
async def stylesheet() -> Response[bytes]:
    """Serve the one stylesheet."""
    return Response(static_asset("op.css"), media_type="text/css; charset=utf-8")


@get("/static/op.svg")
async def icon() -> Response[bytes]:
    """Serve the icon."""
    return Response(static_asset("op.svg"), media_type="image/svg+xml")


@get("/static/form_post.js")
async def auto_submit() -> Response[bytes]:
    """Serve the script that sends the form_post page; the page has a button without it."""
    return Response(static_asset("form_post.js"), media_type="text/javascript; charset=utf-8")
