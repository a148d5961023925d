"""Calls to the provider, bounded in time and size; knows HTTP, and nothing of OAuth or sessions.

What is on the other side may be down, slow, hostile or somebody else. So: one deadline for the whole call (a peer that
drips a byte a second passes every per-read timeout), a limit on the bytes read, no redirects, no cookies, no
compression (a gigabyte of zeros fits into a megabyte of gzip), no proxy or password from the environment.
"""

# ruff: noqa: EM102 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

import asyncio
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final

import httpx2

from session_core.oidc.secret_struct import SecretStruct
from session_core.oidc.strict_json import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from session_core.errors import OidcError

__all__ = ("MAX_BODY_BYTES", "OpHttp", "OpResponse")

MAX_BODY_BYTES: Final = 1_048_576
"""The largest body that is read from a provider."""
_MAX_CONNECTIONS: Final = 20


class OpResponse(SecretStruct, frozen=True):
    """What the provider answered; `media_type` is lower case, without parameters."""

    status: int
    media_type: str
    body: bytes

    def json_object(self, *also: str) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises `ValueError` when it is none, or is labelled neither application/json nor one of `also`.
        """
        return parse_object(self.json_body(*also))

    def json_body(self, *also: str) -> bytes:
        """Return the body. Raises `ValueError` when it is labelled neither application/json nor one of `also`."""
        if self.media_type not in {"application/json", *also}:
            msg = "not labelled as JSON"
            raise ValueError(msg)
        return self.body


class OpHttp:
    """The HTTP client of the relying party.

    `timeout_seconds` bounds each call as a whole. `transport` replaces the network: for tests, a proxy, or a certificate
    authority of your own.
    """

    def __init__(self, *, timeout_seconds: float, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._timeout = timeout_seconds
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
        """Send one request, never twice, and return whatever was answered, redirects and errors included.

        `form` is an encoded form body. Raises `error` with the reason `<what>_timeout`, `<what>_unreachable`,
        `<what>_too_large` or `<what>_compressed`.
        """
        given = {"accept": accept, "accept-encoding": "identity", **(headers or {})}
        if form is not None:
            given["content-type"] = "application/x-www-form-urlencoded"
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(method, url, given, form, what, error)
        except error:
            raise
        except TimeoutError:
            reason = f"{what}_timeout"
        except Exception:  # noqa: BLE001 - whatever the network library raises, the provider did not answer
            reason = f"{what}_unreachable"
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
            return OpResponse(response.status_code, media_type, bytes(body))

    def _open_client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx2.AsyncClient(
                transport=self._transport,
                timeout=self._timeout,
                limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=4),
                follow_redirects=False,
                trust_env=False,
                # A jar that takes nothing: logins of different users share this client.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                headers={"user-agent": "session-core"},
            )
        return self._client
