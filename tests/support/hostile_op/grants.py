"""Codes, tokens, userinfo and revocation of a user's consents; each grant carries the misbehaviour of its login."""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from tests.support.hostile_op.http_server import MARK, Answer, Call, Fault, json_answer
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.signing import GONE, b64, changed, claims_of, compact, half_hash, is_signed_by

if TYPE_CHECKING:
    from tests.support.hostile_op.provider import HostileOp

CLIENT_ID = "app-under-test"
CLIENT_SECRET = "client-secret:with%odd+chars-0123456789"


@dataclass
class Grant:
    """One login: the request, the user, and its misbehaviour."""

    asked: dict[str, str]
    user: str
    sid: str
    misbehaviour: Misbehaviour
    auth_time: int
    refresh_token: str = ""
    spent: set[str] = field(default_factory=set)
    revoked: bool = False
    after: Misbehaviour | None = None
    """The misbehaviour of its refreshes."""


class Grants:
    """All grants, by code and by token."""

    def __init__(self, op: HostileOp) -> None:
        self._op = op
        self._codes: dict[str, Grant] = {}
        self._spent_codes: dict[str, Grant] = {}
        self._access: dict[str, Grant] = {}
        self.all: list[Grant] = []
        self.revoked_tokens: list[str] = []

    def add(self, grant: Grant) -> str:
        code = self._secret("code")
        self._codes[code] = grant
        self.all.append(grant)
        return code

    def is_client(self, call: Call) -> bool:
        """Authenticate the client (OpenID Connect Core 9) by the one method that it uses."""
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            name, _, secret = base64.b64decode(value).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)
        if "client_assertion" in call.form:
            assertion = call.form["client_assertion"]
            said = claims_of(assertion)
            known = said["iss"] == said["sub"] == CLIENT_ID and said["exp"] > self._op.now() and said.get("jti")
            return bool(known) and is_signed_by(assertion, self._op.client_key)
        return call.form.get("client_id") == CLIENT_ID and call.form.get("client_secret") == CLIENT_SECRET

    def token(self, call: Call) -> Answer | Fault:
        """The token endpoint: codes are single-use and need their verifier, refresh tokens rotate."""
        if call.repeated or not self.is_client(call):
            return _error("invalid_client", 401)
        if call.form.get("grant_type") == "refresh_token":
            return self._refresh(call.form.get("refresh_token", ""))
        code = call.form.get("code", "")
        grant = self._codes.pop(code, None)
        if grant is None:
            if code in self._spent_codes:
                # A repeated code was stolen: its tokens are revoked (RFC 6749 4.1.2).
                self._spent_codes[code].revoked = True
            return _error("invalid_grant")
        self._spent_codes[code] = grant
        challenge = b64(hashlib.sha256(call.form.get("code_verifier", "").encode()).digest())
        if grant.asked["code_challenge"] != challenge or grant.asked["redirect_uri"] != call.form.get("redirect_uri"):
            return _error("invalid_grant")
        return self._tokens(grant, grant.misbehaviour, {"nonce": grant.asked["nonce"]})

    def _refresh(self, token: str) -> Answer | Fault:
        grant = next((each for each in self.all if token and token in {each.refresh_token, *each.spent}), None)
        if grant is None or grant.revoked or token in grant.spent:
            if grant is not None:
                grant.revoked = True
            return _error("invalid_grant")
        misbehaviour = grant.after or Misbehaviour()
        if misbehaviour.token_fault is None:
            grant.spent.add(token)
        return self._tokens(grant, misbehaviour, {})

    def _tokens(self, grant: Grant, misbehaviour: Misbehaviour, nonce: dict[str, str]) -> Answer | Fault:
        if misbehaviour.token_fault is not None:
            return misbehaviour.token_fault
        access = self._secret("at")
        self._access[access] = grant
        grant.refresh_token = self._secret("rt")
        answer = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self._op.expires_in,
            "refresh_token": grant.refresh_token,
            "id_token": self._id_token(grant, misbehaviour, nonce, access),
            "scope": grant.asked["scope"],
        }
        return json_answer(changed(answer, misbehaviour.token_answer))

    def _id_token(self, grant: Grant, misbehaviour: Misbehaviour, nonce: dict[str, str], access: str) -> str:
        op, now = self._op, int(self._op.now())
        key = misbehaviour.key or op.key
        claims: dict[str, Any] = {
            "iss": op.issuer, "sub": grant.user, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "sid": grant.sid,
            "auth_time": grant.auth_time, "at_hash": half_hash(key.alg, access), **nonce,
        }  # fmt: skip
        header = changed({"alg": key.alg, "typ": "JWT", "kid": op.key.kid or GONE}, misbehaviour.header)
        claims = changed(claims, misbehaviour.claims)
        token = misbehaviour.forge(header, claims) if misbehaviour.forge else compact(header, claims, key.sign)
        op.secrets.add(token)
        return token

    def userinfo(self, call: Call) -> Answer | Fault:
        """The claims of the token's user, plain or signed."""
        grant = self._access.get(call.headers.get("authorization", "").removeprefix("Bearer "))
        if grant is None or grant.revoked:
            return json_answer({"error": "invalid_token"}, 401)
        how = grant.misbehaviour
        if how.userinfo_fault is not None:
            return how.userinfo_fault
        claims = {"sub": grant.user, "name": grant.user.title(), "email": f"{grant.user}@example.org", "email_verified": True}
        claims = changed(claims, how.userinfo)
        if how.signed_userinfo is None:
            return json_answer(claims)
        signed = how.signed_userinfo({"alg": self._op.key.alg, "kid": self._op.key.kid}, claims)
        return Answer(200, [("content-type", "application/jwt")], signed.encode())

    def revoke(self, call: Call) -> Answer:
        """Token revocation (RFC 7009): 200 also for an unknown token."""
        if call.repeated or not self.is_client(call):
            return _error("invalid_client", 401)
        token = call.form.get("token", "")
        self.revoked_tokens.append(token)
        for grant in self.all:
            grant.revoked |= token in {grant.refresh_token, *grant.spent} or self._access.get(token) is grant
        return Answer(200, [])

    def _secret(self, kind: str) -> str:
        made = f"{kind}-{secrets.token_urlsafe(24)}"
        self._op.secrets.add(made)
        return made


def _error(code: str, status: int = 400) -> Answer:
    return json_answer({"error": code, "error_description": f"<b>{MARK}</b>"}, status)
