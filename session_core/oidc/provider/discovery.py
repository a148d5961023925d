"""The provider's metadata: fetched when needed, accepted only if it is the configured provider's. Independent of keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeGuard

import msgspec

from session_core.errors import DiscoveryError
from session_core.oidc.single_flight import SingleFlight
from session_core.urls import is_provider_url, party_origin

if TYPE_CHECKING:
    from session_core.clock import Clock
    from session_core.oidc.http import OpHttp
    from session_core.oidc.provider.openid import OidcProvider

__all__ = ("Discovery", "FixedMetadata", "MetadataSource", "ProviderMetadata", "parse_metadata")

_OK: Final = 200
_FRESH_MS: Final = 3_600_000
_STALE_MS: Final = 86_400_000
_RETRY_MS: Final = 10_000
_MALFORMED: Final = "discovery_malformed"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_OPTIONAL_ENDPOINTS: Final = (
    "userinfo_endpoint", "end_session_endpoint", "revocation_endpoint", "pushed_authorization_request_endpoint",
)  # fmt: skip
_FLAGS: Final = ("require_pushed_authorization_requests", "authorization_response_iss_parameter_supported")


class ProviderMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The members of OpenID Provider Metadata that are used here (OpenID Connect Discovery 3).

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
    account_management_uri: str | None = None
    """Where users manage their account; not of a published specification, but of several providers."""


class MetadataSource(Protocol):
    """The source of a provider's metadata."""

    @property
    def known(self) -> ProviderMetadata | None:
        """The metadata known without a request to the provider."""
        ...

    async def metadata(self, *, unsolicited: bool = False) -> ProviderMetadata:
        """Return the metadata. Raises `DiscoveryError`."""
        ...


class FixedMetadata:
    """Metadata from the configuration."""

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
    """Metadata of one provider. Fresh for an hour; during an outage the last known is used for a day.

    Failures are not cached for logins: the next login fetches again, and concurrent logins share one request.
    """

    def __init__(self, provider: OidcProvider, http: OpHttp, clock: Clock) -> None:
        self._provider = provider
        self._http = http
        self._clock = clock
        self._metadata: ProviderMetadata | None = None
        self._fetched_at = 0
        self._failed_at: int | None = None
        self._flight: SingleFlight[ProviderMetadata] = SingleFlight()

    @property
    def known(self) -> ProviderMetadata | None:
        """The metadata that was fetched last, without a request to the provider."""
        return self._metadata

    async def metadata(self, *, unsolicited: bool = False) -> ProviderMetadata:
        """Return the provider's metadata. Raises `DiscoveryError` when it is unavailable or not valid.

        `unsolicited`: for a message that any client may have sent. During an outage such messages cause one request in ten
        seconds; logins always try again.
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
        provider = self._provider
        url = provider.metadata_url or f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        response = await self._http.send("GET", url, what="discovery", error=DiscoveryError)
        if response.status != _OK:
            reason = "discovery_status"
            raise DiscoveryError(reason)
        try:
            document = response.json_object()
        except ValueError:
            raise DiscoveryError(_MALFORMED) from None
        metadata = parse_metadata(document, provider)
        self._metadata, self._fetched_at, self._failed_at = metadata, self._clock.now(), None
        return metadata


def parse_metadata(document: Mapping[str, Any], provider: OidcProvider) -> ProviderMetadata:
    """Parse a metadata document; an optional member that is null, empty or malformed counts as absent.

    Raises `DiscoveryError` for a required member that is missing or malformed, and for an endpoint that is no https address.
    """
    required = {name: document.get(name) for name in ("issuer", *_ENDPOINTS)}
    if not all(isinstance(value, str) for value in required.values()):
        raise DiscoveryError(_MALFORMED)
    # Compared character for character (Discovery 4.3): otherwise a provider could make us accept tokens of another issuer.
    if required["issuer"] != provider.issuer:
        reason = "discovery_issuer_mismatch"
        raise DiscoveryError(reason)
    document = {**document, "end_session_endpoint": provider.end_session_endpoint or document.get("end_session_endpoint")}
    optional = {name: url for name in _OPTIONAL_ENDPOINTS if not _is_malformed(url := document.get(name))}
    urls = [*optional.values(), *(required[name] for name in _ENDPOINTS)]
    if not all(is_provider_url(str(url), allow_http=provider.allow_http) for url in urls):
        reason = "discovery_insecure_endpoint"
        raise DiscoveryError(reason)
    # Required (Discovery 3), so a value that is not a list is refused; without one all algorithms are allowed.
    algorithms, modes = document.get("id_token_signing_alg_values_supported") or [], document.get("response_modes_supported")
    if not _is_texts(algorithms):
        raise DiscoveryError(_MALFORMED)
    # For a link alone: what is unfit for it is left out.
    account = document.get("account_management_uri")
    shown = isinstance(account, str) and not _is_malformed(account) and is_provider_url(account, allow_http=provider.allow_http)
    known: dict[str, Any] = {**required, **optional, **{name: document.get(name) is True for name in _FLAGS}}
    return ProviderMetadata(
        **known,
        id_token_signing_alg_values_supported=tuple(algorithms),
        account_management_uri=account if shown else None,
        response_modes_supported=tuple(modes) if _is_texts(modes) else (),
    )


def _is_malformed(url: object) -> bool:
    """Whether this is no URL at all; a URL with another scheme than https is refused instead."""
    scheme = _SCHEME.match(url) if isinstance(url, str) else None
    return scheme is None or (scheme[0].lower() == "https:" and party_origin(scheme.string) is None)


def _is_texts(value: Any) -> TypeGuard[list[str]]:  # noqa: ANN401 - any JSON
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
