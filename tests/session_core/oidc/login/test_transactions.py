"""Login cookies from a hostile client never cause a server error."""

from __future__ import annotations

import pytest

from session_core.errors import AuthorizationResponseError
from session_core.oidc.login.request import LoginDemands
from session_core.oidc.login.transaction import LIFETIME_SECONDS, LoginTransactions
from session_core.sealing import SealingKeys
from session_core.sessions.store_order import Moment
from session_core.testing import FakeClock

HTTP = "http://localhost:8000"


class Browser:
    """A started login and its cookie."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.logins = LoginTransactions(SealingKeys([b"k" * 32]), self.clock, public_url=HTTP)
        self.state, (cookie, *_) = self.start()
        self.name, _, self.value = cookie.partition(b";")[0].partition(b"=")

    def start(self, *cookies: bytes) -> tuple[str, list[bytes]]:
        headers = [(b"cookie", cookie) for cookie in cookies]
        state, _, set_cookies = self.logins.start(headers, provider="p", return_to="/", begun=Moment(), demands=LoginDemands())
        return state, set_cookies

    def finds(self, *, state: str = "", value: bytes = b"") -> str:
        """Why the login is not found, or None."""
        try:
            self.logins.find([(b"cookie", self.name + b"=" + (value or self.value))], state or self.state)
        except AuthorizationResponseError as error:
            return error.reason
        return ""


def test_a_login_is_found_by_its_state_for_ten_minutes() -> None:
    browser = Browser()
    assert browser.finds() == ""
    browser.clock.advance(seconds=LIFETIME_SECONDS - 0.001)
    assert browser.finds() == ""
    browser.clock.advance(seconds=0.001)
    assert browser.finds() == "state_expired"


@pytest.mark.attack("1")
@pytest.mark.attack("58")
@pytest.mark.parametrize("more", ["x", "\n", "\ud800", "é", "x" * 2_000_000], ids=["x", "newline", "surrogate", "e", "2MB"])
def test_a_state_with_a_suffix_is_not_found(more: str) -> None:
    browser = Browser()
    assert browser.finds(state=browser.state + more) == "state_malformed"
    assert browser.finds(state=browser.state[:-1]) == "state_malformed"


@pytest.mark.attack("50")
@pytest.mark.parametrize("more", [b".", b"!", b"~", b"%C3%A9", b"%0A"])
def test_a_login_cookie_with_a_suffix_is_not_found(more: bytes) -> None:
    """Base64 decoders skip foreign characters, so a value would have many spellings."""
    browser = Browser()
    assert browser.finds(value=browser.value + more) == "state_unknown"


@pytest.mark.attack("53")
@pytest.mark.parametrize("more", [b"\xff", b"x", b"\x80" * 8])
def test_a_cookie_with_a_similar_name_is_kept(more: bytes) -> None:
    browser = Browser()
    _, set_cookies = browser.start(*(browser.name + more + b"=" + browser.value for _ in range(2)))
    assert len(set_cookies) == 1
