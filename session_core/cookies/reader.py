"""Finds the correctly signed session ids in a request's Cookie headers. Makes no store calls.

A request may have several cookies of one name: a subdomain, another path or plain http can set its own (cookie tossing), in any
order, and after a change of `domain` or `path` browsers also send the former cookie. So every candidate is read, and an id is
accepted only if its signature is valid and no second valid id exists. If there are a few, the store decides which one is live.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from session_core.cookies.encoding import decode_component
from session_core.ids import SecretStruct, UncertainId, is_session_id

if TYPE_CHECKING:
    from session_core.cookies.config import ResolvedCookie
    from session_core.cookies.signing import CookieSigner

__all__ = ("CookieReading", "CookieRejection", "SessionCookieReader", "presents_cookie", "read_cookies", "read_session_id")

CookieRejection: TypeAlias = Literal["oversized", "re-encoded", "unsigned", "bad_signature", "bad_form", "ambiguous", "too_many"]
"""Why the cookies gave no id; stable, safe to log."""

_FOREIGN: Final = frozenset({"oversized", "re-encoded", "unsigned", "bad_signature"})
# Not "too_many": one that is ours may be among them.
_MAX_VALUE_BYTES: Final = 4096
_MAX_CANDIDATES: Final = 32
_MAX_GENUINE: Final = 4
"""The most ids that one request may look up in the store."""
_REMEMBERED_LINES: Final = 1024
_MAX_REMEMBERED_BYTES: Final = 1024
"""The longest cached line: a client must not control how much memory is used."""


class CookieReading(SecretStruct, frozen=True):
    """The result of reading the Cookie headers: an id, or why there is none (both `None`: no such cookie).

    `needs_resign`: an older secret signed the cookie; set it again, signed by the first. `several`: different valid ids, from
    which `SessionLifecycle.choose` picks the live one; empty when there are too many.
    """

    session_id: str | UncertainId | None = None
    needs_resign: bool = False
    rejected: CookieRejection | None = None
    several: tuple[str | UncertainId, ...] = ()

    @property
    def is_foreign(self) -> bool:
        """Whether no secret of ours has signed what was sent: it may belong to another application on this host."""
        return self.rejected in _FOREIGN


_NO_COOKIE: Final = CookieReading()


def read_cookies(scope_headers: Iterable[tuple[bytes, bytes]], name: str | bytes) -> list[str]:
    """Return the decoded values of every cookie of exactly this name, in the order sent; never raises.

    Left out are values over 4096 bytes and values that are not canonically percent-encoded. At most 33 are returned:
    a caller with a limit should refuse more than 32.
    """
    return _scan(scope_headers, name.encode() if isinstance(name, str) else name)[0]


def read_session_id(headers: Iterable[tuple[bytes, bytes]], cookie: ResolvedCookie, signer: CookieSigner) -> CookieReading:
    """Return the verified session id of this request, or why there is none; never raises.

    Invalid cookies beside the valid one are ignored, in any order. Two different valid ids are refused: one is a former or a
    planted cookie, and only the store can decide which.
    """
    plain = _plain_id(headers, cookie.name, signer)
    if plain is not None:
        return CookieReading(session_id=plain) if plain else _NO_COOKIE
    values, rejected = _scan(headers, cookie.name.encode())
    if not values:
        return CookieReading(rejected=rejected) if rejected else _NO_COOKIE
    if len(values) > _MAX_CANDIDATES:
        # Not truncated: the valid cookie may be behind the limit, and an attacker's own before it.
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


def presents_cookie(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bool:
    """Whether a request has a cookie of exactly this name, valid or not."""
    lines = [line for header, line in headers if header == b"cookie" and name in line]
    return any(pair.strip(b" \t").partition(b"=")[0] == name for line in lines for pair in line.split(b";"))


class SessionCookieReader:
    """Reads as `read_session_id` does, and caches the results of the last Cookie lines.

    A result is used only for a line that is equal byte for byte, so every accepted line was verified. The lines are secrets; they
    stay in this process, which also holds the signing keys.
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
        if len(line) <= _MAX_REMEMBERED_BYTES and len(by_name) == len(headers):  # no repeated cookie
            return self._read_line(line)
        return read_session_id(headers, self._cookie, self._signer)

    def _verify(self, line: bytes) -> CookieReading:
        return read_session_id([(b"cookie", line)], self._cookie, self._signer)


def _plain_id(headers: Iterable[tuple[bytes, bytes]], name: str, signer: CookieSigner) -> str | None:
    """Return the id of the only cookie of this name if the first secret signed it, as in nearly every request; else empty text.

    A fast path in a third of the time; anything else falls through to the general path.
    """
    pattern, needle = _plain_form(name)
    lines = [value for header, value in headers if header == b"cookie" and needle in value]
    if not lines:
        return ""
    line, *others = lines
    if others or line.count(needle) != 1:
        return None
    found = pattern.search(line)
    return None if found is None else signer.unsign_id(found[1], found[2])


@cache
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
            # Strip only space and tab: stripping more would turn `\xa0__Host-session`, which a subdomain may set, into our name.
            key, equals, raw = pair.strip(b" \t").partition(b"=")
            # A cookie without a name or equals sign belongs to no application.
            if key != name or not equals:
                continue
            value = None if (oversized := len(raw) > _MAX_VALUE_BYTES) else decode_component(raw)
            if value is None:
                rejected = rejected or ("oversized" if oversized else "re-encoded")
                continue
            values.append(value)
            if len(values) > _MAX_CANDIDATES:
                return values, rejected
    return values, rejected
