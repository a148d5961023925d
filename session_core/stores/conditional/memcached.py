"""Sessions in one Memcached server, with `add` and `cas`; they are gone when it is restarted.

    memcached://[user:password@]host[:11211]?prefix=sc:&tls=true&ca=/path/of/authority.pem

A server that evicts values when its memory is full is refused: with an evicted list a revocation would miss sessions, and an
evicted claim could be made twice. So start it with `-M` (out of memory is an error) and `-o slab_automove=0` (no value is lost
when memory is moved). Only one server: with two, an outage of one would move values to the other.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final, cast
from urllib.parse import unquote

from memcachio import Client

from session_core.clock import Clock
from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import StoreCapabilities, opened
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.pieces import InPieces
from session_core.stores.conditional.store import ConditionalStore
from session_core.stores.document.url import DocumentUrl
from session_core.urls import normalised_origin

__all__ = ("MemcachedStore",)

_URL: Final = DocumentUrl(
    "the Memcached session store",
    re.compile(
        r"memcached://(?:(?P<user>[^@/?#:]+):(?P<password>[^@/?#]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)"
        r"(?::(?P<port>[0-9]{1,5}))?/?(?:\?(?P<query>[^#]*))?\Z",
        re.ASCII,
    ),
    frozenset({"prefix", "tls", "ca"}),
    example="memcached://localhost:11211",
)
_PORT: Final = 11211
_MAX_CONNECTIONS: Final = 8
_MOST_BYTES: Final = 400_000
_MONTH_SECONDS: Final = 30 * 86_400
_PAST: Final = _MONTH_SECONDS + 1
"""An expiry above a month is a time in Unix seconds, this one in January 1970: the value expires at once."""
_MUST_KEEP: Final = {"evictions": "off", "slab_automove": "0"}


class MemcachedStore(ConditionalStore):
    """Sessions on the Memcached server at `url`."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        capabilities = StoreCapabilities(
            atomic=True, indexed=True, shared=True, durable=False, native_expiry=True, listable=False
        )
        super().__init__(InPieces(_Memcached(url), _MOST_BYTES), capabilities, clock=clock)


class _Memcached:
    def __init__(self, url: str) -> None:
        match, options = _URL.read(url)
        if normalised_origin(f"http://{match['host']}:{match['port'] or _PORT}") is None:
            _URL.refuse("there is no such host and port")
        self._address = match["host"].strip("[]"), int(match["port"] or _PORT)
        self._user = None if match["user"] is None else unquote(match["user"])
        self._password = None if match["password"] is None else unquote(match["password"])
        self._tls = _URL.choice(options, "tls")
        self._ca = options.get("ca")
        self._prefix = _URL.prefix(options, "sc:")
        self._opened: Client[bytes] | None = None

    async def open(self) -> None:
        await self.close()
        self._opened = client = Client(
            self._address,
            decode_responses=False,
            max_connections=_MAX_CONNECTIONS,
            connect_timeout=None,  # each call already has a deadline
            ssl_context=ssl.create_default_context(cafile=self._ca) if self._tls else None,
            username=self._user,
            password=self._password,
        )
        (settings,) = (await client.stats("settings")).values()
        if wrong := sorted(name for name, value in _MUST_KEEP.items() if settings.get(name.encode()) != value.encode()):
            msg = (
                f"this Memcached server throws values away when its memory is full ({', '.join(wrong)}), lists of sessions that "
                "have to end among them: start it with -M -o slab_automove=0"
            )
            raise ConfigurationError(msg)

    async def close(self) -> None:
        client, self._opened = self._opened, None
        if client is not None:
            client.connection_pool.close()

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        keys = [self._key(name) for name in names]
        items = await self._client.gets(*dict.fromkeys(keys)) if keys else {}
        return [None if (item := items.get(key)) is None else Versioned(item.value, item.cas) for key in keys]

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        lifetime = seconds if seconds <= _MONTH_SECONDS else int(time.time()) + seconds
        return await self._store(name, value, version, lifetime)

    async def delete(self, name: str, *, version: object) -> bool:
        return await self._store(name, b"", version, _PAST)  # the command `delete` takes no condition

    async def names(self, kind: str) -> AsyncIterator[str]:
        del kind
        msg = "Memcached does not list its keys"
        raise StoreUnavailableError(msg)
        yield  # what makes this an asynchronous generator

    async def _store(self, name: str, value: bytes, version: object | None, lifetime: int) -> bool:
        key = self._key(name)
        if version is None:
            return await self._client.add(key, value, expiry=lifetime)
        return await self._client.cas(key, value, cast("int", version), expiry=lifetime)

    @property
    def _client(self) -> Client[bytes]:
        return opened(self._opened)

    def _key(self, name: str) -> bytes:
        return f"{self._prefix}{name}".encode()
