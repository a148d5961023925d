"""The bearer token of a request (RFC 6750): an opaque session id, signed as the cookie is. Loads no session."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from session_core.asgi_types import Scope
from session_core.cookies import CookieSigner
from session_core.cookies.reader import presents_cookie
from session_core.ids import UncertainId, is_session_id

__all__ = ("TOKEN_HEADER", "BearerTokens", "presents_bearer")

TOKEN_HEADER: Final = b"session-token"
"""The response header that gives a client its new token."""
_SIGNED: Final = "s:"
"""The prefix of a signed cookie; a token cannot contain its colon (RFC 6750 2.1, `b64token`)."""
_SCHEME: Final = re.compile(rb"\s*bearer(?![!#$%&'*+.^_`|~0-9A-Za-z-])", re.IGNORECASE)
"""The authentication scheme, which is a whole word in any case (RFC 9110 11.1)."""
_CREDENTIALS: Final = re.compile(rb"\s*bearer +([A-Za-z0-9._~+/-]{1,512}=*)\s*\Z", re.IGNORECASE)
_IN_QUERY: Final = re.compile(rb"(?:\A|&)access_token=")


class BearerTokens:
    """Signs and verifies the tokens of an application. `cookie` is the name of its session cookie."""

    def __init__(self, signer: CookieSigner, cookie: str) -> None:
        self._signer = signer
        self._cookie = cookie.encode()

    def sign(self, text: str) -> str:
        """Return the token of an id, or of the ids of which one is live."""
        return self._signer.sign(text).removeprefix(_SIGNED)

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | UncertainId | None, bool]:
        """Return the id that the token of a request proves, or None, and whether an older secret has signed it."""
        given = next((value for name, value in headers if name == b"authorization"), b"")
        found = _CREDENTIALS.match(given)
        unsigned = self._signer.unsign(_SIGNED + found[1].decode("ascii")) if found is not None else None
        if unsigned is None:
            return None, False
        value = unsigned.value
        return (value if is_session_id(value) else UncertainId.parse(value)), not unsigned.by_first_secret

    def is_ambiguous(self, scope: Scope) -> bool:
        """Whether a request has a bearer token and presents a session in another way, too."""
        headers = scope["headers"]
        if not presents_bearer(headers):
            return False
        several = sum(name == b"authorization" for name, _ in headers) > 1
        return several or self.presents_cookie(headers) or bool(_IN_QUERY.search(scope["query_string"]))

    def presents_cookie(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request has a session cookie, valid or not."""
        return presents_cookie(headers, self._cookie)


def presents_bearer(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request has a bearer token, valid or not."""
    return any(name == b"authorization" and _SCHEME.match(value) for name, value in headers)
