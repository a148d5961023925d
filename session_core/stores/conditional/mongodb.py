"""Sessions in one collection of MongoDB, with updates that name the version they replace.

    mongodb://user:password@host1,host2/database?replicaSet=rs0&collection=sessions     also mongodb+srv://

All other options are those of MongoDB, except that nothing is retried. Writes are acknowledged by a majority, reads come from the
primary and are of what a majority has. Expired documents leave by the index on `e`, which is made where it is missing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_urlsafe
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from session_core.clock import Clock
from session_core.errors import ConfigurationError
from session_core.stores.base import StoreCapabilities, opened
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.store import ConditionalStore

__all__ = ("MongoDbStore",)

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z", re.ASCII)
_DEFAULT_TIMEOUT_MS: Final = 5000


class MongoDbStore(ConditionalStore):
    """Sessions in the database that `url` names. A session has 16 MB at most."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=True)
        super().__init__(_Collection(url), capabilities, clock=clock)


class _Collection:
    def __init__(self, url: str) -> None:
        head, _, query = url.partition("?")
        options = parse_qsl(query, keep_blank_values=True)
        names = [value for name, value in options if name == "collection"]
        self._name = names[0] if names else "sessions"
        waits = any(name.lower() == "serverselectiontimeoutms" for name, _ in options)
        self._timeout: dict[str, Any] = {} if waits else {"serverSelectionTimeoutMS": _DEFAULT_TIMEOUT_MS}
        rest = urlencode([pair for pair in options if pair[0] != "collection"])
        self._url = f"{head}?{rest}" if rest else head
        self._database = re.sub(r"^[a-z+]+://[^/]*/?", "", head) or "session_core"
        problem = "" if _NAME.match(self._name) and _NAME.match(self._database) else "a name holds letters, digits and _ . - only"
        if not problem and url.startswith("mongodb://"):
            try:
                parse_uri(self._url)
            except (PyMongoError, ValueError):  # what it says may quote the password
                problem = "it has another form, or an option is unknown"
        if problem:
            msg = f"the URL of the MongoDB session store is malformed: {problem}; a good example: mongodb://user:password@host/database"
            raise ConfigurationError(msg)
        self._client: AsyncMongoClient[dict[str, Any]] | None = None

    async def open(self) -> None:
        await self.close()
        # A repetition could come after the deadline of its step.
        self._client = AsyncMongoClient(self._url, retryWrites=False, retryReads=False, tz_aware=True, **self._timeout)
        await self._collection.create_index("e", expireAfterSeconds=0)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        if len(names) == 1:
            (name,) = names
            document = await self._collection.find_one({"_id": name})
            return [None if document is None else Versioned(document["d"], document["v"])]
        found: dict[str, Versioned] = {}
        async for document in self._collection.find({"_id": {"$in": list(names)}}):
            found[document["_id"]] = Versioned(document["d"], document["v"])
        return [found.get(name) for name in names]

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        document = {"_id": name, "d": value, "v": token_urlsafe(12), "e": datetime.now(UTC) + timedelta(seconds=seconds)}
        if version is None:
            try:
                await self._collection.insert_one(document)
            except DuplicateKeyError:
                return False
            return True
        return (await self._collection.replace_one({"_id": name, "v": version}, document)).matched_count == 1

    async def delete(self, name: str, *, version: object) -> bool:
        return (await self._collection.delete_one({"_id": name, "v": version})).deleted_count == 1

    async def names(self, kind: str) -> AsyncIterator[str]:
        async for document in self._collection.find({"_id": {"$gte": f"{kind}:", "$lt": f"{kind};"}}, {"_id": 1}):
            yield document["_id"][2:]

    @property
    def _collection(self) -> AsyncCollection[dict[str, Any]]:
        return opened(self._client)[self._database].get_collection(
            self._name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
        )
