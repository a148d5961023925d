"""Calls to the provider, bounded in time and size. Independent of OAuth and sessions.

The other side may be down, slow or hostile. So there is one deadline for the whole call (a peer that sends one byte a second
passes every per-read timeout) and a limit on the bytes read, and no redirects, cookies, compression (a gigabyte of zeros fits
into a megabyte of gzip) or netrc passwords.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Coroutine, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final

import httpx2

from session_core.calls import Calls
from session_core.errors import ConfigurationError, OidcError
from session_core.ids import SecretStruct
from session_core.oidc.strict_json import parse_object
from session_core.urls import normalised_origin

__all__ = ("MAX_BODY_BYTES", "OpHttp", "OpResponse", "check_proxy", "tls_context")

MAX_BODY_BYTES: Final = 1_048_576
"""The largest body that is read from a provider."""
_MAX_CONNECTIONS: Final = 20
_LOOPBACK: Final = ("all://localhost", "all://*.localhost", "all://127.0.0.1", "all://[::1]")


class OpResponse(SecretStruct, frozen=True):
    """A response of the provider; `media_type` is lower case, without parameters."""

    status: int
    media_type: str
    body: bytes
    date: str | None = None
    """The time of the response by the provider's clock (RFC 9110 6.6.1)."""

    def json_object(self, *also: str) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises `ValueError` if it is not one, or if its media type is neither application/json nor one of `also`.
        """
        return parse_object(self.json_body(*also))

    def json_body(self, *also: str) -> bytes:
        """Return the body. Raises `ValueError` if its media type is neither application/json nor one of `also`."""
        if self.media_type not in {"application/json", *also}:
            msg = "not labelled as JSON"
            raise ValueError(msg)
        return self.body


class OpHttp:
    """The HTTP client of the relying party.

    `timeout_seconds` bounds each whole call. `proxy` and `tls` configure the connection to the provider; without them
    `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR` of the environment hold. No proxy is used for a loopback host.
    `transport` replaces the network, for tests.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        calls: Calls | None = None,
    ) -> None:
        self._calls = calls or Calls()
        self._timeout = timeout_seconds
        self._proxy = proxy
        self._tls = tls
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(
        self,
        method: str,
        url: str,
        *,
        what: str,
        error: type[OidcError],
        headers: Mapping[str, str] | None = None,
        form: str | None = None,
        accept: str = "application/json",
    ) -> OpResponse:
        """Send one request, never twice, and return the response, also a redirect or an error.

        `form` is an encoded form body. Raises `error` with the reason `<what>_timeout`, `<what>_dns` (no address for the host),
        `<what>_refused` (nothing listens there), `<what>_tls` (no trusted certificate, or no TLS), `<what>_proxy` (the forward
        proxy refused), `<what>_unreachable` (any other failure), `<what>_too_large` or `<what>_compressed`.
        """
        given = {"accept": accept, "accept-encoding": "identity", **(headers or {})}
        if form is not None:
            given["content-type"] = "application/x-www-form-urlencoded"
        exchange = self._exchange(method, url, given, form, what, error)
        return await self._calls.observed(f"provider.{what}", self._bounded(exchange, what, error))

    async def _bounded(self, exchange: Coroutine[Any, Any, OpResponse], what: str, error: type[OidcError]) -> OpResponse:
        try:
            async with asyncio.timeout(self._timeout):
                return await exchange
        except error:
            raise
        except TimeoutError:
            reason = f"{what}_timeout"
        except Exception as failure:  # noqa: BLE001 - whatever the network library raises, the provider did not answer
            reason = f"{what}_{_kind_of(failure)}"
        # Not chained: a network error holds the request, with the client secret or a bearer token in its headers.
        raise error(reason)

    async def close(self) -> None:
        """Close the connections. The client opens new ones when it is used again."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _exchange(
        self, method: str, url: str, headers: dict[str, str], form: str | None, what: str, error: type[OidcError]
    ) -> OpResponse:
        content = None if form is None else form.encode("ascii")
        client = self._open_client()
        async with client.stream(method, url, headers=headers, content=content) as response:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise error(f"{what}_compressed")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise error(f"{what}_too_large")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return OpResponse(response.status_code, media_type, bytes(body), response.headers.get("date"))

    def _open_client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx2.AsyncClient(
                transport=self._transport,
                proxy=self._proxy,
                verify=self._tls or True,
                mounts=None if self._transport else dict.fromkeys(_LOOPBACK),
                trust_env=self._transport is None,
                timeout=self._timeout,
                limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=4),
                follow_redirects=False,
                # A cookie jar that stores nothing: logins of different users share this client.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                headers={"user-agent": "session-core"},
            )
        return self._client


def tls_context(ca_file: str | Path) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities in `ca_file` (PEM) in addition to the usual ones.

    Raises `ConfigurationError`.
    """
    context = httpx2.create_ssl_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError):
        msg = "ca_file must be a readable file of certificates in PEM, for example /etc/ssl/company-ca.pem"
        raise ConfigurationError(msg, option="ca_file") from None
    return context


def check_proxy(proxy: str) -> None:
    """Raise `ConfigurationError` unless `proxy` is the address of an HTTP proxy. The error omits its password."""
    scheme, _, rest = proxy.removesuffix("/").partition("://")
    userinfo, _, authority = rest.rpartition("@")
    if normalised_origin(f"{scheme}://{authority}") is None or set(userinfo) & set("/?#\\") or not userinfo.isprintable():
        msg = "proxy must be the address of an HTTP proxy, for example http://proxy.example.org:3128"
        raise ConfigurationError(msg, option="proxy")


def _kind_of(failure: BaseException) -> str:
    """Return the kind of a network failure."""
    causes: list[BaseException] = []
    waiting: list[BaseException | None] = [failure]
    while waiting:
        cause = waiting.pop()
        if cause is None or cause in causes:
            continue
        causes.append(cause)
        waiting += [cause.__cause__, cause.__context__, *(cause.exceptions if isinstance(cause, BaseExceptionGroup) else ())]
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (httpx2.ProxyError, "proxy"),
        (ssl.SSLError, "tls"),
        (socket.gaierror, "dns"),
        (ConnectionRefusedError, "refused"),
    )
    return next((name for kind, name in kinds if any(isinstance(cause, kind) for cause in causes)), "unreachable")
