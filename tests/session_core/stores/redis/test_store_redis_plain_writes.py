"""The fast path of the scripts that replace and rotate: it makes the usual writes; all others fall through."""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import pytest

from session_core.identity import op_session_key, user_key
from session_core.stores.base import Entry
from session_core.stores.redis import scripts
from session_core.stores.redis.layout import encode_record, pointer_to
from session_core.stores.redis.scripts import Script
from tests.support.redis_servers import RedisServer

HOUR: Final = 3_600_000
NOW: Final = 1_800_000_000_000 // HOUR * HOUR
UNTIL: Final = NOW + 2 * HOUR
USER, OTHER, OP = user_key("op", "alice"), user_key("op", "bob"), op_session_key("op", "sid")
NAME, NEW, INDEX = b"record", b"new record", b"index"
FELL_THROUGH: Final = b"all else"


def run(server: RedisServer, script: Script, keys: list[bytes], *args: Any, replay: bytes = b"") -> Any:
    """Run the part of a script that precedes `record.lua`, at the time `NOW` and before the deadline."""
    first, found, _ = script.text.partition(b"-- Reads records in Lua")
    assert found
    every = (replay, 0, 2**60, NOW, *args)
    return server.admin("EVAL", first + b"\nreturn '" + FELL_THROUGH + b"'", len(keys), *keys, *every)


def record(user: str | None = None, op_session: str | None = None, **changes: Any) -> bytes:
    entry = {"data": b"", "expires_at": UNTIL, "rank": NOW, **changes}
    return encode_record(entry.pop("version", 1), Entry(user=user, op_session=op_session, **entry))


def replaced(server: RedisServer, old: bytes, new: bytes, *, version: int = 1, ttl: int = HOUR, **options: Any) -> Any:
    """The answer; asserts that the new value is stored if and only if the write was made."""
    server.admin("SET", NAME, old)
    also = options.pop("also", ())
    answer = run(server, scripts.REPLACE, [NAME], version, new, ttl, *also, **options)
    stored = server.admin("GET", NAME)
    assert stored == (old if answer == FELL_THROUGH else new)
    if answer != FELL_THROUGH:
        assert 0 < int(str(server.admin("PTTL", NAME))) <= ttl
    return answer


OWNERS = list(product((None, USER), (None, OP)))


@pytest.mark.parametrize("owners", OWNERS)
@pytest.mark.parametrize("data", [b"", b"x", b"x" * 300])
def test_a_usual_write_is_made(valkey: RedisServer, owners: tuple[str | None, str | None], data: bytes) -> None:
    old = record(*owners)
    assert replaced(valkey, old, record(*owners, data=data, version=2)) == 2
    assert replaced(valkey, old, record(*owners, data=data, version=2, expires_at=UNTIL + HOUR - 1)) == 2
    assert replaced(valkey, old, record(*owners, data=data, version=2, expires_at=UNTIL - HOUR)) == 2
    assert replaced(valkey, record(*owners, expires_at=NOW + 1, version=7), record(*owners, expires_at=NOW + 2), version=7) == 8
    # Its indexes would have to live longer.
    later = replaced(valkey, old, record(*owners, version=2, expires_at=UNTIL + HOUR))
    assert later == (2 if owners == (None, None) else FELL_THROUGH)


@pytest.mark.parametrize("owners", OWNERS)
def test_an_unusual_write_falls_through(valkey: RedisServer, owners: tuple[str | None, str | None]) -> None:
    old, new = record(*owners), record(*owners, version=2)
    assert replaced(valkey, old, new, replay=b"1") == FELL_THROUGH
    assert replaced(valkey, old, new, also=(b"member", HOUR, b"")) == FELL_THROUGH
    for version in (0, 2):
        assert replaced(valkey, old, new, version=version) == FELL_THROUGH
    for ttl in (0, -1):
        assert replaced(valkey, old, new, ttl=ttl) == FELL_THROUGH
    for expires_at in (NOW, NOW - 1):
        assert replaced(valkey, record(*owners, expires_at=expires_at), new) == FELL_THROUGH
    for other in OWNERS:
        if other != owners:
            assert replaced(valkey, old, record(*other, version=2)) == FELL_THROUGH
    if owners[0] is not None:
        assert replaced(valkey, old, record(OTHER, owners[1], version=2)) == FELL_THROUGH
    for value in (b"", b">12345678{tag}member", b"P12345678", b"X12345678", old[:13], record(*owners, version=2**24)):
        assert replaced(valkey, value, new) == FELL_THROUGH
    valkey.admin("DEL", NAME)
    assert run(valkey, scripts.REPLACE, [NAME], 1, new, HOUR) == FELL_THROUGH


