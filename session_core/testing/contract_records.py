"""The store contract, part one: one record on its own."""

from __future__ import annotations

import pytest

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import SessionIndex, SessionStore, StoredSession
from session_core.testing.clock import FakeClock
from session_core.testing.contract_base import HOUR, ContractBase

__all__ = ("RecordsContract",)


class RecordsContract(ContractBase):
    """load, create, replace and touch."""

    async def test_load_of_an_unknown_key_is_none(self, store: SessionStore) -> None:
        """Absent is None, not an error."""
        assert await store.load(self.key("a")) is None

    async def test_create_stores_everything_at_version_1(self, store: SessionStore, clock: FakeClock) -> None:
        """What is created is what is loaded."""
        entry = self.entry(clock, user=self.key("user"), op_session=self.key("op"), rank=clock.now())
        assert await store.create(self.key("a"), entry) == ()
        assert await store.load(self.key("a")) == StoredSession(self.key("a"), 1, entry)

    async def test_create_without_indexes(self, store: SessionStore, clock: FakeClock) -> None:
        """An anonymous session has neither user nor OP session."""
        entry = self.entry(clock)
        await store.create(self.key("a"), entry, limit=1)
        assert await store.load(self.key("a")) == StoredSession(self.key("a"), 1, entry)

    @pytest.mark.parametrize("data", [b"", b"\x00\xff\r\n'\"\\\x80", bytes(range(256)) * 4096], ids=["empty", "binary", "1MB"])
    async def test_data_is_opaque(self, store: SessionStore, clock: FakeClock, data: bytes) -> None:
        """Any data is returned byte for byte."""
        await store.create(self.key("a"), self.entry(clock, data))
        stored = await store.load(self.key("a"))
        assert stored is not None
        assert stored.entry.data == data
        await store.replace(self.key("a"), self.entry(clock, data[::-1]), version=1)
        stored = await store.load(self.key("a"))
        assert stored is not None
        assert stored.entry.data == data[::-1]

    async def test_keys_are_case_sensitive(self, store: SessionStore, clock: FakeClock) -> None:
        """Keys, users and claims that differ only in case are different."""
        await store.create("Abc", self.entry(clock, b"upper", user="U"))
        await store.create("abc", self.entry(clock, b"lower", user="u"))
        stored = await store.load("Abc")
        assert stored is not None
        assert stored.entry.data == b"upper"
        assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == ["abc"]
        assert await store.claim("N", clock.now() + HOUR)
        assert await store.claim("n", clock.now() + HOUR)

    async def test_create_refuses_a_taken_key(self, store: SessionStore, clock: FakeClock) -> None:
        """Nothing is overwritten."""
        await store.create(self.key("a"), self.entry(clock, b"first"))
        with pytest.raises(SessionConflictError):
            await store.create(self.key("a"), self.entry(clock, b"second"))
        stored = await store.load(self.key("a"))
        assert stored is not None
        assert stored.entry.data == b"first"

    @pytest.mark.parametrize("rotated", [False, True])
    async def test_create_replaces_an_expired_record(self, store: SessionStore, clock: FakeClock, *, rotated: bool) -> None:
        """An expired record does not exist, and the key of a forgotten rotation is free again."""
        key, after = self.key("a"), self.key("b", after=self.key("a"))
        await store.create(key, self.entry(clock, user="u", op_session="o", rank=9))
        if rotated:
            await store.rotate(key, after, self.entry(clock), version=1, successor_until=clock.now() + HOUR)
        else:
            await store.replace(key, self.entry(clock, user="u", op_session="o", rank=9), version=1)
        clock.advance(hours=1)
        entry = self.entry(clock, b"new", user="v", op_session="p", rank=7)
        await store.create(key, entry)
        assert await store.load(key) == StoredSession(key, 1, entry)
        for gone in (SessionIndex(user="u"), SessionIndex(op_session="o")):
            assert list(await store.find(gone)) == []
        for index in (SessionIndex(user="v"), SessionIndex(op_session="p")):
            assert [stored.key for stored in await store.find(index)] == [key]

    async def test_load_honours_the_expiry(self, store: SessionStore, clock: FakeClock) -> None:
        """A record lives until, not including, the millisecond it expires."""
        await store.create(self.key("a"), self.entry(clock))
        clock.advance(seconds=3599.999)
        assert await store.load(self.key("a")) is not None
        clock.advance(seconds=0.001)
        assert await store.load(self.key("a")) is None

    async def test_replace_overwrites_everything_and_counts(self, store: SessionStore, clock: FakeClock) -> None:
        """Data, expiry, rank and index entries change together, the version goes up by one."""
        await store.create(self.key("a"), self.entry(clock, user="u1", op_session="o1", rank=1))
        new = self.entry(clock, b"new", hours=0.5, user="u2", op_session="o2", rank=2)
        assert await store.replace(self.key("a"), new, version=1) == 2
        assert await store.load(self.key("a")) == StoredSession(self.key("a"), 2, new)
        assert await store.replace(self.key("a"), new, version=2) == 3

    @pytest.mark.parametrize("version", [0, 1, 3])
    async def test_replace_refuses_another_version(self, store: SessionStore, clock: FakeClock, version: int) -> None:
        """A write on an outdated copy would undo the one before: lost update."""
        await store.create(self.key("a"), self.entry(clock, b"1"))
        await store.replace(self.key("a"), self.entry(clock, b"2"), version=1)
        with pytest.raises(SessionConflictError):
            await store.replace(self.key("a"), self.entry(clock, b"3"), version=version)
        stored = await store.load(self.key("a"))
        assert stored is not None
        assert (stored.version, stored.entry.data) == (2, b"2")

    @pytest.mark.parametrize("how", ["never", "deleted", "expired", "rotated", "revoked"])
    async def test_replace_never_revives_a_session(self, store: SessionStore, clock: FakeClock, how: str) -> None:
        """A request in flight must not resurrect what was ended meanwhile."""
        key = self.key("a")
        if how != "never":
            await store.create(key, self.entry(clock, user="u"))
        if how == "deleted":
            await store.delete(key)
        if how == "revoked":
            await store.delete_by(SessionIndex(user="u"))
        if how == "rotated":
            after = self.key("b", after=key)
            await store.rotate(key, after, self.entry(clock), version=1, successor_until=clock.now() + HOUR)
        if how == "expired":
            clock.advance(hours=1)
        for version in (1, 2):
            with pytest.raises(SessionGoneError):
                await store.replace(key, self.entry(clock, b"back"), version=version)
        assert await store.load(key) is None

    async def test_replace_can_end_a_session(self, store: SessionStore, clock: FakeClock) -> None:
        """An expiry in the past ends the session."""
        await store.create(self.key("a"), self.entry(clock))
        await store.replace(self.key("a"), self.entry(clock, hours=0), version=1)
        assert await store.load(self.key("a")) is None

    async def test_touch_moves_the_expiry_only(self, store: SessionStore, clock: FakeClock) -> None:
        """Version, data and indexes stay, so no writer is refused because another request read."""
        await store.create(self.key("a"), self.entry(clock, user="u", op_session="o", rank=5))
        assert await store.touch(self.key("a"), clock.now() + 3 * HOUR) is True
        entry = self.entry(clock, hours=3, user="u", op_session="o", rank=5)
        assert await store.load(self.key("a")) == StoredSession(self.key("a"), 1, entry)
        clock.advance(hours=2)
        assert await store.load(self.key("a")) is not None
        assert await self.live_in_index(store, "u") == [self.key("a")]
        assert await store.replace(self.key("a"), entry, version=1) == 2

    async def test_touch_never_shortens(self, store: SessionStore, clock: FakeClock) -> None:
        """A touch with an earlier expiry changes nothing and returns that the record is live."""
        await store.create(self.key("a"), self.entry(clock, hours=2))
        assert await store.touch(self.key("a"), clock.now() + HOUR) is True
        assert await store.touch(self.key("a"), clock.now() - HOUR) is True
        stored = await store.load(self.key("a"))
        assert stored is not None
        assert stored.entry.expires_at == clock.now() + 2 * HOUR

    @pytest.mark.parametrize("how", ["never", "deleted", "expired", "rotated"])
    async def test_touch_never_revives(self, store: SessionStore, clock: FakeClock, how: str) -> None:
        """Touching an ended session returns False and changes nothing."""
        key = self.key("a")
        if how != "never":
            await store.create(key, self.entry(clock))
        if how == "deleted":
            await store.delete(key)
        if how == "rotated":
            after = self.key("b", after=key)
            await store.rotate(key, after, self.entry(clock), version=1, successor_until=clock.now() + HOUR)
        if how == "expired":
            clock.advance(hours=1)
        assert await store.touch(key, clock.now() + 9 * HOUR) is False
        assert await store.load(key) is None

    async def live_in_index(self, store: SessionStore, user: str) -> list[str]:
        """Return the keys that the index of a user gives, sorted."""
        return sorted(stored.key for stored in await store.find(SessionIndex(user=user)))
