"""The only module that uses Authlib: builds OAuth 2.0 URLs. Sends nothing.

Only Authlib's protocol core is used. Its HTTP clients read responses without limits and accept too much, and its framework
registry keeps one login per browser; both would bypass the checks of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge

__all__ = ("address_with", "code_challenge")


def address_with(endpoint: str, params: Mapping[str, str]) -> str:
    """Return an endpoint's URL with parameters added to its own (RFC 6749 3.1)."""
    # The endpoint's own query stays as it is: decoding and encoding it again could change it, or fail.
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(params, quote_via=quote)}"


def code_challenge(code_verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 4.2)."""
    challenge: str = create_s256_code_challenge(code_verifier)
    return challenge
