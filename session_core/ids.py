"""Session ids and what may be shown of them.

The id is a bearer secret: it lives in the browser's cookie and in the process that serves its requests, nowhere else. Everything
else sees the session key (its SHA-256 digest), so that a leaked store or backup opens no session. People see the
handle, from which neither can be computed.

An id and its key end in the same slot tag: three characters that are no secret and say nothing of the session. A regenerated
id keeps the tag of the one before, so that a store that spreads its keys over many machines by the tag (Redis Cluster) has
both on one machine and can move the session in one atomic step. The 256 secret bits are always new.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64encode
from binascii import b2a_base64
from functools import lru_cache
from hashlib import sha256
from typing import Final

__all__ = ("DIGEST_CHARS", "TAG_CHARS", "handle_of", "is_session_id", "new_session_id", "session_key")

DIGEST_CHARS: Final = 43
"""Of the secret part of an id, and of the digest in a key: 32 bytes in base64url."""
TAG_CHARS: Final = 3
"""Of the slot tag at the end of both: enough for any number of machines."""
_ID_BYTES: Final = 32
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_ID_FORM: Final = re.compile(rf"[A-Za-z0-9_-]{{{DIGEST_CHARS + TAG_CHARS}}}\Z", re.ASCII)


def new_session_id(*, after: str | None = None) -> str:
    """Return 256 random bits as 43 characters of base64url, and a slot tag of three.

    `after` is the key of the session that the new id will belong to, where there is one: the tag is that of the key.
    """
    tag = secrets.token_urlsafe(TAG_CHARS)[:TAG_CHARS] if after is None else after[DIGEST_CHARS:]
    return secrets.token_urlsafe(_ID_BYTES) + tag


def is_session_id(value: str) -> bool:
    """Whether `value` has the one form that `new_session_id` produces."""
    return _ID_FORM.match(value) is not None


@lru_cache(maxsize=1024)
def session_key(session_id: str) -> str:
    """Return the store's key for an id: SHA-256 of all of it as 43 characters of base64url, and its slot tag."""
    digest = b2a_base64(sha256(session_id.encode("ascii")).digest(), newline=False).translate(_URL_SAFE)
    return digest[:DIGEST_CHARS].decode("ascii") + session_id[DIGEST_CHARS:]


def handle_of(key: str) -> str:
    """Return the public handle of a session key: safe to print, log, and put into a URL (22 characters)."""
    return urlsafe_b64encode(sha256(b"handle:" + key.encode("ascii")).digest()[:16]).rstrip(b"=").decode("ascii")
