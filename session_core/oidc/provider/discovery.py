"""The provider's metadata: fetched when needed, believed only when it is the configured provider's own; knows no keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from session_core.errors import DiscoveryError
from session_core.oidc.addresses import is_provider_url
from session_core.oidc.single_flight import SingleFlight

if TYPE_CHECKING:
    from session_core.clock import Clock
    from session_core.oidc.http import OpHttp
    from session_core.oidc.provider.registration import Registration

__all__ = ("Discovery", "FixedMetadata", "MetadataSource", "ProviderMetadata")

_OK: Final = 200
_FRESH_MS: Final = 3_600_000
_STALE_MS: Final = 86_400_000
_RETRY_MS: Final = 10_000


class ProviderMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What we use of OpenID Provider Metadata (OpenID Connect Discovery 3); the rest is ignored.

    `mtls_endpoint_aliases` is ignored on purpose: these are for clients that authenticate by certificate (RFC 8705 5).
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    revocation_endpoint: str | None = None
    pushed_authorization_request_endpoint: str | None = None
    require_pushed_authorization_requests: bool = False
    response_modes_supported: tuple[str, ...] = ()
    id_token_signing_alg_values_supported: tuple[str, ...] = ()
    authorization_response_iss_parameter_supported: bool = False

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Every address that we or the browser would go to."""
        some = (
            self.authorization_endpoint, self.token_endpoint, self.jwks_uri, self.userinfo_endpoint,
            self.end_session_endpoint, self.revocation_endpoint, self.pushed_authorization_request_endpoint,
        )  # fmt: skip
        return tuple(url for url in some if url is not None)


class MetadataSource(Protocol):
    """Where a provider's metadata come from."""

    @property
    def known(self) -> ProviderMetadata | None:
        """The metadata that are known without asking the provider."""
        ...

    async def metadata(self, *, unsolicited: bool = False) -> ProviderMetadata:
        """Return the metadata. Raises `DiscoveryError`."""
        ...


class FixedMetadata:
    """Metadata that the application gave: of a provider that publishes none."""

    def __init__(self, metadata: ProviderMetadata) -> None:
        self._metadata = metadata

    @property
    def known(self) -> ProviderMetadata:
        """The metadata."""
        return self._metadata

    async def metadata(self, *, unsolicited: bool = False) -> ProviderMetadata:
        """Return the metadata."""
        del unsolicited
        return self._metadata


class Discovery:
    """Metadata of one provider. Fresh for an hour; when the provider is out, the last known is used for a day.

    A failure is not remembered against a login: the next one asks again, and those that wait at the same time share one request.
    """

    def __init__(self, provider: Registration, http: OpHttp, clock: Clock) -> None:
        self._provider = provider
        self._http = http
        self._clock = clock
        self._metadata: ProviderMetadata | None = None
        self._fetched_at = 0
        self._failed_at: int | None = None
        self._flight: SingleFlight[ProviderMetadata] = SingleFlight()

    @property
    def known(self) -> ProviderMetadata | None:
        """The metadata that was fetched last, without asking the provider."""
        return self._metadata

    async def metadata(self, *, unsolicited: bool = False) -> ProviderMetadata:
        """Return the provider's metadata. Raises `DiscoveryError` when it cannot be had or must not be believed.

        `unsolicited`: for a message that anybody may have sent. Such messages make us ask a provider that is out only once
        in ten seconds; a user who wants to log in is worth a new attempt.
        """
        now = self._clock.now()
        if self._metadata is not None and 0 <= now - self._fetched_at < _FRESH_MS:
            return self._metadata
        usable = self._metadata if 0 <= now - self._fetched_at < _STALE_MS else None
        asked = self._failed_at is not None and 0 <= now - self._failed_at < _RETRY_MS
        if usable is not None and asked:
            return usable
        if unsolicited and asked:
            reason = "discovery_unavailable"
            raise DiscoveryError(reason)
        try:
            return await self._flight.run("metadata", self._fetch)
        except DiscoveryError:
            self._failed_at = self._clock.now()
            if usable is not None:
                return usable
            raise

    async def _fetch(self) -> ProviderMetadata:
        url = f"{self._provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        response = await self._http.send("GET", url, what="discovery", error=DiscoveryError)
        if response.status != _OK:
            reason = "discovery_status"
            raise DiscoveryError(reason)
        try:
            metadata = msgspec.convert(response.json_object(), ProviderMetadata)
        except ValueError:
            reason = "discovery_malformed"
            raise DiscoveryError(reason) from None
        # Character for character (Discovery 4.3): a provider that names another issuer could have us accept that one's tokens.
        if metadata.issuer != self._provider.issuer:
            reason = "discovery_issuer_mismatch"
            raise DiscoveryError(reason)
        if not all(is_provider_url(each, allow_http=self._provider.allow_http) for each in metadata.endpoints):
            reason = "discovery_insecure_endpoint"
            raise DiscoveryError(reason)
        self._metadata, self._fetched_at, self._failed_at = metadata, self._clock.now(), None
        return metadata
