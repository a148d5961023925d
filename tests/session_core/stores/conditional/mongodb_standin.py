"""A server with the part of MongoDB's wire protocol that the store uses, written from the published specification."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import bson
from bson.codec_options import CodecOptions

_OP_MSG = 2013
_OP_QUERY = 2004
_OP_REPLY = 1
_OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
_HELLO = {
    "ismaster": True,
    "isWritablePrimary": True,
    "helloOk": True,
    "minWireVersion": 8,
    "maxWireVersion": 21,
    "maxBsonObjectSize": 16777216,
    "maxMessageSizeBytes": 48000000,
    "maxWriteBatchSize": 100000,
    "ok": 1.0,
}


class MongoDbStandin:
    """One collection of documents by `_id`, listening on `port`."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[MongoDbStandin]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length, request, _, code = struct.unpack("<iiii", await reader.readexactly(16))
                body = await reader.readexactly(length - 16)
                if code == _OP_QUERY:
                    payload = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(_HELLO)
                    kind = _OP_REPLY
                else:
                    payload = struct.pack("<I", 0) + b"\0" + bson.encode(self._answer(_command(body)))
                    kind = _OP_MSG
                writer.write(struct.pack("<iiii", 16 + len(payload), request, request, kind) + payload)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        name = next(iter(command))
        if name == "find":
            found = [each for each in self.documents.values() if _matches(each, command["filter"])]
            return {"cursor": {"id": 0, "ns": "a.b", "firstBatch": found[: command.get("limit") or None]}, "ok": 1.0}
        if name == "insert":
            (document,) = command["documents"]
            if document["_id"] in self.documents:
                return {"n": 0, "writeErrors": [{"index": 0, "code": 11000, "errmsg": "duplicate"}], "ok": 1.0}
            self.documents[document["_id"]] = document
            return {"n": 1, "ok": 1.0}
        if name == "update":
            (update,) = command["updates"]
            there = [each for each in self.documents.values() if _matches(each, update["q"])]
            for each in there[:1]:
                self.documents[each["_id"]] = update["u"]
            return {"n": len(there[:1]), "nModified": len(there[:1]), "ok": 1.0}
        if name == "delete":
            (delete,) = command["deletes"]
            there = [each for each in self.documents.values() if _matches(each, delete["q"])]
            for each in there[:1]:
                del self.documents[each["_id"]]
            return {"n": len(there[:1]), "ok": 1.0}
        return _HELLO  # to a hello; "ok" is enough for createIndexes, ping and endSessions


def _command(body: bytes) -> dict[str, Any]:
    """Return the command of an OP_MSG, with its document sequences as lists."""
    command: dict[str, Any] = {}
    place = 4
    while place < len(body):
        kind, place = body[place], place + 1
        (length,) = struct.unpack_from("<i", body, place)
        section = body[place : place + length]
        place += length
        if kind == 0:
            command = {**bson.decode(section, _OPTIONS), **command}
        else:
            name, _, rest = section[4:].partition(b"\0")
            command[name.decode()] = bson.decode_all(rest, _OPTIONS)
    return command


def _matches(document: dict[str, Any], query: dict[str, Any]) -> bool:
    for field, wanted in query.items():
        value = document.get(field)
        tests = wanted if isinstance(wanted, dict) else {"$eq": wanted}
        for operator, operand in tests.items():
            met = {
                "$eq": lambda: value == operand,  # noqa: B023
                "$in": lambda: value in operand,  # noqa: B023
                "$gte": lambda: value >= operand,  # noqa: B023
                "$lt": lambda: value < operand,  # noqa: B023
            }[operator]()
            if not met:
                return False
    return True
