"""One login attempt between its start and its callback, kept by the browser in an encrypted cookie; independent of providers.

Starting a login stores nothing on the server, so a page that opens a thousand logins in its visitors' browsers fills no
store. Each attempt has a separate cookie, named after its state: ten tabs can log in at once and finish in any order.
Together these cookies stay below 4 KB, because many proxies refuse a request with more than 8 KB of headers.

A cookie outlives its attempt, so that "try again" after ten minutes, and Back to the provider after the login, still lead to the
requested page.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, Literal, TypeAlias, TypeVar, get_args

import msgspec

from session_core.clock import TOLERATED_SKEW_MS, Clock
from session_core.cookies import CookieConfig, ResolvedCookie, cookie_name, read_cookies
from session_core.errors import AuthorizationResponseError, LoginExpiredError, UnknownLoginError
from session_core.ids import SecretStruct
from session_core.oidc.login.native_request import NativeRequest
from session_core.oidc.login.request import LoginDemands
from session_core.sealing import SealingKeys
from session_core.sessions.store_order import Moment
from session_core.urls import packed, unpacked

__all__ = ("LIFETIME_SECONDS", "LoginTransaction", "LoginTransactions", "ResponseMode", "state_digest")

T = TypeVar("T", "LoginTransaction", "_FinishedLogin")
ResponseMode: TypeAlias = Literal["query", "form_post"]

LIFETIME_SECONDS: Final = 600
_MAX_OPEN: Final = 10
_MAX_DELETED: Final = 20
"""A sibling host can plant any number of cookies; the response that deletes them must stay small enough for proxies."""
_MAX_COOKIE_BYTES: Final = 4096
"""The limit for all login cookies of a browser, with names and separators."""
_RESERVED_BYTES: Final = 128
"""For the attributes of a Set-Cookie header, and for what a lost answer to the claim adds to the transaction."""
_COOKIE_SECONDS: Final = 3600
_SECRET_BYTES: Final = 32
_CODE_DIGEST_BYTES: Final = 16
_STATE: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_SUFFIX: Final = re.compile(rb"[A-Za-z0-9_-]{8}\Z")


class LoginTransaction(SecretStruct, frozen=True, array_like=True, omit_defaults=True):
    """The values that a callback must match. `started_at` is in Unix milliseconds, `begun` is the same in the store's order."""

    provider: str
    seed: bytes
    return_to: str
    started_at: int
    begun: Moment = Moment()
    max_age: int | None = None
    acr_values: tuple[str, ...] = ()
    response_mode: ResponseMode = "query"
    silent: bool = False
    lost_claims: int = 0
    """How often the answer to the claim was lost; `claimed_until` is the `expires_at` of that claim (see `single_use`)."""
    claimed_until: int = 0
    reauthenticate: bool = False
    option: str | None = None
    """The one of `OidcConfig.login_options` that the link chose."""
    native: NativeRequest | None = None
    """The request of a native client, which gets the session in place of this browser."""
    hints: dict[str, str] = msgspec.field(default_factory=dict)
    """The hints of that request (`login_hint`, `ui_locales`, `link_params`): it may be sent to the provider a second time."""

    # Three independent secrets are derived from one, so that ten transactions fit into 4 KB; each has 43 characters, the minimum
    # of RFC 7636 4.1 for a verifier.

    @property
    def state(self) -> str:
        """The `state` parameter."""
        return self._derived(b"state")

    @property
    def state_digest(self) -> str:
        """The digest of the state."""
        return state_digest(self.state)

    @property
    def nonce(self) -> str:
        """The `nonce` parameter (OpenID Connect Core 3.1.2.1)."""
        return self._derived(b"nonce")

    @property
    def code_verifier(self) -> str:
        """The PKCE code verifier (RFC 7636 4.1)."""
        return self._derived(b"code_verifier")

    def _derived(self, purpose: bytes) -> str:
        return urlsafe_b64encode(hmac.digest(self.seed, purpose, "sha256")).rstrip(b"=").decode()


class _FinishedLogin(SecretStruct, frozen=True, array_like=True):
    """Kept by a browser about its last finished login; `finished_at` is in Unix milliseconds."""

    provider: str
    state_digest: str
    code_digest: bytes
    return_to: str
    finished_at: int


