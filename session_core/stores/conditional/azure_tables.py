"""Sessions in one table of Azure Table Storage, with the ETags of its entities.

    azure-tables://account/table?connection_env=AZURE_STORAGE_CONNECTION_STRING&prefix=sc:

The connection string, with the key or a shared access signature, comes from the environment. Expired entities are swept by the
application. A table that is not there is made.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from session_core.clock import Clock
from session_core.concurrency import together
from session_core.stores.base import StoreCapabilities, opened
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.pieces import InPieces
from session_core.stores.conditional.store import ConditionalStore
from session_core.stores.document.url import DocumentUrl

__all__ = ("AzureTablesStore",)

_URL: Final = DocumentUrl(
    "the Azure Tables session store",
    re.compile(r"azure-tables://(?P<table>[A-Za-z][A-Za-z0-9]{2,62})/?(?:\?(?P<query>[^#]*))?\Z", re.ASCII),
    frozenset({"connection_env", "prefix"}),
    example="azure-tables://sessions?connection_env=AZURE_STORAGE_CONNECTION_STRING",
)
_ENVIRONMENT: Final = "AZURE_STORAGE_CONNECTION_STRING"
_NO_CONTENT: Final = 204
_MOST_BYTES: Final = 60_000
"""A property has 64 KiB at most."""
_TIMEOUT_SECONDS: Final = 10


class AzureTablesStore(ConditionalStore):
    """Sessions in the table that `url` names."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=False)
        super().__init__(InPieces(_Table(url), _MOST_BYTES), capabilities, clock=clock)


class _Table:
    def __init__(self, url: str) -> None:
        match, options = _URL.read(url)
        self._table = match["table"]
        self._prefix = _URL.prefix(options, "")
        self._variable = options.get("connection_env", _ENVIRONMENT)
        self._opened: TableClient | None = None

    async def open(self) -> None:
        await self.close()
        connection = os.environ.get(self._variable)
        if not connection:
            _URL.refuse("the variable that connection_env names holds no connection string")
        # Each call already has a deadline. A repetition could come after that.
        self._opened = TableClient.from_connection_string(
            connection,
            self._table,
            retry_total=0,
            logging_enable=False,
            connection_timeout=_TIMEOUT_SECONDS,
            read_timeout=_TIMEOUT_SECONDS,
        )
        with suppress(ResourceExistsError):
            await self._opened.create_table()

    async def close(self) -> None:
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        return await together(*(self._get(name) for name in names))

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        del seconds
        entity = {"PartitionKey": self._prefix + name, "RowKey": "", "d": value}
        if version is None:
            return await _made(self._client.create_entity(entity))
        return await _made(
            self._client.update_entity(
                entity, mode=UpdateMode.REPLACE, etag=cast("str", version), match_condition=MatchConditions.IfNotModified
            )
        )

    async def delete(self, name: str, *, version: object) -> bool:
        answers: list[int] = []  # the client does not say that there was no entity
        made = await _made(
            self._client.delete_entity(
                {"PartitionKey": self._prefix + name, "RowKey": ""},
                etag=cast("str", version),
                match_condition=MatchConditions.IfNotModified,
                raw_response_hook=lambda response: answers.append(response.http_response.status_code),
            )
        )
        return made and answers == [_NO_CONTENT]

    async def names(self, kind: str) -> AsyncIterator[str]:
        prefix = f"{self._prefix}{kind}:"
        found = self._client.query_entities(
            "PartitionKey ge @first and PartitionKey lt @last",
            parameters={"first": prefix, "last": prefix[:-1] + ";"},
            select=["PartitionKey"],
        )
        async for entity in found:
            yield entity["PartitionKey"].removeprefix(prefix)

    async def _get(self, name: str) -> Versioned | None:
        try:
            entity = await self._client.get_entity(self._prefix + name, "")
        except ResourceNotFoundError as error:
            if _is_absent(error):
                return None
            raise
        return Versioned(bytes(entity["d"]), entity.metadata["etag"])

    @property
    def _client(self) -> TableClient:
        return opened(self._opened)


async def _made(call: Awaitable[Any]) -> bool:
    try:
        await call
    except (ResourceExistsError, ResourceModifiedError):
        return False
    except ResourceNotFoundError as error:
        if _is_absent(error):
            return False
        raise
    return True


def _is_absent(error: ResourceNotFoundError) -> bool:
    """Whether it is the entity that is not there; a missing table must not look like a logout."""
    return getattr(error, "error_code", None) in {"ResourceNotFound", "EntityNotFound"}
