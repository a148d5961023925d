"""Sends authorization responses to the client: by query or form_post, always with ``iss`` (RFC 9207)."""

from typing import Any
from urllib.parse import urlencode

from litestar import Response
from litestar.response import Redirect

from auth_demo.op.protocol.authorization_request import AuthorizationError, ReplyAddress
from auth_demo.op.settings import origin_of
from auth_demo.op.web.pages import render

__all__ = ("send_code", "send_error")


def send_code(reply_to: ReplyAddress, issuer: str, code: str) -> Response[Any]:
    """Answer with an authorization code (RFC 6749 4.1.2)."""
    return _send(reply_to, issuer, {"code": code})


def send_error(reply_to: ReplyAddress, issuer: str, error: AuthorizationError) -> Response[Any]:
    """Answer with an error (RFC 6749 4.1.2.1)."""
    return _send(reply_to, issuer, {"error": error.code, "error_description": error.description})


def _send(reply_to: ReplyAddress, issuer: str, members: dict[str, str]) -> Response[Any]:
    members = {**members, "iss": issuer}
    if reply_to.state is not None:
        members["state"] = reply_to.state
    if reply_to.response_mode == "form_post":
        # The client's page may redirect within its own origin after the post, hence the origin, not the URI.
        return render(
            "form_post.html",
            form_targets=[origin_of(reply_to.redirect_uri)],
            scripts=True,
            action=reply_to.redirect_uri,
            members=members,
            client_name=reply_to.client.display_name,
        )
    # 303, never 307: the browser must not repeat the posted password to the client (RFC 9700 4.12).
    separator = "&" if "?" in reply_to.redirect_uri else "?"
    return Redirect(f"{reply_to.redirect_uri}{separator}{urlencode(members)}", status_code=303)
