"""Login cookies from a hostile client never cause a server error."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from session_core.errors import AuthorizationResponseError
from session_core.oidc.login.request import LoginDemands
from session_core.oidc.login.transaction import LIFETIME_SECONDS, LoginTransaction, LoginTransactions
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


class Jar(Browser):
    """A browser that keeps the login cookies it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.cookies: dict[bytes, bytes] = {self.name: self.value}

    def keep(self, *set_cookies: bytes) -> list[bytes]:
        """Apply Set-Cookie values; return the names of deleted cookies."""
        deleted = []
        for line in set_cookies:
            name, _, value = line.partition(b";")[0].partition(b"=")
            if b"Max-Age=0" in line:
                deleted.append(name)
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return deleted

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        line = b"; ".join(name + b"=" + value for name, value in self.cookies.items())
        return [(b"accept", b"*/*"), (b"cookie", line), (b"x-cookie", b"x")]

    @property
    def bytes(self) -> int:
        """How long the cookies are in a request, each with `=` and a separator."""
        return sum(len(name) + len(value) + 3 for name, value in self.cookies.items())

    def open(self, return_to: str = "/", **options: Any) -> tuple[LoginTransaction, list[bytes]]:
        """Start a login; return it and the names of the deleted cookies."""
        _, transaction, set_cookies = self.logins.start(
            self.headers, provider="p", return_to=return_to, begun=Moment(), demands=LoginDemands(), **options
        )
        return transaction, self.keep(*set_cookies)

    def finish(self, transaction: LoginTransaction, code: str | None) -> bytes:
        """Finish a login; return the name of the cookie about it."""
        line = self.logins.finish_header(transaction, code)
        assert f"Max-Age={LIFETIME_SECONDS};".encode() in line + b";"
        self.keep(line, self.logins.delete_header(transaction))
        return line.partition(b"=")[0]

    def target(self, transaction: LoginTransaction, code: str | None, provider: str = "p") -> str | None:
        return self.logins.finished_return_to(self.headers, transaction.state, code, provider)


def test_the_oldest_of_more_than_ten_logins_is_deleted() -> None:
    jar = Jar()
    names = [jar.name]
    for _ in range(9):
        jar.clock.advance(seconds=1)
        assert jar.open()[1] == []
        names.append(list(jar.cookies)[-1])
    for oldest in names[:3]:
        jar.clock.advance(seconds=1)
        assert jar.open()[1] == [oldest]
        assert len(jar.cookies) == 10


def test_login_cookies_have_at_most_4_kb_together() -> None:
    totals = set()
    for length, more in product(range(860, 863), range(840, 930)):
        jar = Jar()
        size = jar.bytes
        for each in (length, length, more):
            jar.clock.advance(seconds=1)
            transaction, _ = jar.open("/" + "a" * each)
        total = jar.bytes if jar.name in jar.cookies else jar.bytes + size
        totals.add(total)
        assert (jar.name in jar.cookies) == (total <= 4096)
        assert jar.logins.opened(jar.headers, transaction.state) == transaction
    assert {4095, 4096, 4097} <= totals


def test_finished_and_expired_logins_are_deleted_before_open_ones() -> None:
    jar = Jar()
    expired = jar.name
    jar.clock.advance(seconds=LIFETIME_SECONDS)
    finished = jar.finish(jar.open("/" + "b" * 1000)[0], "code")
    still_open, _ = jar.open("/" + "c" * 880)
    jar.clock.advance(seconds=1)
    _, deleted = jar.open("/" + "d" * 880)
    assert deleted == [finished]
    jar.clock.advance(seconds=1)
    _, deleted = jar.open("/" + "d" * 880)
    assert deleted == [expired]
    assert jar.logins.find(jar.headers, still_open.state) == still_open


@pytest.mark.attack("53")
def test_a_response_deletes_at_most_twenty_login_cookies() -> None:
    """A sibling host can plant any number of them."""
    jar = Jar()
    for _ in range(40):
        others = Jar()
        jar.keep(others.logins.set_header(others.open("/" + "a" * 1000)[0]))
    assert len(jar.open("/" + "a" * 1000)[1]) == 20


def test_hints_are_left_out_where_browsers_would_refuse_the_cookie() -> None:
    """Also after an answer of the store was lost, which adds to the cookie."""
    kept = {}
    for length in range(2700, 3000):
        jar = Jar()
        transaction, _ = jar.open(hints={"login_hint": "a" * length})
        name, value = list(jar.cookies.items())[-1]
        kept[len(name) + len(value) + 3] = bool(transaction.hints)
        assert jar.logins.find(jar.headers, transaction.state) == transaction
        jar.logins.set_header(msgspec.structs.replace(transaction, lost_claims=5, claimed_until=2**42))
    assert set(kept.values()) == {True, False}
    assert 3965 <= max(size for size, has in kept.items() if has) <= 3968


def test_a_login_cookie_is_kept_for_an_hour_and_deleted_by_name() -> None:
    jar = Jar()
    transaction, _ = jar.open()
    assert b"Max-Age=3600;" in jar.logins.set_header(transaction) + b";"
    jar.keep(jar.logins.delete_header(transaction))
    assert list(jar.cookies) == [jar.name]


def test_a_new_login_has_the_defaults_of_a_plain_one() -> None:
    transaction, _ = Jar().open("/page")
    assert (len(transaction.seed), LIFETIME_SECONDS) == (32, 600)
    assert transaction == LoginTransaction("p", transaction.seed, "/page", transaction.started_at, Moment(), silent=False)
    assert (transaction.lost_claims, transaction.claimed_until, transaction.reauthenticate) == (0, 0, False)
    with pytest.raises(AttributeError):
        transaction.return_to = "/other"  # type: ignore[misc]


def test_a_second_response_to_a_finished_login_leads_to_its_page() -> None:
    jar = Jar()
    transaction, _ = jar.open("/page?a=%5B1%5D")
    jar.finish(transaction, "code")
    assert jar.target(transaction, "another") == "/page?a=%5B1%5D"
    assert jar.target(transaction, None) == jar.target(transaction, "another")
    assert jar.target(transaction, "code") is None  # a replay
    other, _ = jar.open("/other")
    assert jar.target(other, "another") is None
    for provider in ("a", "z"):
        assert jar.target(transaction, "another", provider) is None
    jar.clock.advance(seconds=LIFETIME_SECONDS - 0.001)
    assert jar.target(transaction, "another") is not None
    jar.clock.advance(seconds=0.001)
    assert jar.target(transaction, "another") is None


def test_a_login_that_finished_without_a_code_leads_to_its_page_for_any_code() -> None:
    jar = Jar()
    transaction, _ = jar.open("/page")
    jar.finish(transaction, None)
    assert (jar.target(transaction, "code"), jar.target(transaction, None)) == ("/page", "/page")
    jar.cookies = {name: value[:-2] for name, value in jar.cookies.items()}
    assert jar.target(transaction, "code") is None


def test_a_login_of_a_node_with_a_clock_ahead_is_found() -> None:
    browser = Browser()
    browser.clock.advance(seconds=-300)
    assert browser.finds() == ""
    browser.clock.advance(seconds=-0.001)
    assert browser.finds() == "state_expired"
