"""Caches the provider's keys and decides when to fetch them again. Independent of claims.

A token with an unknown key means a key rotation or a forgery, and only a fetch can show which. Any client can send forged logout
tokens, so these may cause one fetch per cooldown. ID tokens come from the provider over TLS and have a separate budget, which
logout tokens cannot exhaust and which every verified ID token refills, so that the login right after a rotation succeeds.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from session_core.clock import Clock
from session_core.errors import DiscoveryError
from session_core.oidc.http import OpHttp
from session_core.oidc.single_flight import SingleFlight
from session_core.oidc.verify.jwk_set import parse_jwk_set
from session_core.oidc.verify.jws import Jws, VerificationKey, fits, verifies

__all__ = ("KeyCache", "TokenSource")

TokenSource: TypeAlias = Literal["id_token", "logout_token"]
"""The origin of a token: the provider over TLS, or any client."""
_OK: Final = 200
_FRESH_MS: Final = 600_000
_STALE_MS: Final = 3_600_000
_MAX_TRIED: Final = 10
"""The most keys tried for one token: any client can send a logout token, and each key costs up to a millisecond. Providers
publish two to five keys, and `kid` names one."""


class KeyCache:
    """The keys of one provider.

    Fetched again every ten minutes, so that a withdrawn key is soon refused; during an outage the last known keys are used for an
    hour.
    """

    def __init__(self, http: OpHttp, clock: Clock, *, cooldown_seconds: float) -> None:
        self._http = http
        self._clock = clock
        self._cooldown = round(cooldown_seconds * 1000)
        self._keys: tuple[VerificationKey, ...] = ()
        self._url = ""
        self._fetched_at: int | None = None
        self._failed_at: int | None = None
        self._refetched_at: dict[TokenSource, int] = {}
        self._flight: SingleFlight[None] = SingleFlight()

    async def refusal(self, jws: Jws, jwks_uri: str, *, source: TokenSource, issuer: str | None = None) -> str | None:
        """Return None if one of the provider's keys signed the token, else `unknown_key`, `bad_signature` or `too_many_keys`.

        With an `issuer`, keys that the provider publishes for other issuers (the member `issuer` of a key) do not count.

        Raises `DiscoveryError` when no keys are available.
        """
        just_fetched = await self._freshen(jwks_uri, source)
        # Also fetch again after a bad signature with a known kid: a provider may rotate without changing the kid, or use none.
        if self._is_signed(jws, issuer) or (
            not just_fetched and await self._refetch(jwks_uri, source) and self._is_signed(jws, issuer)
        ):
            if source == "id_token":
                self._refetched_at.pop(source, None)
            return None
        candidates = self._candidates(jws, issuer)
        if len(candidates) > _MAX_TRIED:
            return "too_many_keys"
        return "bad_signature" if candidates else "unknown_key"

    def _is_signed(self, jws: Jws, issuer: str | None) -> bool:
        return any(verifies(jws, key) for key in self._candidates(jws, issuer)[:_MAX_TRIED])

    def _candidates(self, jws: Jws, issuer: str | None) -> list[VerificationKey]:
        """Return the matching keys for the token's kid; without a kid on either side, all keys of the right type."""
        named = [key for key in self._keys if jws.kid is None or key.kid in {None, jws.kid}]
        if issuer is not None:
            tenant = str(jws.claims.get("tid"))
            named = [key for key in named if key.issuer is None or key.issuer.replace("{tenantid}", tenant) == issuer]
        # Keys with the same kid first: keys without one must not push them beyond the limit.
        return sorted((key for key in named if fits(jws, key)), key=lambda key: key.kid is None)

    async def _freshen(self, url: str, source: TokenSource) -> bool:
        """Fetch if the cached keys are stale; return whether they were fetched now."""
        now = self._clock.now()
        age = None if self._fetched_at is None or url != self._url else now - self._fetched_at
        if age is not None and 0 <= age < _FRESH_MS:
            return False
        usable = age is not None and 0 <= age < _STALE_MS
        try:
            # During an outage the keys are not requested again for every token that a client sends.
            if source == "logout_token" and self._failed_at is not None and 0 <= now - self._failed_at < self._cooldown:
                reason = "jwks_unavailable"
                raise DiscoveryError(reason)  # noqa: TRY301 - the same end as a fetch that fails
            await self._flight.run(url, lambda: self._fetch(url))
        except DiscoveryError:
            if usable:
                return True
            raise
        return True

    async def _refetch(self, url: str, source: TokenSource) -> bool:
        """Fetch again for a token that did not verify, if the cooldown allows; return whether it did."""
        now = self._clock.now()
        last = self._refetched_at.get(source)
        if not self._flight.is_running(url):
            if last is not None and 0 <= now - last < self._cooldown:
                return False
            self._refetched_at[source] = now
        try:
            await self._flight.run(url, lambda: self._fetch(url))
        except DiscoveryError:
            return False  # verified with the cached keys
        return True

    async def _fetch(self, url: str) -> None:
        try:
            self._keys = await self._fetch_keys(url)
        except DiscoveryError:
            self._failed_at = self._clock.now()
            raise
        self._url, self._fetched_at, self._failed_at = url, self._clock.now(), None

    async def _fetch_keys(self, url: str) -> tuple[VerificationKey, ...]:
        response = await self._http.send(
            "GET", url, what="jwks", error=DiscoveryError, accept="application/jwk-set+json, application/json"
        )
        if response.status != _OK:
            reason = "jwks_status"
            raise DiscoveryError(reason)
        try:
            return parse_jwk_set(response.json_object("application/jwk-set+json"))
        except ValueError:
            reason = "jwks_malformed"
            raise DiscoveryError(reason) from None