@pytest.mark.parametrize("owners", [("a name", None), (None, "a name"), ("a name", "a name"), ("a name", OP), (USER, "a name")])
@pytest.mark.parametrize("prefix", ["", "x" * 100])
def test_a_write_with_names_other_than_digests_falls_through(
    valkey: RedisServer, owners: tuple[str | None, str | None], prefix: str
) -> None:
    """Also when two names differ only at their end."""

    def named(end: str) -> list[str | None]:
        return [prefix + owner + end if owner == "a name" else owner for owner in owners]

    assert replaced(valkey, record(*named("1")), record(*named("1"), version=2)) == FELL_THROUGH
    assert replaced(valkey, record(*named("1")), record(*named("2"), version=2)) == FELL_THROUGH


def rotated(server: RedisServer, old: bytes | None, *, found: bytes | None = None, members: int = 0, **options: Any) -> Any:
    """The answer; asserts that both keys and the index changed if and only if the rotation was made."""
    server.admin("FLUSHALL")
    if old is not None:
        server.admin("SET", NAME, old)
    if found is not None:
        server.admin("SET", NEW, found)
    for number in range(members):
        server.admin("ZADD", INDEX, number + 1, f"member{number}")
    before = server.admin("ZRANGE", INDEX, 0, -1)
    pointer, new = pointer_to("new", UNTIL), record(USER)
    args = {
        "version": 1, "value": new, "ttl": 2 * HOUR, "pointer": pointer, "pointer_ttl": HOUR, "member": b"new",
        "old_member": b"member0", "index_ttl": 3 * HOUR, "prefix": b"sc:", "limit": 0, "token": b"",
    }  # fmt: skip
    replay, keys = options.pop("replay", b""), options.pop("keys", [NAME, NEW, INDEX])
    answer = run(server, scripts.ROTATE, keys, *(args | options).values(), replay=replay)
    stored, members_now = [server.admin("GET", name) for name in (NAME, NEW)], server.admin("ZRANGE", INDEX, 0, -1)
    if answer == FELL_THROUGH:
        assert (stored, members_now) == ([old, found], before)
    else:
        assert stored == [pointer, new]
        assert members_now == [b"new", *before[1:]]  # type: ignore[index]
        lives = [int(str(server.admin("PTTL", name))) for name in (NEW, NAME, INDEX)]
        assert [-(-life // HOUR) for life in lives] == [2, 1, 3]
    return answer


def test_a_usual_rotation_is_made(valkey: RedisServer) -> None:
    for owners in OWNERS:
        assert rotated(valkey, record(*owners)) == [0]
    assert rotated(valkey, record(), members=3) == [0]
    assert rotated(valkey, record(), members=3, limit=4) == [0]
    assert rotated(valkey, record(data=b"x" * 300, version=7), version=7) == [0]
    assert rotated(valkey, record(expires_at=NOW + 1)) == [0]
    assert rotated(valkey, record("a name", "x" * 100)) == [0]


def test_an_unusual_rotation_falls_through(valkey: RedisServer) -> None:
    old = record(USER, OP)
    assert rotated(valkey, old, replay=b"1") == FELL_THROUGH
    assert rotated(valkey, old, token=b"12345678") == FELL_THROUGH
    assert rotated(valkey, old, keys=[NAME, NAME, INDEX]) == FELL_THROUGH
    assert rotated(valkey, old, version=2) == FELL_THROUGH
    assert rotated(valkey, old, ttl=0) == FELL_THROUGH
    assert rotated(valkey, old, found=b"P12345678") == FELL_THROUGH
    assert rotated(valkey, old, found=record()) == FELL_THROUGH
    for members in (3, 4):
        assert rotated(valkey, old, members=members, limit=3) == FELL_THROUGH
    for expires_at in (NOW, NOW - 1):
        assert rotated(valkey, record(expires_at=expires_at)) == FELL_THROUGH
    for value in (None, b"", b">12345678{tag}member", b"P12345678", old[:13], record(version=2**24)):
        assert rotated(valkey, value) == FELL_THROUGH