def state_digest(state: str) -> str:
    """Return the digest of a state: names the cookie and the single-use claim."""
    return urlsafe_b64encode(sha256(b"login state\0" + state.encode()).digest()).rstrip(b"=").decode()


class LoginTransactions:
    """Opens and finds login transactions in the cookies of a browser."""

    def __init__(self, sealing: SealingKeys, clock: Clock, *, public_url: str) -> None:
        self._sealing = sealing
        self._clock = clock
        self._public_url = public_url
        self._finished = CookieConfig(name=cookie_name("last-sign-in", public_url), same_site="lax").resolve(public_url)
        bases: dict[ResponseMode, str] = {"query": "login", "form_post": "login-post"}
        self._prefixes = {mode: cookie_name(base, public_url) + "-" for mode, base in bases.items()}

    def start(  # noqa: PLR0913 - what a login attempt is
        self,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        provider: str,
        return_to: str,
        begun: Moment,
        demands: LoginDemands,
        response_mode: ResponseMode = "query",
        silent: bool = False,
        option: str | None = None,
        native: NativeRequest | None = None,
        hints: Mapping[str, str] | None = None,
    ) -> tuple[str, LoginTransaction, list[bytes]]:
        """Open a transaction; return its state, itself, and the Set-Cookie values for the response.

        Other login cookies of the browser are deleted until at most ten logins are open and all these cookies have at most
        4 KB: first finished attempts, then the oldest. `return_to` must already be validated. `hints` are left out if the
        Set-Cookie header would be larger than browsers accept.
        """
        transaction = LoginTransaction(
            provider=provider,
            seed=secrets.token_bytes(_SECRET_BYTES),
            return_to=return_to,
            started_at=self._clock.now(),
            begun=begun,
            max_age=demands.max_age,
            acr_values=demands.acr_values,
            response_mode=response_mode,
            silent=silent,
            reauthenticate=demands.reauthenticate,
            option=option,
            native=native,
            hints=dict(hints or {}),
        )
        cookie, value = self._sealed(transaction)
        if transaction.hints and _cookie_bytes(cookie.name, value) > _MAX_COOKIE_BYTES - _RESERVED_BYTES:
            transaction = msgspec.structs.replace(transaction, hints={})
            cookie, value = self._sealed(transaction)
        opened = cookie.set_header(value, _COOKIE_SECONDS)
        return transaction.state, transaction, [opened, *self._evict(headers, _cookie_bytes(cookie.name, value))]

    def set_header(self, transaction: LoginTransaction) -> bytes:
        """Return the Set-Cookie value of a transaction."""
        cookie, value = self._sealed(transaction)
        return cookie.set_header(value, _COOKIE_SECONDS)

    def find(self, headers: Iterable[tuple[bytes, bytes]], state: str) -> LoginTransaction:
        """Return the transaction that this browser opened with `state`.

        Raises `AuthorizationResponseError` (`state_malformed`), `UnknownLoginError` (no such cookie here: another browser, a
        forged state, or login CSRF) or `LoginExpiredError`, this one with `return_to`.
        """
        if not _STATE.match(state):
            raise AuthorizationResponseError("state_malformed")
        transaction = self.opened(headers, state)
        if transaction is None:
            raise UnknownLoginError("state_unknown")
        if not self._is_recent(transaction.started_at):
            raise LoginExpiredError("state_expired", return_to=transaction.return_to)
        return transaction

    def opened(self, headers: Iterable[tuple[bytes, bytes]], state: str) -> LoginTransaction | None:
        """Return the transaction that this browser opened with `state`, also an expired one."""
        digest, headers = state_digest(state), list(headers)
        jars = [self._cookie(digest, mode).name for mode in get_args(ResponseMode)]
        for name, value in ((jar, value) for jar in jars for value in read_cookies(headers, jar)):
            transaction = self._unseal(name, value, LoginTransaction)
            if transaction is not None and hmac.compare_digest(transaction.state_digest, digest):
                return transaction
        return None

    def finish_header(self, transaction: LoginTransaction, code: str | None) -> bytes:
        """Return the Set-Cookie value with the target and the code digest of a finished login."""
        finished = _FinishedLogin(
            transaction.provider, transaction.state_digest, _code_digest(code or ""), transaction.return_to, self._clock.now()
        )
        return self._finished.set_header(self._seal(self._finished.name, finished), LIFETIME_SECONDS)

    def finished_return_to(
        self, headers: Iterable[tuple[bytes, bytes]], state: str, code: str | None, provider: str
    ) -> str | None:
        """Return the target of this browser's last login, for a second response to it; else None.

        Providers send one when the user goes back to their page and submits it again, or cancels there: then `code` is None. The
        same code again is a replay.
        """
        name = self._finished.name
        for value in read_cookies(headers, name):
            known = self._unseal(name, value, _FinishedLogin)
            if (
                known is not None
                and known.provider == provider
                and hmac.compare_digest(known.state_digest, state_digest(state))
                and (code is None or not hmac.compare_digest(known.code_digest, _code_digest(code)))
                and self._is_recent(known.finished_at)
            ):
                return known.return_to
        return None

    def delete_header(self, transaction: LoginTransaction) -> bytes:
        """Return the Set-Cookie value that deletes the transaction's cookie."""
        return self._cookie(transaction.state_digest, transaction.response_mode).delete_header()

    def _sealed(self, transaction: LoginTransaction) -> tuple[ResolvedCookie, str]:
        cookie = self._cookie(transaction.state_digest, transaction.response_mode)
        return cookie, self._seal(cookie.name, transaction)

    def _evict(self, headers: Iterable[tuple[bytes, bytes]], taken: int) -> list[bytes]:
        """Return the Set-Cookie values that delete other login cookies to make room for a new one of `taken` bytes.

        A cookie that cannot be unsealed stays: it may belong to another application on this host.
        """
        headers = list(headers)
        known: list[tuple[bool, int, str, int]] = []
        for name in self._names(headers):
            for value in read_cookies(headers, name):
                if (opened := self._unseal(name, value, LoginTransaction)) is not None:
                    is_open = self._is_recent(opened.started_at)
                    known.append((is_open, opened.started_at, name, _cookie_bytes(name, value)))
        name = self._finished.name
        finished = [value for value in read_cookies(headers, name) if self._unseal(name, value, _FinishedLogin) is not None]
        known += [(False, 0, name, _cookie_bytes(name, value)) for value in finished]
        deleted: dict[str, None] = {}
        open_logins = 1
        for is_open, _, name, size in sorted(known, reverse=True):
            taken, open_logins = taken + size, open_logins + is_open
            if taken > _MAX_COOKIE_BYTES or open_logins > _MAX_OPEN:
                deleted[name] = None
        return [self._resolve(name).delete_header() for name in list(deleted)[:_MAX_DELETED]]

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

    def _seal(self, name: str, value: LoginTransaction | _FinishedLogin) -> str:
        value = msgspec.structs.replace(value, return_to=packed(value.return_to))
        return self._sealing.seal_text(value, context=_context(name))

    def _unseal(self, name: str, value: str, kind: type[T]) -> T | None:
        opened = self._sealing.unseal_text(value, kind, context=_context(name))
        return None if opened is None else msgspec.structs.replace(opened, return_to=unpacked(opened.return_to))

    def _is_recent(self, at: int) -> bool:
        # The sealed time decides: the cookie's Max-Age is only a request to the browser.
        # On a node whose clock is behind, the login may seem to begin in the future.
        return -TOLERATED_SKEW_MS <= self._clock.now() - at < LIFETIME_SECONDS * 1000

    def _cookie(self, digest: str, mode: ResponseMode) -> ResolvedCookie:
        return self._resolve(self._prefixes[mode] + digest[:8])

    def _resolve(self, name: str) -> ResolvedCookie:
        if name.startswith(self._prefixes["form_post"]):
            # The response is a cross-site POST, which only has cookies with SameSite=None, and None needs Secure.
            return CookieConfig(name=name, same_site="none", secure=True).resolve(self._public_url)
        # Lax: the redirect from the provider is a cross-site navigation, which has no Strict cookies.
        return CookieConfig(name=name, same_site="lax").resolve(self._public_url)


def _cookie_bytes(name: str, value: str) -> int:
    return len(name) + len("=") + len(value) + len("; ")


def _code_digest(code: str) -> bytes:
    return sha256(b"login code\0" + code.encode("utf-8", "surrogatepass")).digest()[:_CODE_DIGEST_BYTES]


def _context(cookie_name: str) -> str:
    return f"login-transaction:{cookie_name}"
