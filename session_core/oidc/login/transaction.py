"""One login attempt between its start and its callback, kept by the browser in an encrypted cookie; knows no provider.

Nothing is stored on the server for somebody who only starts a login: a page that opens a thousand logins in its
visitors' browsers fills no store. Each attempt has a cookie of its own, named after its state, so that ten tabs can log in
at once and finish in any order.
"""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from session_core.clock import TOLERATED_SKEW_MS
from session_core.cookies import CookieConfig, cookie_name, read_cookies
from session_core.errors import AuthorizationResponseError
from session_core.oidc.secret_struct import SecretStruct
from session_core.sessions.store_order import Moment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from session_core.clock import Clock
    from session_core.cookies import ResolvedCookie
    from session_core.sealing import SealingKeys

__all__ = ("LIFETIME_SECONDS", "LoginTransaction", "LoginTransactions", "ResponseMode", "state_digest")

ResponseMode: TypeAlias = Literal["query", "form_post"]

LIFETIME_SECONDS: Final = 600
_MAX_OPEN: Final = 10
_MAX_DELETED: Final = 20
"""A sibling host can plant any number of cookies; clearing them must not make an answer that no proxy passes on."""
_MAX_RETURN_TO: Final = 1024
_SECRET_BYTES: Final = 32
_STATE: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_SUFFIX: Final = re.compile(rb"[A-Za-z0-9_-]{8}\Z")
_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{1,3900}\Z")


class LoginTransaction(SecretStruct, frozen=True, kw_only=True, omit_defaults=True):
    """What a callback must match.

    `started_at` is in Unix milliseconds, `begun` is the same in the store's order; `state` is kept as its digest.
    """

    provider: str
    state_digest: str
    nonce: str
    code_verifier: str
    return_to: str
    started_at: int
    begun: Moment = Moment()
    max_age: int | None = None
    acr_values: tuple[str, ...] = ()
    response_mode: ResponseMode = "query"
    silent: bool = False


def state_digest(state: str) -> str:
    """Return the digest of a state: names the cookie and the single-use claim."""
    return urlsafe_b64encode(sha256(b"login state\0" + state.encode()).digest()).rstrip(b"=").decode()


