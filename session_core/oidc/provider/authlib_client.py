"""The one place that uses Authlib: writes OAuth 2.0 addresses as text; sends nothing and keeps nothing.

Only Authlib's protocol core is used. Its HTTP clients read answers without limits and accept far more than they should,
and its framework registry keeps one login per browser; both would bring the checks of this package around a corner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("address_with", "code_challenge")


def address_with(endpoint: str, params: Mapping[str, str]) -> str:
    """Return an endpoint's address with parameters, beside those that it has of its own (RFC 6749 3.1)."""
    url: str = add_params_to_uri(endpoint, list(params.items()))
    return url


def code_challenge(code_verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 4.2)."""
    challenge: str = create_s256_code_challenge(code_verifier)
    return challenge
