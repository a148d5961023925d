"""What a rejection means, as one assertion: a generic response, no login, no change, one event."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from session_core.stores.base import StoredSession
from tests.security.site import Site
from tests.support.hostile_op.browser import Browser, Page
from tests.support.hostile_op.http_server import MARK
from tests.support.hostile_op.misbehaviour import Misbehaviour

Attempt = Callable[[Browser], Awaitable[Page]]

BEFORE: Final = ("no session", "an anonymous session", "another user's session")
"""The browser's session before the attempt."""
_EXPIRED: Final = "This login has expired"
_OWN_TITLES: Final = {
    "state_unknown": f"{_EXPIRED}, or was started in another browser",
    "state_expired": _EXPIRED,
    "state_replayed": _EXPIRED,
    "access_denied": "The login was cancelled at the identity provider",
}
"""Reasons with a page of their own: it depends on the browser's own login cookie, or on the user. No check is among them."""
_LEAST_SECRET: Final = 8
"""Shorter values occur by chance."""


class Before(NamedTuple):
    """The state before the attempt."""

    sessions: dict[str, StoredSession]
    cookies: list[str]
    shown: Any
    subject: str | None
    events: int
    lines: int


async def prepare(site: Site, browser: Browser, state: str) -> Before:
    """Give the browser the required session and record the state."""
    if state == BEFORE[1]:
        await site.begin_anonymous(browser)
    elif state == BEFORE[2]:
        await site.enter(browser, "carol")
        await site.begin_anonymous(browser)
    subject = await site.who(browser)
    assert subject == ("carol" if state == BEFORE[2] else None)
    shown = (await browser.tab(f"{site.url}/").fetch("/api/session")).json()
    name = site.plugin.config.resolved_cookie.name
    return Before(await site.stored(), browser.jar.values(name), shown, subject, len(site.events), len(site.log.lines))


async def assert_rejected(
    site: Site, browser: Browser, page: Page, before: Before, reason: str, *, status: int | None = None
) -> None:
    """Assert that the page, and everything else, is what a rejection leaves.

    Generic: with the same status the response of every failed check equals that to a callback without parameters, byte for byte;
    that of a login unknown in this browser equals that to an invented state. Unchanged: version and data of every session in the
    store, and the user of the browser. There is one event, and no secret anywhere.
    """
    events, lines = site.events[before.events :], site.log.lines[before.lines :]
    # The response.
    assert 400 <= page.status < 600, f"answered {page.status} at {page.url}"
    assert status is None or page.status == status
    assert "no-store" in page.headers["cache-control"]
    answered = page.text + repr(page.headers.multi_items())
    assert MARK not in answered, "the response repeats text of the provider or the attacker"
    assert reason not in page.text, "the response reveals the reason"
    assert not (leaked := _secrets_in(site, browser, answered)), f"in the response: {leaked}"
    # The sessions.
    assert await site.stored() == before.sessions, "the sessions in the store have changed"
    cookie = site.plugin.config.resolved_cookie.name
    assert browser.jar.values(cookie) == before.cookies, "the session cookie has changed"
    assert await site.who(browser) == before.subject, "a user is logged in"
    tab = browser.tab(f"{site.url}/")
    assert (await tab.fetch("/api/session")).json() == before.shown, "the session's data has changed"
    # The event.
    told = [(event.name, event.reason) for event in events if event.name != "login.started"]
    assert told == [("login.failed", reason)], f"told: {told}"
    warned = [line for line in lines if "'login.failed'" in line]
    assert len(warned) == 1, f"{len(warned)} lines in the log"
    assert reason in warned[0]
    logged = repr(events) + "\n".join(lines)
    assert MARK not in logged, "the log repeats text of the provider or the attacker"
    assert not (leaked := _secrets_in(site, browser, logged)), f"in the log: {leaked}"
    # Last, because it is another failed login: the response to a callback without parameters, or with an invented state.
    if page.status == 400 and reason in _OWN_TITLES:
        assert f"<h1>{_OWN_TITLES[reason]}</h1>" in page.text
    if page.status == 400 and reason in {"state_unknown", *({reason} - _OWN_TITLES.keys())}:
        query = f"?state={'u' * 43}" if reason == "state_unknown" else ""
        generic = await browser.tab(f"{site.op.issuer}/").follow(site.callback + query)
        assert _plain(generic) == _plain(page), "the response is not the generic one"


async def assert_all_rejected(
    site: Site, attempt: Attempt | Misbehaviour, reason: str, *, status: int | None = None, states: Sequence[str] = BEFORE
) -> None:
    """Assert that an attempt is rejected in a browser without a session, with an anonymous one, and with another user's."""
    for state in states:
        browser = site.browser()
        before = await prepare(site, browser, state)
        page = await (site.login(browser, attempt) if isinstance(attempt, Misbehaviour) else attempt(browser))
        await assert_rejected(site, browser, page, before, reason, status=status)


def _secrets_in(site: Site, browser: Browser, text: str) -> list[str]:
    known = site.op.secrets | browser.jar.ever
    return [secret for secret in known if len(secret) >= _LEAST_SECRET and secret in text]


def _plain(page: Page) -> str:
    return re.sub(r"nonce-[\w-]+|<code>[0-9a-f]{16}</code>", "", page.text)  # the request's id differs
