"""Sends the browser from a form of ours to another site by a page instead of a redirect.

Browsers apply `form-action` of the page that holds a form to every redirect after it (CSP Level 3, 6.4.1). A provider may
redirect to further, unknown sites: brokers, federated logout. A page of ours ends the chain of redirects and starts a new
navigation.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Final

from session_core.asgi.web import HTML, Redirect, Response

__all__ = ("leave", "leave_by_form", "leave_for_client")

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="0;url={url}"><title>One moment</title></head>
<body><main><h1>One moment</h1><p><a href="{url}">Continue</a></p></main></body></html>
"""
_SCRIPT: Final = "document.forms[0].submit()"
_SCRIPT_HASH: Final = b64encode(sha256(_SCRIPT.encode()).digest()).decode()
_POLICY: Final = f"default-src 'none'; script-src 'sha256-{_SCRIPT_HASH}'; base-uri 'none'; frame-ancestors 'none'"
"""Without `form-action`, which would also apply to redirects of the provider after the form."""
_SANDBOX: Final = (
    "sandbox allow-scripts allow-top-navigation allow-popups; default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Browsers follow a refresh only with `allow-scripts`, and one to a private-use scheme only with the others."""
_FORM: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>One moment</title></head>
<body><main><h1>One moment</h1><form method="post" action="{action}">{fields}<button>Continue</button></form></main>
<script>{script}</script></body></html>
"""


def leave(url: str, *, by_page: bool, headers: dict[str, str] | None = None) -> Response:
    """Return a response that sends the browser to `url`: a page that navigates at once, or a redirect (303)."""
    if not by_page:
        return Redirect(url, headers=headers)
    return Response(_PAGE.format(url=escape(url)), media_type=HTML, headers=headers)


def leave_for_client(url: str, *, by_page: bool) -> Response:
    """Return a response that leads to a native client, whose address holds a code.

    The page has no origin: a script injected into one of ours could open it in a new window, and read the code there.
    """
    return leave(url, by_page=by_page, headers={"content-security-policy": _SANDBOX} if by_page else None)


def leave_by_form(action: str, fields: dict[str, str], *, headers: dict[str, str] | None = None) -> Response:
    """Return a page that posts `fields` to `action` at once, or by its button without scripts."""
    inputs = "".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items())
    page = _FORM.format(action=escape(action), fields=inputs, script=_SCRIPT)
    given = {**(headers or {}), "content-security-policy": _POLICY}
    return Response(page, media_type=HTML, headers=given)
