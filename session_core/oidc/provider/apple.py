"""Apple's client secret: a short-lived token that the application signs itself; sends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from session_core.oidc.provider.client_key import ClientKey

__all__ = ("apple_client_secret",)

_AUDIENCE: Final = "https://appleid.apple.com"
_SECONDS: Final = 300


def apple_client_secret(key: ClientKey, *, team_id: str, client_id: str) -> Callable[[], str]:
    """Return a function for `client_secret` that signs a fresh one for every request, valid for five minutes.

    `key` is the key from Apple's developer account, with the `kid` that is shown there.
    """

    def client_secret() -> str:
        issued = int(time.time())
        claims = {"iss": team_id, "sub": client_id, "aud": _AUDIENCE, "iat": issued, "exp": issued + _SECONDS}
        return key.sign("JWT", claims)

    return client_secret
