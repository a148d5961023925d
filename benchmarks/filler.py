"""Copies one stored session very many times inside Redis, each copy with a key and a user of its own.

A million logins one by one would take minutes. A copy is what the store itself has written, byte for byte, but for the random
parts, and is as large; the copies belong to users whom nobody asks for.
"""

from __future__ import annotations

import os
import socket
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final, cast

import redis

from session_core import Identity

__all__ = ("Filler",)

_CHUNK: Final = 2000
_DIGEST_BYTES: Final = 32
_NAME_BYTES: Final = 9
_MEMBER_BYTES: Final = len("{tag}") + _DIGEST_BYTES
_RECORD: Final = b"sc:{"
_INDEXES: Final = (b"sc:u", b"sc:o")
_LIFE_MS: Final = 3_600_000


class Filler:
    """Copies the one session, of `identity`, that is in a Redis. Raises `RuntimeError` when it looks otherwise than expected."""

    def __init__(self, port: int, identity: Identity) -> None:
        self._port = port
        self._copies = 0
        with closing(redis.Redis(port=port)) as client:
            names = cast("list[bytes]", list(client.scan_iter()))
            values = cast("list[bytes]", client.mget(names))
        try:
            self._take_apart(dict(zip(names, values, strict=True)), identity)
        except (ValueError, StopIteration) as error:
            msg = "a session in Redis does not look as the benchmark expects: benchmarks/filler.py must follow"
            raise RuntimeError(msg) from error

    def _take_apart(self, found: Mapping[bytes, bytes], identity: Identity) -> None:
        name = next(name for name in found if name.startswith(_RECORD))
        user, op_session = (found[next(name for name in found if name.startswith(index))] for index in _INDEXES)
        self._member = name.removeprefix(_RECORD[:-1])
        self._before_user, rest = found[name].split(urlsafe_b64decode(identity.user_key + "="))
        self._between, self._after = rest.split(urlsafe_b64decode(f"{identity.op_session_key}="))
        self._index_head = user.removesuffix(self._member)
        as_expected = len(found) == 1 + len(_INDEXES) and user == op_session == self._index_head + self._member
        if not as_expected or len(self._member) != _MEMBER_BYTES:
            raise ValueError

    def fill(self, sessions: int) -> None:
        """Copy until there are that many sessions."""
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
            yield _set(_INDEXES[0] + names[:_NAME_BYTES], self._index_head + member)
            yield _set(_INDEXES[1] + names[_NAME_BYTES:], self._index_head + member)


def _set(name: bytes, value: bytes) -> bytes:
    return b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nPX\r\n$7\r\n%d\r\n" % (
        len(name),
        name,
        len(value),
        value,
        _LIFE_MS,
    )
