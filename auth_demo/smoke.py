"""A walk through the demo over real HTTP: log in, use the session, log out; says what it saw."""

# ruff: noqa: T201 - a command speaks to whoever typed it

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

import httpx2

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("SmokeFailure", "smoke")

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_MAX_REDIRECTS: Final = 10


class SmokeFailure(Exception):  # noqa: N818 - an outcome, told to a person
    """Something did not work; the message says what."""


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


async def smoke(app_url: str, issuer: str, *, user: str = "alice") -> None:
    """Log `user` in and out. Raises `SmokeFailure` at the first thing that is not as it must be."""
    async with httpx2.AsyncClient(timeout=10, follow_redirects=False, trust_env=False) as client:
        page = await client.get(app_url)
        _expect(page.status_code == _OK, f"GET / answered {page.status_code}")
        _expect("set-cookie" not in page.headers, "a visitor got a cookie for looking")
        print(f"smoke: GET {app_url}/ answered without a cookie")

        page = await _follow(client, f"{app_url}/auth/login?next=/account")
        _expect(str(page.url).startswith(issuer), f"the login led to {_place(page)}, not to the provider")
        print(f"smoke: sent to the provider at {issuer}")
        page = await _sign_in(client, page, user)
        _expect(_place(page) == f"{app_url}/account", f"the login ended at {_place(page)}")
        me = await client.get(f"{app_url}/api/me")
        _expect(me.status_code == _OK, f"GET /api/me answered {me.status_code} after the login")
        print(f"smoke: logged in as {me.json()['name']} ({', '.join(me.json()['roles'])})")

        for expected in (1, 2):
            counted = await client.post(f"{app_url}/api/session/visits")
            _expect(counted.json().get("visits") == expected, f"the counter said {counted.text}, not {expected}")
        print("smoke: counted two visits in the session")

        page = await _follow(client, f"{app_url}/auth/logout", method="POST")
        _expect(page.status_code == _OK, f"the logout ended with {page.status_code} at {_place(page)}")
        me = await client.get(f"{app_url}/api/me")
        _expect(me.status_code == _UNAUTHORIZED, f"GET /api/me answered {me.status_code} after the logout")
        print(f"smoke: logged out, back at {_place(page)}")


async def _sign_in(client: httpx2.AsyncClient, page: httpx2.Response, user: str) -> httpx2.Response:
    """Click the button of `user` on the provider's page."""
    parser = _Form()
    parser.feed(page.text)
    form = next((form for form in parser.forms if user in form["accounts"]), None)
    if form is None:
        message = f"the provider's page at {_place(page)} offers no button for {user}"
        raise SmokeFailure(message)
    address = urljoin(str(page.url), form["action"])
    # A browser says where a form was sent from; the provider may insist on it.
    headers = {"origin": f"{urlsplit(address).scheme}://{urlsplit(address).netloc}"}
    return await _follow(client, address, method="POST", data={**form["fields"], "account": user}, headers=headers)


async def _follow(client: httpx2.AsyncClient, address: str, method: str = "GET", **content: Any) -> httpx2.Response:  # noqa: ANN401 - the client's
    """Send a request and follow its redirects, as a browser does: with GET."""
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


def _place(response: httpx2.Response) -> str:
    """Where a response came from, without the query: it may hold a code."""
    return str(response.url).partition("?")[0]


def _expect(good: object, problem: str) -> None:
    if not good:
        raise SmokeFailure(problem)
