"""Calls to an HTTP document service, bounded in time and size. Independent of the service.

The service may be down or slow, or another server may answer: a proxy's page, a login form. So one deadline for the whole call,
a limit on the bytes read, no redirects, no compression, no cookies, and nothing from the environment. The address and the
token are in no message and no repr.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import ClassVar, Final

import httpx2
import msgspec

from session_core.concurrency import together
from session_core.errors import StoreUnavailableError

__all__ = ("MAX_VALUE_BYTES", "DocumentHttp", "HttpAnswer", "HttpDocuments")

MAX_VALUE_BYTES: Final = 8 * 1024 * 1024
"""The largest document that is read."""
_MAX_CONNECTIONS: Final = 20


class HttpAnswer(msgspec.Struct, frozen=True):
    """A response of the service; `media_type` is lower case, without parameters."""

    status: int
    media_type: str
    body: bytes


class DocumentHttp:
    """One client for each event loop. `timeout` is in seconds, for a call as a whole. `transport` replaces the network."""

    def __init__(
        self, base_url: str, *, token: str | None, timeout: float, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return "<DocumentHttp>"

    async def call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = MAX_VALUE_BYTES,
    ) -> HttpAnswer:
        """Send one request and return the response, errors included.

        Raises `StoreUnavailableError` when nothing is answered in time, or more than `max_bytes`, or something compressed.
        """
        problem = "did not answer in time"
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._exchange(method, path, headers, body, max_bytes)
                except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                    # A kept connection that the service had closed, after a restart for instance. Each call may be repeated:
                    # it is idempotent.
                    return await self._exchange(method, path, headers, body, max_bytes)
        except StoreUnavailableError:
            raise
        except TimeoutError:
            pass
        except Exception:  # noqa: BLE001 - whatever the network library raises, the service did not answer
            problem = "cannot be reached"
        # Not chained: a network error holds the request, with the token in its headers.
        msg = f"the service that stores the sessions {problem}"
        raise StoreUnavailableError(msg)

    async def close(self) -> None:
        """Close the connections. The client opens new ones when it is used again."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _exchange(
        self, method: str, path: str, headers: Mapping[str, str] | None, body: bytes | None, max_bytes: int
    ) -> HttpAnswer:
        request = self._open_client().stream(method, self._base_url + path, headers=dict(headers or {}), content=body)
        async with request as response:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                msg = "the service that stores the sessions sent a compressed response, which was not requested"
                raise StoreUnavailableError(msg)
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > max_bytes:
                    msg = "the service that stores the sessions sent a response that is too large"
                    raise StoreUnavailableError(msg)
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return HttpAnswer(response.status_code, media_type, bytes(received))

    def _open_client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            headers = {"user-agent": "session-core", "accept-encoding": "identity"}
            if self._token is not None:
                headers["authorization"] = f"Bearer {self._token}"
            self._client = httpx2.AsyncClient(
                transport=self._transport,
                timeout=self._timeout,
                limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS),
                follow_redirects=False,
                trust_env=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                headers=headers,
            )
        return self._client


class HttpDocuments:
    """Documents that are one HTTP resource each."""

    at_once: ClassVar[int]
    """Requests of one call at the same time."""

    def __init__(self, http: DocumentHttp) -> None:
        self._http = http

    async def open(self) -> None:
        """Do nothing: each call connects."""

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """See `Documents.get`. Raises an error after all requests have ended."""
        found: list[bytes | None] = []
        for start in range(0, len(names), self.at_once):
            found += await together(*map(self._get, names[start : start + self.at_once]))
        return found

    async def _get(self, name: str) -> bytes | None:
        raise NotImplementedError