class LoginTransactions:
    """Opens and finds login transactions in the cookies of a browser."""

    def __init__(self, sealing: SealingKeys, clock: Clock, *, public_url: str) -> None:
        self._sealing = sealing
        self._clock = clock
        self._public_url = public_url
        bases: dict[ResponseMode, str] = {"query": "login", "form_post": "login-post"}
        self._prefixes = {mode: cookie_name(base, public_url) + "-" for mode, base in bases.items()}

    def start(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        provider: str,
        return_to: str,
        begun: Moment,
        max_age: int | None = None,
        acr_values: tuple[str, ...] = (),
        response_mode: ResponseMode = "query",
        silent: bool = False,
    ) -> tuple[str, LoginTransaction, list[bytes]]:
        """Open a transaction; return its state, itself, and the Set-Cookie values for the answer.

        At most ten stay open in a browser; the oldest are deleted. `return_to` must be safe already; one that is too long
        for a cookie becomes `/`.
        """
        state = secrets.token_urlsafe(_SECRET_BYTES)
        transaction = LoginTransaction(
            provider=provider,
            state_digest=state_digest(state),
            nonce=secrets.token_urlsafe(_SECRET_BYTES),
            # 43 characters, the least that RFC 7636 4.1 allows, and all of them random.
            code_verifier=secrets.token_urlsafe(_SECRET_BYTES),
            return_to=return_to if len(return_to) <= _MAX_RETURN_TO else "/",
            started_at=self._clock.now(),
            begun=begun,
            max_age=max_age,
            acr_values=acr_values,
            response_mode=response_mode,
            silent=silent,
        )
        cookie = self._cookie(transaction.state_digest, response_mode)
        sealed = self._sealing.seal(msgspec.msgpack.encode(transaction), context=_context(cookie.name))
        value = urlsafe_b64encode(sealed).rstrip(b"=").decode()
        return state, transaction, [cookie.set_header(value, LIFETIME_SECONDS), *self._evict(headers)]

    def find(self, headers: Iterable[tuple[bytes, bytes]], state: str) -> LoginTransaction:
        """Return the transaction that this browser opened with `state`.

        Raises `AuthorizationResponseError`: `state_malformed`, `state_unknown` (no such cookie here: another browser, a forged
        state, or login CSRF) or `state_expired`.
        """
        if not _STATE.match(state):
            raise AuthorizationResponseError("state_malformed")
        digest = state_digest(state)
        headers = list(headers)
        jars = [self._cookie(digest, mode).name for mode in get_args(ResponseMode)]
        for name, value in ((jar, value) for jar in jars for value in read_cookies(headers, jar)):
            transaction = self._unseal(name, value)
            if transaction is not None and hmac.compare_digest(transaction.state_digest, digest):
                if self._is_over(transaction):
                    raise AuthorizationResponseError("state_expired")
                return transaction
        raise AuthorizationResponseError("state_unknown")

    def delete_header(self, transaction: LoginTransaction) -> bytes:
        """Return the Set-Cookie value that deletes the transaction's cookie."""
        return self._cookie(transaction.state_digest, transaction.response_mode).delete_header()

    def _evict(self, headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
        """Return the Set-Cookie values that delete the oldest transactions, and cookies that are none."""
        headers = list(headers)
        live: list[tuple[int, str]] = []
        dead: list[str] = []
        for name in self._names(headers):
            opened = [self._unseal(name, value) for value in read_cookies(headers, name)]
            times = [each.started_at for each in opened if each is not None and not self._is_over(each)]
            if times:
                live.append((max(times), name))
            else:
                dead.append(name)
        live.sort()
        dead = [name for _, name in live[: max(0, len(live) - (_MAX_OPEN - 1))]] + dead
        return [self._resolve(name).delete_header() for name in dead[:_MAX_DELETED]]

    def _names(self, headers: list[tuple[bytes, bytes]]) -> list[str]:
        prefixes = [prefix.encode() for prefix in self._prefixes.values()]
        names: dict[str, None] = {}
        for header, line in headers:
            if header != b"cookie":
                continue
            for pair in line.split(b";"):
                name = pair.strip(b" \t").partition(b"=")[0]
                if any(name.startswith(prefix) and _SUFFIX.match(name[len(prefix) :]) for prefix in prefixes):
                    names[name.decode("ascii")] = None
        return list(names)

    def _unseal(self, name: str, value: str) -> LoginTransaction | None:
        if not _VALUE.match(value) or len(value) % 4 == 1:
            return None
        plain = self._sealing.unseal(urlsafe_b64decode(value + "=" * (-len(value) % 4)), context=_context(name))
        try:
            return None if plain is None else msgspec.msgpack.decode(plain, type=LoginTransaction)
        except msgspec.MsgspecError:
            return None  # sealed by another version of this program

    def _is_over(self, transaction: LoginTransaction) -> bool:
        # By our own clock, inside the seal: the cookie's Max-Age is only a request to the browser.
        # A node whose clock is behind that of the one where the login began sees it begin later.
        return not -TOLERATED_SKEW_MS <= self._clock.now() - transaction.started_at < LIFETIME_SECONDS * 1000

    def _cookie(self, digest: str, mode: ResponseMode) -> ResolvedCookie:
        return self._resolve(self._prefixes[mode] + digest[:8])

    def _resolve(self, name: str) -> ResolvedCookie:
        if name.startswith(self._prefixes["form_post"]):
            # Comes back with a cross-site POST, on which only None is sent, and None needs Secure.
            return CookieConfig(name=name, same_site="none", secure=True).resolve(self._public_url)
        # Lax: the way back from the provider is a cross-site navigation, on which Strict is not sent.
        return CookieConfig(name=name, same_site="lax").resolve(self._public_url)


def _context(cookie_name: str) -> str:
    return f"login-transaction:{cookie_name}"
