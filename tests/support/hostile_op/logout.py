"""The provider's logout tokens, valid and invalid, delivered over HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

import httpx

from tests.support.hostile_op.grants import CLIENT_ID
from tests.support.hostile_op.provider import HostileOp
from tests.support.hostile_op.signing import Forge, SigningKey, changed, compact

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"


def logout_token(
    op: HostileOp,
    *,
    header: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
    key: SigningKey | None = None,
    forge: Forge | None = None,
) -> str:
    """Return a logout token (Back-Channel Logout 1.0, 2.4) with these differences from a valid one."""
    now, by = int(op.now()), key or op.key
    good = {
        "iss": op.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 120, "jti": secrets.token_urlsafe(16), "sid": op.sid,
        "sub": op.user or "alice", "events": {EVENT: {}},
    }  # fmt: skip
    given = changed({"alg": by.alg, "kid": op.key.kid, "typ": "logout+jwt"}, header or {})
    said = changed(good, claims or {})
    token = forge(given, said) if forge else compact(given, said, by.sign)
    op.secrets.add(token)
    return token


async def deliver(op: HostileOp, token: str, **changes: Any) -> httpx.Response:
    """Post the token to the client as a provider does: without cookies or browser headers."""
    request = {"data": {"logout_token": token}, **changes}
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        return await client.post(op.backchannel_uri, **request)
