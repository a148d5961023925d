"""Session ids and what may be shown of them.

The id is a bearer secret: it lives in the browser's cookie and in the request that carries it, nowhere else. Everything
else sees the session key (its SHA-256 digest), so that a leaked store or backup opens no session. People see the
handle, from which neither can be computed.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

__all__ = ("handle_of", "is_session_id", "new_session_id", "session_key")

_ID_BYTES: Final = 32
_ID_FORM: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z", re.ASCII)


def new_session_id() -> str:
    """Return 256 random bits as 43 characters of base64url."""
    return secrets.token_urlsafe(_ID_BYTES)


def is_session_id(value: str) -> bool:
    """Whether `value` has the one form that `new_session_id` produces."""
    return _ID_FORM.match(value) is not None


def session_key(session_id: str) -> str:
    """Return the store's key for an id: SHA-256 as 43 characters of base64url."""
    return urlsafe_b64encode(sha256(session_id.encode("ascii")).digest()).rstrip(b"=").decode("ascii")


def handle_of(key: str) -> str:
    """Return the public handle of a session key: safe to print, log, and put into a URL (22 characters)."""
    return urlsafe_b64encode(sha256(b"handle:" + key.encode("ascii")).digest()[:16]).rstrip(b"=").decode("ascii")
