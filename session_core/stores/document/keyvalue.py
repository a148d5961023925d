"""Sessions in any backend of py-key-value: MongoDB, DynamoDB, Memcached, S3, Vault, RocksDB, a directory, ...

That library offers no compare-and-swap and no list of all keys, so the limits of `DocumentStore` apply. Values are JSON objects
of one member, base64 of the document, in one collection.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from key_value.aio.errors import DeserializationError
from key_value.aio.protocols.key_value import AsyncCullProtocol, AsyncKeyValue

from session_core.clock import Clock
from session_core.errors import StoreUnavailableError
from session_core.stores.base import StoreCapabilities, opened
from session_core.stores.document.keyvalue_backends import BACKENDS, UNKNOWN, Backend, backend_of_url
from session_core.stores.document.store import DocumentStore

__all__ = ("KeyValueStore",)

_COLLECTION: Final = "session_core"
_CULL_SECONDS: Final = 300.0
_CULL_PATIENCE_SECONDS: Final = 2.0


class KeyValueStore(DocumentStore):
    """Sessions in `kv`, which the caller closes.

    Capabilities that are not given default to those of the backend's class, and to False for an unknown class (also a wrapper):
    `shared`, `durable`, `native_expiry` (expired values are removed) and `consistent` (a write is visible to every process).
    Everything is in the collection `collection`.
    """

    def __init__(
        self,
        kv: AsyncKeyValue,
        *,
        clock: Clock | None = None,
        shared: bool | None = None,
        durable: bool | None = None,
        native_expiry: bool | None = None,
        consistent: bool | None = None,
        collection: str = _COLLECTION,
    ) -> None:
        known = BACKENDS.get(type(kv).__name__, UNKNOWN)
        backend = Backend(
            shared=known.shared if shared is None else shared,
            durable=known.durable if durable is None else durable,
            native_expiry=known.native_expiry if native_expiry is None else native_expiry,
            consistent=known.consistent if consistent is None else consistent,
        )
        super().__init__(_KeyValueDocuments(lambda: kv, collection, owned=False), _capabilities(backend), clock=clock)

    @staticmethod
    def from_url(url: str, *, clock: Clock | None = None) -> KeyValueStore:
        """Return the store that a `keyvalue+...` URL names; see the reference of the stores.

        Raises `ConfigurationError` for a URL it cannot use and `ImportError` when the backend's package is not installed.
        """
        make, backend = backend_of_url(url)
        return _OwnedKeyValueStore(make, backend, clock)


class _OwnedKeyValueStore(KeyValueStore):
    """A store that creates its backend when opened, and closes it."""

    def __init__(self, make: Callable[[], AsyncKeyValue], backend: Backend, clock: Clock | None) -> None:
        DocumentStore.__init__(self, _KeyValueDocuments(make, _COLLECTION, owned=True), _capabilities(backend), clock=clock)


def _capabilities(backend: Backend) -> StoreCapabilities:
    return StoreCapabilities(
        atomic=False,
        indexed=True,
        shared=backend.shared,
        durable=backend.durable,
        native_expiry=backend.native_expiry,
        consistent=backend.consistent,
        listable=False,
        keeps_deadlines=False,
    )


class _KeyValueDocuments:
    """The library's protocol."""

    def __init__(self, make: Callable[[], AsyncKeyValue], collection: str, *, owned: bool) -> None:
        self._make = make
        self._collection = collection
        self._owned = owned
        self._opened: AsyncKeyValue | None = None
        self._next_cull = time.monotonic() + _CULL_SECONDS
        self._culling: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._opened = self._opened or self._make()

    async def close(self) -> None:
        kv, self._opened = self._opened, None
        if self._culling is not None:
            await asyncio.wait([self._culling], timeout=_CULL_PATIENCE_SECONDS)
            self._culling.cancel()
            self._culling = None
        close: Callable[[], Awaitable[None]] | None = getattr(kv, "close", None)
        if self._owned and close is not None:
            await close()

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        kv, keys = self._kv, [_key(name) for name in names]
        if not keys:
            return []
        try:
            return [_value(found) for found in await kv.get_many(keys, collection=self._collection)]
        except DeserializationError:
            return [await self._get(kv, key) for key in keys]  # one of them is damaged: read them one by one

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        kv = self._kv
        await kv.put(_key(name), {"b": b64encode(value).decode()}, collection=self._collection, ttl=seconds)
        if isinstance(kv, AsyncCullProtocol) and time.monotonic() >= self._next_cull:
            self._next_cull = time.monotonic() + _CULL_SECONDS
            # In the background: no request should wait for cleanup.
            self._culling = asyncio.create_task(_cull(kv))

    async def delete(self, name: str) -> None:
        await self._kv.delete(_key(name), collection=self._collection)

    async def names(self, kind: str) -> AsyncIterator[str]:
        del kind
        msg = "this library lists only the first keys of a collection"
        raise StoreUnavailableError(msg)
        yield  # makes this an asynchronous generator

    @property
    def _kv(self) -> AsyncKeyValue:
        return opened(self._opened)

    async def _get(self, kv: AsyncKeyValue, key: str) -> bytes | None:
        try:
            return _value(await kv.get(key, collection=self._collection))
        except DeserializationError:
            return b""


async def _cull(kv: AsyncCullProtocol) -> None:
    with suppress(Exception):  # retried later
        await kv.cull()


def _key(name: str) -> str:
    return name.replace(":", ".")


def _value(found: dict[str, Any] | None) -> bytes | None:
    if found is None:
        return None
    try:
        return b64decode(found["b"], validate=True)
    except (KeyError, TypeError, ValueError):
        return b""
