"""Finds the genuine session ids in a request's Cookie headers; no store is asked, nothing is written.

Cookies of one name can be several: a subdomain, another path or plain http can toss its own beside ours, in any order, and
after a change of `domain` or `path` browsers send the former cookie as well. So every candidate is read, and an id is believed
only when the signature holds and no second genuine id contradicts it. Which of a few is live is for the store to say.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from session_core.cookies.encoding import decode_component
from session_core.ids import UncertainId, is_session_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from session_core.cookies.config import ResolvedCookie
    from session_core.cookies.signing import CookieSigner

__all__ = ("CookieReading", "CookieRejection", "SessionCookieReader", "read_cookies", "read_session_id")

CookieRejection: TypeAlias = Literal["oversized", "re-encoded", "unsigned", "bad_signature", "bad_form", "ambiguous", "too_many"]
"""Why no id was taken from the cookies; stable, safe to log."""

_MAX_VALUE_BYTES: Final = 4096
_MAX_CANDIDATES: Final = 32
_MAX_GENUINE: Final = 4
"""Ids that the store is asked about, for one request."""
_REMEMBERED_LINES: Final = 1024
_MAX_REMEMBERED_BYTES: Final = 1024
"""Of one line: a client must not decide how much memory its lines take."""


class CookieReading(msgspec.Struct, frozen=True):
    """What the Cookie headers say: an id, or why there is none (both `None`: there was no such cookie).

    `needs_resign`: an older secret signed the cookie; set it again, signed by the first. `several`: different genuine ids, of
    which `SessionLifecycle.choose` may find one to be live; empty when they are too many to ask.
    """

    session_id: str | UncertainId | None = None
    needs_resign: bool = False
    rejected: CookieRejection | None = None
    several: tuple[str | UncertainId, ...] = ()

    def __repr__(self) -> str:
        """Hide the id: it is a bearer secret, and reprs end up in logs and tracebacks."""
        shown = "None" if self.session_id is None else "<hidden>"
        return f"CookieReading(session_id={shown}, needs_resign={self.needs_resign}, rejected={self.rejected!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Hide the id from rich tracebacks too; msgspec would show every field."""
        return [("needs_resign", self.needs_resign), ("rejected", self.rejected)]


_NO_COOKIE: Final = CookieReading()


def read_cookies(scope_headers: Iterable[tuple[bytes, bytes]], name: str | bytes) -> list[str]:
    """Return the decoded values of every cookie of exactly this name, in the order sent; never raises.

    Left out are values over 4096 bytes and values that are not canonically percent-encoded. At most 33 are returned:
    a reader that minds should refuse more than 32.
    """
    return _scan(scope_headers, name.encode() if isinstance(name, str) else name)[0]


def read_session_id(headers: Iterable[tuple[bytes, bytes]], cookie: ResolvedCookie, signer: CookieSigner) -> CookieReading:
    """Return the session id that this request's cookie proves, or why there is none; never raises.

    Junk beside the genuine cookie is ignored, whatever the order. Two different genuine ids are refused: a former cookie or a
    planted one is among them, and which one cannot be told without the store.
    """
    plain = _plain_id(headers, cookie.name, signer)
    if plain is not None:
        return CookieReading(session_id=plain) if plain else _NO_COOKIE
    values, rejected = _scan(headers, cookie.name.encode())
    if not values:
        return CookieReading(rejected=rejected) if rejected else _NO_COOKIE
    if len(values) > _MAX_CANDIDATES:
        # Not just cut off: the genuine cookie may be behind the cut, and an attacker's own before it.
        return CookieReading(rejected="too_many")
    found: dict[str | UncertainId, None] = {}
    by_first = False
    for value in values:
        unsigned = signer.unsign(value)
        if unsigned is None:
            rejected = rejected or ("bad_signature" if value.startswith("s:") else "unsigned")
            continue
        presented = unsigned.value if is_session_id(unsigned.value) else UncertainId.parse(unsigned.value)
        if presented is None:
            rejected = rejected or "bad_form"
        else:
            found[presented] = None
            by_first = by_first or unsigned.by_first_secret
    match list(found):
        case []:
            return CookieReading(rejected=rejected)
        case [only]:
            return CookieReading(session_id=only, needs_resign=not by_first)
        case several:
            return CookieReading(rejected="ambiguous", several=tuple(several) if len(several) <= _MAX_GENUINE else ())


class SessionCookieReader:
    """Reads as `read_session_id` does, and remembers what the last lines said that it has read: each is verified once.

    Nothing but a line that is the same to the last byte is known again, so nothing passes that was not verified. The lines are
    secrets; they stay in this process, which holds the keys that sign them.
    """

    def __init__(self, cookie: ResolvedCookie, signer: CookieSigner) -> None:
        self._cookie = cookie
        self._signer = signer
        self._read_line = lru_cache(maxsize=_REMEMBERED_LINES)(self._verify)

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> CookieReading:
        """See `read_session_id`."""
        if not isinstance(headers, list):
            headers = list(headers)
        by_name = dict(headers)
        line = by_name.get(b"cookie")
        if line is None:
            return _NO_COOKIE
        if len(line) <= _MAX_REMEMBERED_BYTES and len(by_name) == len(headers):  # nothing is said twice
            return self._read_line(line)
        return read_session_id(headers, self._cookie, self._signer)

    def _verify(self, line: bytes) -> CookieReading:
        return read_session_id([(b"cookie", line)], self._cookie, self._signer)


def _plain_id(headers: Iterable[tuple[bytes, bytes]], name: str, signer: CookieSigner) -> str | None:
    """The id in the one cookie of this name, signed by the first secret: what nearly every request carries. Empty for none.

    A short cut, in a third of the time; whatever is in any way different takes the long way.
    """
    pattern, needle = _plain_form(name)
    lines = [value for header, value in headers if header == b"cookie" and needle in value]
    if not lines:
        return ""
    if len(lines) > 1 or lines[0].count(needle) != 1:
        return None
    found = pattern.search(lines[0])
    return None if found is None else signer.unsign_id(found[1], found[2])


@lru_cache(maxsize=64)
def _plain_form(name: str) -> tuple[re.Pattern[bytes], bytes]:
    needle = name.encode()
    value = rb"s%3A([A-Za-z0-9_-]{46})\.([A-Za-z0-9%]{43,129})"
    return re.compile(rb"(?:\A|;)[ \t]*" + re.escape(needle) + b"=" + value + rb"[ \t]*(?:;|\Z)"), needle


def _scan(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> tuple[list[str], CookieRejection | None]:
    values: list[str] = []
    rejected: CookieRejection | None = None
    for header, line in headers:
        # The substring test first: most requests of a page carry no session cookie or only other ones.
        if header != b"cookie" or name not in line:
            continue
        for pair in line.split(b";"):
            # Only space and tab: stripping more makes `\xa0__Host-session`, which a subdomain may set, our own name.
            key, equals, raw = pair.strip(b" \t").partition(b"=")
            # A nameless cookie has no name or no equals sign, and belongs to no application.
            if key != name or not equals:
                continue
            value = decode_component(raw) if len(raw) <= _MAX_VALUE_BYTES else None
            if value is None:
                rejected = rejected or ("oversized" if len(raw) > _MAX_VALUE_BYTES else "re-encoded")
                continue
            values.append(value)
            if len(values) > _MAX_CANDIDATES:
                return values, rejected
    return values, rejected
