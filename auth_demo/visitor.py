"""A scripted browser for the demo: follows redirects, presses the provider's button, and checks responses."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx2

__all__ = ("SmokeFailure", "expect", "follow", "log_in", "new_client", "place")

_MAX_REDIRECTS: Final = 10


class SmokeFailure(Exception):  # noqa: N818 - an outcome, told to a person
    """A check failed; the message has the problem."""


class _Form(HTMLParser):
    """The first form that has a submit button for a demo user, with its hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form":
            self.forms.append({"action": values.get("action") or "", "fields": {}, "accounts": []})
        elif self.forms and tag == "input" and values.get("type") == "hidden":
            self.forms[-1]["fields"][values.get("name")] = values.get("value") or ""
        elif self.forms and tag == "button" and values.get("name") == "account":
            self.forms[-1]["accounts"].append(values.get("value"))


def new_client() -> httpx2.AsyncClient:
    """Return a client with a new cookie jar, which follows no redirect by itself."""
    return httpx2.AsyncClient(timeout=30, follow_redirects=False, trust_env=False)


async def log_in(client: httpx2.AsyncClient, app_url: str, issuer: str, user: str) -> None:
    """Log in through the provider's pages; leads to /account."""
    page = await follow(client, f"{app_url}/auth/login?next=/account")
    expect(str(page.url).startswith(issuer), f"the login led to {place(page)}, not to the provider")
    page = await _sign_in(client, page, user)
    expect(place(page) == f"{app_url}/account", f"the login ended at {place(page)}")


async def _sign_in(client: httpx2.AsyncClient, page: httpx2.Response, user: str) -> httpx2.Response:
    """Click the button of `user` on the provider's page."""
    parser = _Form()
    parser.feed(page.text)
    form = next((form for form in parser.forms if user in form["accounts"]), None)
    if form is None:
        message = f"the provider's page at {place(page)} offers no button for {user}"
        raise SmokeFailure(message)
    address = urljoin(str(page.url), form["action"])
    # Browsers send the origin of a form; the provider may require it.
    headers = {"origin": f"{urlsplit(address).scheme}://{urlsplit(address).netloc}"}
    return await follow(client, address, method="POST", data={**form["fields"], "account": user}, headers=headers)


async def follow(client: httpx2.AsyncClient, address: str, method: str = "GET", **content: Any) -> httpx2.Response:  # noqa: ANN401 - the client's
    """Send a request and follow its redirects, as a browser does: with GET. Raises `SmokeFailure`."""
    try:
        response = await client.request(method, address, **content)
        for _ in range(_MAX_REDIRECTS):
            if not response.has_redirect_location:
                return response
            response = await client.get(urljoin(str(response.url), response.headers["location"]))
    except httpx2.HTTPError as error:
        message = f"{method} {address.partition('?')[0]} failed: {type(error).__name__}"
        raise SmokeFailure(message) from error
    message = f"{address.partition('?')[0]} redirects without end"
    raise SmokeFailure(message)


def place(response: httpx2.Response) -> str:
    """Return the URL of a response without the query, which may contain a code."""
    return str(response.url).partition("?")[0]


def expect(good: object, problem: str) -> None:
    """Raise `SmokeFailure` with the problem if the check failed."""
    if not good:
        raise SmokeFailure(problem)
