"""Sessions in one table of DynamoDB, with condition expressions and consistent reads.

    dynamodb://table?region=eu-central-1&endpoint=http://localhost:8000&profile=name&prefix=sc:

The table has one key, the text `n`; expired items leave by its time-to-live attribute `e`. A table that is not there is made.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from secrets import token_urlsafe
from typing import Any, Final

from botocore.exceptions import ClientError

from session_core.clock import Clock
from session_core.errors import ConfigurationError
from session_core.stores.base import StoreCapabilities
from session_core.stores.conditional.aws import AWS_OPTIONS, AwsClient, code_of
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.pieces import InPieces
from session_core.stores.conditional.store import ConditionalStore
from session_core.stores.document.url import DocumentUrl

__all__ = ("DynamoDbStore",)

_URL: Final = DocumentUrl(
    "the DynamoDB session store",
    re.compile(r"dynamodb://(?P<table>[A-Za-z0-9_.-]{3,255})/?(?:\?(?P<query>[^#]*))?\Z", re.ASCII),
    AWS_OPTIONS | {"prefix"},
    example="dynamodb://sessions?region=eu-central-1",
)
_MOST_BYTES: Final = 350_000
"""An item has 400 KB at most, its key and attributes included."""
_BATCH: Final = 100
_NO_TABLE: Final = "ResourceNotFoundException"
_REFUSED: Final = "ConditionalCheckFailedException"


class DynamoDbStore(ConditionalStore):
    """Sessions in the table that `url` names."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=True)
        super().__init__(InPieces(_Table(url), _MOST_BYTES), capabilities, clock=clock)


class _Table:
    def __init__(self, url: str) -> None:
        match, options = _URL.read(url)
        self._table = match["table"]
        self._prefix = _URL.prefix(options, "")
        self._aws = AwsClient("dynamodb", options)

    async def open(self) -> None:
        client = await self._aws.open()
        try:
            await client.describe_table(TableName=self._table)
        except ClientError as error:
            if code_of(error) != _NO_TABLE:
                raise
            await self._create()
            return
        described = await client.describe_time_to_live(TableName=self._table)
        described = described["TimeToLiveDescription"]
        if described.get("AttributeName") != "e" or described["TimeToLiveStatus"] not in {"ENABLED", "ENABLING"}:
            msg = "the table of the DynamoDB session store needs a time to live on the attribute 'e', else sessions stay in it"
            raise ConfigurationError(msg)

    async def close(self) -> None:
        await self._aws.close()

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        found: dict[str, Versioned] = {}
        wanted = list(dict.fromkeys(names))
        for start in range(0, len(wanted), _BATCH):
            keys = [self._key(name) for name in wanted[start : start + _BATCH]]
            rest: dict[str, Any] = {self._table: {"Keys": keys, "ConsistentRead": True}}
            while rest:
                answer = await self._aws.client.batch_get_item(RequestItems=rest)
                for item in answer["Responses"].get(self._table, ()):
                    name = item["n"]["S"].removeprefix(self._prefix)
                    found[name] = Versioned(bytes(item["d"]["B"]), item["v"]["S"])
                rest = answer.get("UnprocessedKeys") or {}
        return [found.get(name) for name in names]

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        item = {
            **self._key(name),
            "d": {"B": value},
            "v": {"S": token_urlsafe(12)},
            "e": {"N": str(int(time.time()) + seconds)},
        }
        return await self._made(self._aws.client.put_item(TableName=self._table, Item=item, **_condition(version)))

    async def delete(self, name: str, *, version: object) -> bool:
        return await self._made(self._aws.client.delete_item(TableName=self._table, Key=self._key(name), **_condition(version)))

    async def names(self, kind: str) -> AsyncIterator[str]:
        prefix = f"{self._prefix}{kind}:"
        pages = self._aws.client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            ProjectionExpression="n",
            FilterExpression="begins_with(n, :p)",
            ExpressionAttributeValues={":p": {"S": prefix}},
        )
        async for page in pages:
            for item in page["Items"]:
                yield item["n"]["S"].removeprefix(prefix)

    async def _made(self, call: Awaitable[object]) -> bool:
        try:
            await call
        except ClientError as error:
            if code_of(error) == _REFUSED:
                return False
            raise
        return True

    async def _create(self) -> None:
        client = self._aws.client
        await client.create_table(
            TableName=self._table,
            AttributeDefinitions=[{"AttributeName": "n", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "n", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        await client.get_waiter("table_exists").wait(TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        specification = {"Enabled": True, "AttributeName": "e"}
        await client.update_time_to_live(TableName=self._table, TimeToLiveSpecification=specification)

    def _key(self, name: str) -> dict[str, dict[str, str]]:
        return {"n": {"S": self._prefix + name}}


def _condition(version: object | None) -> dict[str, object]:
    if version is None:
        return {"ConditionExpression": "attribute_not_exists(n)"}
    return {"ConditionExpression": "v = :v", "ExpressionAttributeValues": {":v": {"S": version}}}
