"""Copies one stored session very many times inside a store, each copy with its own key and user.

A million logins one by one would take minutes. A copy has the bytes that the store has written, except for the random parts of
key and user, so it has the same size. No request names the users of the copies.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, cast

import asyncpg
import redis

from session_core import Identity

__all__ = ("Filler", "fill_postgresql", "fill_sqlite")

_CHUNK: Final = 2000
_DIGEST_BYTES: Final = 32
_NAME_BYTES: Final = 9
_MEMBER_BYTES: Final = len("{tag}") + _DIGEST_BYTES
_RECORD: Final = b"sc:{"
_INDEXES: Final = (b"sc:u", b"sc:o")
_LIFE_MS: Final = 3_600_000


class Filler:
    """Copies the single session, of `identity`, in a Redis. Raises `RuntimeError` when it has another format than expected."""

    def __init__(self, port: int, identity: Identity) -> None:
        self._port = port
        self._copies = 0
        with closing(redis.Redis(port=port)) as client:
            names = cast("list[bytes]", list(client.scan_iter()))
            records = {name: cast("bytes", client.get(name)) for name in names if name.startswith(_RECORD)}
            indexes = {name: cast("list[bytes]", client.zrange(name, 0, -1)) for name in names if name.startswith(_INDEXES)}
        try:
            self._take_apart(records, indexes, identity)
        except (ValueError, StopIteration) as error:
            msg = "a session in Redis does not look as the benchmark expects: benchmarks/filler.py must follow"
            raise RuntimeError(msg) from error

    def _take_apart(self, records: Mapping[bytes, bytes], indexes: Mapping[bytes, Sequence[bytes]], identity: Identity) -> None:
        ((name, value),) = records.items()
        member = name.removeprefix(_RECORD[:-1])
        self._before_user, rest = value.split(urlsafe_b64decode(identity.user_key + "="))
        self._between, self._after = rest.split(urlsafe_b64decode(f"{identity.op_session_key}="))
        if list(indexes.values()) != [[member]] * len(_INDEXES) or len(member) != _MEMBER_BYTES:
            raise ValueError

    def fill(self, sessions: int) -> None:
        """Copy until there are this many sessions."""
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.sendall(b"CLIENT REPLY OFF\r\n")
            while self._copies < sessions - 1:
                number = min(_CHUNK, sessions - 1 - self._copies)
                connection.sendall(b"".join(self._commands(number)))
                self._copies += number
            connection.sendall(b"CLIENT REPLY ON\r\nDBSIZE\r\n")
            answer = connection.makefile("rb")
            answer.readline()
            stored = int(answer.readline()[1:])
        if stored < sessions * (1 + len(_INDEXES)):
            msg = f"{stored} keys in Redis after {sessions} sessions"
            raise RuntimeError(msg)

    def _commands(self, number: int) -> Iterator[bytes]:
        step = 3 * _DIGEST_BYTES + 2 * _NAME_BYTES
        random = os.urandom(number * step)
        for copy, at in enumerate(range(0, len(random), step), self._copies):
            user, op_session, digest = (random[at + n * _DIGEST_BYTES : at + (n + 1) * _DIGEST_BYTES] for n in range(3))
            names = random[at + 3 * _DIGEST_BYTES : at + step]
            member = b"{%03x}%b" % (copy & 0xFFF, digest)
            yield _set(_RECORD[:-1] + member, b"".join((self._before_user, user, self._between, op_session, self._after)))
            for index in (_INDEXES[0] + names[:_NAME_BYTES], _INDEXES[1] + names[_NAME_BYTES:]):
                yield _command(b"ZADD", index, b"1", member)
                yield _command(b"PEXPIRE", index, b"%d" % _LIFE_MS)


def _set(name: bytes, value: bytes) -> bytes:
    return _command(b"SET", name, value, b"PX", b"%d" % _LIFE_MS)


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


_COPY: Final = (
    "INSERT INTO sessions (key, version, data, expires_at, user_key, op_session_key, rank)"
    " SELECT substr({0}, 1, length(key)), version, data, expires_at, substr({0}, 1, length(user_key)),"
    " substr({0}, 1, length(op_session_key)), rank FROM (SELECT * FROM sessions LIMIT 1) AS first, {1}"
)


def fill_sqlite(path: Path, sessions: int) -> float:
    """Copy a session of the file until there are this many; return the bytes per session, indexes included."""
    with closing(sqlite3.connect(path)) as connection:
        ((present,),) = connection.execute("SELECT count(*) FROM sessions")
        numbers = "(WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?) SELECT n FROM number)"
        connection.execute(_COPY.format("hex(randomblob(32))", numbers), (sessions - present,))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size / sessions


async def fill_postgresql(url: str, sessions: int) -> float:
    """The same for the database at `url`."""
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:"))
    try:
        missing = sessions - await connection.fetchval("SELECT count(*) FROM sessions")
        await connection.execute(_COPY.format("md5(random()::text) || md5(random()::text)", f"generate_series(1, {missing})"))
        await connection.execute("VACUUM ANALYZE sessions")
        # Otherwise the server still writes the copies to disk during the measurement, and each commit waits for that disk.
        await connection.execute("CHECKPOINT")
        taken: int = await connection.fetchval("SELECT pg_total_relation_size('sessions')")
    finally:
        await connection.close()
    return taken / sessions
