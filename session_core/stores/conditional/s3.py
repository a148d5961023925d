"""Sessions in a bucket of S3, one object for each document, with `If-Match` and `If-None-Match`.

    s3://bucket/prefix?region=eu-central-1&endpoint=https://s3.example.org&profile=name

Each call takes some tens of milliseconds. Expired objects are swept by the application. A service that speaks S3 and ignores the
conditions of writes or of deletions is refused when the store is opened.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Final

from botocore.exceptions import ClientError

from session_core.clock import Clock
from session_core.concurrency import together
from session_core.errors import StoreUnavailableError
from session_core.stores.base import StoreCapabilities
from session_core.stores.conditional.aws import AWS_OPTIONS, AwsClient, code_of
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.store import ConditionalStore
from session_core.stores.document.url import DocumentUrl

__all__ = ("S3Store",)

_URL: Final = DocumentUrl(
    "the S3 session store",
    re.compile(
        r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[A-Za-z0-9_.-]+)*)/?(?:\?(?P<query>[^#]*))?\Z", re.ASCII
    ),
    AWS_OPTIONS,
    example="s3://bucket/sessions?region=eu-central-1",
)
_REFUSED: Final = frozenset({"PreconditionFailed", "NoSuchKey"})
_OTHERS_WRITE: Final = "ConditionalRequestConflict"
"""Another request with a condition on this object is under way: this one had no effect and may be made again."""


class S3Store(ConditionalStore):
    """Sessions in the bucket that `url` names."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=False)
        super().__init__(_Bucket(url), capabilities, clock=clock)


class _Bucket:
    def __init__(self, url: str) -> None:
        match, options = _URL.read(url)
        self._bucket = match["bucket"]
        self._prefix = match["prefix"].removeprefix("/") + "/" if match["prefix"] else ""
        self._aws = AwsClient("s3", options)

    async def open(self) -> None:
        await self._aws.open()

    async def close(self) -> None:
        await self._aws.close()

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        return await together(*(self._get(name) for name in names))

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        del seconds
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        return await self._made(self._aws.client.put_object(Bucket=self._bucket, Key=self._key(name), Body=value, **condition))

    async def delete(self, name: str, *, version: object) -> bool:
        return await self._made(self._aws.client.delete_object(Bucket=self._bucket, Key=self._key(name), IfMatch=version))

    async def names(self, kind: str) -> AsyncIterator[str]:
        prefix = self._key(f"{kind}:")
        async for page in self._aws.client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(prefix)

    async def _get(self, name: str) -> Versioned | None:
        try:
            answer = await self._aws.client.get_object(Bucket=self._bucket, Key=self._key(name))
        except ClientError as error:
            if code_of(error) == "NoSuchKey":
                return None
            raise
        async with answer["Body"] as body:
            return Versioned(await body.read(), answer["ETag"])

    async def _made(self, call: Awaitable[object]) -> bool:
        try:
            await call
        except ClientError as error:
            code = code_of(error)
            if code in _REFUSED:
                return False
            if code == _OTHERS_WRITE:
                msg = "another write to this object is under way"
                raise StoreUnavailableError(msg) from None
            raise
        return True

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name[0]}/{name[2:]}"
