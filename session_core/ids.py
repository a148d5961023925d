"""Session ids, and the session keys and public handles derived from them.

The id is a bearer secret: it exists only in the browser's cookie and in the process that serves its requests. Stores use the
session key (its SHA-256 digest), so that a leaked store or backup opens no session. Logs and pages show the handle, from which
neither can be computed.

An id and its key end in the same slot tag: three characters that are neither secret nor related to the session data. A
regenerated id keeps the tag of the one before, so that a store that spreads its keys over many machines by the tag (Redis
Cluster) has both on one machine and can move the session in one atomic step. The 256 secret bits are always new.
"""

from __future__ import annotations

import re
import secrets
from binascii import b2a_base64
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import msgspec

__all__ = (
    "DIGEST_CHARS", "MAX_ID_CHARS", "TAG_CHARS", "SecretStruct", "UncertainId", "handle_of", "is_session_id", "new_session_id",
    "session_key",
)  # fmt: skip

DIGEST_CHARS: Final = 43
"""Of the secret part of an id, and of the digest in a key: 32 bytes in base64url."""
TAG_CHARS: Final = 3
"""Of the slot tag at the end of both: enough for any number of machines."""
_ID_BYTES: Final = 32
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_ID_CHARS: Final = DIGEST_CHARS + TAG_CHARS
_ID_FORM: Final = re.compile(rf"[A-Za-z0-9_-]{{{_ID_CHARS}}}\Z", re.ASCII)
_BEGUN_FORM: Final = re.compile(r"([0-9]{1,19})\.([0-9]{1,15})\Z", re.ASCII)
_MAX_NEW: Final = 3
MAX_ID_CHARS: Final = (_MAX_NEW + 1) * (_ID_CHARS + 1) + 19 + 1 + 15
"""The longest value of a session cookie before it is signed."""


def new_session_id(*, after: str | None = None) -> str:
    """Return 256 random bits as 43 characters of base64url, and a slot tag of three.

    `after` is the key of the session that the new id will belong to, where there is one: the tag is that of the key.
    """
    tag = secrets.token_urlsafe(TAG_CHARS)[:TAG_CHARS] if after is None else after[DIGEST_CHARS:]
    return secrets.token_urlsafe(_ID_BYTES) + tag


def is_session_id(value: str) -> bool:
    """Whether `value` has the form that `new_session_id` produces."""
    return _ID_FORM.match(value) is not None


class SecretStruct(msgspec.Struct, frozen=True):
    """Base of structs that hold ids, tokens, codes or other secrets: reprs, rich's included, end up in logs and tracebacks."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return nothing: for rich tracebacks msgspec would return every field."""
        return []


class UncertainId(SecretStruct, frozen=True):
    """Ids of which at most one is live: sent to a browser when the store's answer to a change of its id was lost.

    `new`: ids that the session may have got, the newest first. `old`: the one before, if there was a session. `begun`: the change
    was a login that began then (the numbers of its `Moment`), and the OP may have ended it.
    """

    new: tuple[str, ...]
    old: str | None = None
    begun: tuple[int, int] | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them, the newest first."""
        return self.new if self.old is None else (*self.new, self.old)

    def after(self, session_id: str, begun: tuple[int, int] | None) -> UncertainId:
        """Return the same after one more change whose answer was lost."""
        return UncertainId((session_id, *self.new)[:_MAX_NEW], self.old, begun or self.begun)

    def text(self) -> str:
        """Return the value to sign for the cookie; never equal to a single id."""
        begun = "" if self.begun is None else f"{self.begun[0]}.{self.begun[1]}"
        return "~".join((*self.new, self.old or "", begun))

    @staticmethod
    def parse(text: str) -> UncertainId | None:
        """Parse a value made by `text`; None for any other text."""
        parts = text.split("~", _MAX_NEW + 2)
        if not 3 <= len(parts) <= _MAX_NEW + 2:  # noqa: PLR2004 - one new id, the old one, the login
            return None
        *new, old, begun = parts
        numbers = _BEGUN_FORM.match(begun)
        if not all(map(is_session_id, [*new, *filter(None, [old])])) or (begun and numbers is None):
            return None
        return UncertainId(tuple(new), old or None, None if numbers is None else (int(numbers[1]), int(numbers[2])))


@lru_cache(maxsize=1024)
def session_key(session_id: str) -> str:
    """Return the store's key for an id: SHA-256 of all of it as 43 characters of base64url, and its slot tag."""
    digest = b2a_base64(sha256(session_id.encode("ascii")).digest(), newline=False).translate(_URL_SAFE)
    return digest[:DIGEST_CHARS].decode("ascii") + session_id[DIGEST_CHARS:]


def handle_of(key: str) -> str:
    """Return the public handle of a session key: safe to print, log, and put into a URL (22 characters)."""
    digest = sha256(b"handle:" + key.encode("ascii")).digest()
    return b2a_base64(digest[:16], newline=False).translate(_URL_SAFE)[:-2].decode("ascii")
