"""Pages that send a request to another URL in every way browsers support; a server for hostile, trusted and own pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from html import escape
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

__all__ = ("CLICKED", "KINDS", "Pages", "page_address")

_REPORT: Final = "report of a broken policy"
_SUBMIT: Final = "<script>document.forms[0].submit()</script>"


def page_address(origin: str, kind: str, target: str, policy: str = "", redirect_policy: str = "") -> str:
    """The URL of a page of `origin` that sends a request to `target`; the policies are values of Referrer-Policy."""
    query = {"kind": kind, "to": target, "policy": policy, "redirect_policy": redirect_policy}
    return f"{origin}/page?{urlencode(query)}"


class Pages:
    """An ASGI application that serves these pages and their redirects under every host name."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"access-control-allow-origin", b"*")]
        status, body = 200, ""
        if scope["path"] == "/redirect":
            status = 307
            headers.append((b"location", query["to"].encode()))
        elif scope["path"] == "/page":
            kind, target = query["kind"], query["to"]
            if "307" in kind:
                host = dict(scope["headers"])[b"host"].decode()
                target = f"http://{host}/redirect?{urlencode({'to': target, 'policy': query.get('redirect_policy', '')})}"
            body = f"<!doctype html><title>page</title>{_CONTENT[kind](target)}"
            if kind == _REPORT:
                headers.append((b"content-security-policy", f"img-src 'none'; report-uri {target}".encode()))
        if "policy" in query:
            headers.append((b"referrer-policy", query["policy"].encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})


def _form(target: str, enctype: str = "application/x-www-form-urlencoded") -> str:
    field = '<input type="hidden" name="note" value="planted">'
    return f'<form method="post" action="{escape(target)}" enctype="{enctype}">{field}<button>send</button></form>'


def _sent_form(target: str, enctype: str = "application/x-www-form-urlencoded") -> str:
    return _form(target, enctype) + _SUBMIT


def _frame(content: str, sandbox: str = "") -> str:
    attributes = f'sandbox="{sandbox}"' if sandbox else ""
    return f'<iframe {attributes} srcdoc="{escape(content)}"></iframe>'


def _form_in_a_sandbox(target: str) -> str:
    return _frame(_sent_form(target), "allow-scripts allow-forms")


def _form_in_a_data_frame(target: str) -> str:
    return f'<iframe src="data:text/html;base64,{base64.b64encode(_sent_form(target).encode()).decode()}"></iframe>'


def _form_in_a_blob_frame(target: str) -> str:
    blob = f"new Blob([{_in_script(_sent_form(target))}], {{type: 'text/html'}})"
    return f"<iframe></iframe><script>document.querySelector('iframe').src = URL.createObjectURL({blob})</script>"


def _form_in_an_opened_window(target: str) -> str:
    write = f"window.open('about:blank').document.write({_in_script(_sent_form(target))})"
    return f'<button onclick="{escape(write)}">open</button>'


def _fetch(mode: str) -> Callable[[str], str]:
    options = f"{{method: 'POST', mode: '{mode}', credentials: 'include', body: 'x'}}"
    return lambda target: f"<script>fetch({_in_script(target)}, {options})</script>"


def _socket(target: str) -> str:
    return f"<script>new WebSocket({_in_script(target.replace('http', 'ws', 1))})</script>"


def _in_script(text: str) -> str:
    return json.dumps(text).replace("<", "\\u003c")


_CONTENT: Final[dict[str, Callable[[str], str]]] = {
    "form": _sent_form,
    "clicked form": _form,
    "text/plain form": lambda target: _sent_form(target, "text/plain"),
    "multipart form": lambda target: _sent_form(target, "multipart/form-data"),
    "form redirected by 307": _form,
    "form in a sandboxed frame": _form_in_a_sandbox,
    "form in a sandboxed frame, redirected by 307": _form_in_a_sandbox,
    "form in a srcdoc frame": lambda target: _frame(_sent_form(target)),
    "form in a data: frame": _form_in_a_data_frame,
    "form in a blob: frame": _form_in_a_blob_frame,
    "form in a window that was opened": _form_in_an_opened_window,
    "fetch with cors": _fetch("cors"),
    "fetch without cors": _fetch("no-cors"),
    "fetch with cors, redirected by 307": _fetch("cors"),
    "fetch without cors, redirected by 307": _fetch("no-cors"),
    "beacon": lambda target: f"<script>navigator.sendBeacon({_in_script(target)}, 'x')</script>",
    "ping": lambda target: f'<a href="/left" ping="{escape(target)}"><button>leave</button></a>',
    _REPORT: lambda _: '<img src="/refused.png">',
    "WebSocket": _socket,
    "WebSocket in a sandboxed frame": lambda target: _frame(_socket(target), "allow-scripts"),
}

KINDS: Final = tuple(_CONTENT)
CLICKED: Final = frozenset({"clicked form", "form redirected by 307", "form in a window that was opened", "ping"})
"""Ways that need a click: Firefox distinguishes user actions from scripts."""
