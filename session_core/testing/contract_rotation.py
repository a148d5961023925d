"""The store contract, part two: a session that moves to a new key, and the end of a session."""

from __future__ import annotations

import pytest

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import SessionIndex, SessionStore, StoredSession
from session_core.testing.clock import FakeClock
from session_core.testing.contract_base import HOUR, ContractBase

__all__ = ("RotationContract",)


class RotationContract(ContractBase):
    """rotate and delete."""

    async def rotated(self, store: SessionStore, clock: FakeClock, *names: str, minutes: float = 10) -> list[str]:
        """Create a session at the first key and rotate it along the others; return the keys."""
        keys = [self.key(names[0])]
        await store.create(keys[0], self.entry(clock, user="u", op_session="o"))
        for name in names[1:]:
            keys.append(self.key(name, after=keys[-1]))
            entry = self.entry(clock, name.encode(), user="u", op_session="o")
            until = clock.now() + round(minutes * 60_000)
            assert await store.rotate(keys[-2], keys[-1], entry, version=1, successor_until=until) == ()
        return keys

    async def test_rotate_moves_the_session(self, store: SessionStore, clock: FakeClock) -> None:
        """The new key is live at version 1 with the new entry; the old one is dead at once."""
        old, new = await self.rotated(store, clock, "old", "new")
        assert await store.load(old) is None
        entry = self.entry(clock, b"new", user="u", op_session="o")
        assert await store.load(new) == StoredSession(new, 1, entry)

    async def test_rotate_starts_at_version_1_from_any_version(self, store: SessionStore, clock: FakeClock) -> None:
        """The version starts at 1 under the new key."""
        old = self.key("old")
        await store.create(old, self.entry(clock))
        await store.replace(old, self.entry(clock), version=1)
        new = self.key("new", after=old)
        await store.rotate(old, new, self.entry(clock), version=2, successor_until=clock.now() + HOUR)
        assert await store.replace(new, self.entry(clock), version=1) == 2

    async def test_rotate_moves_the_indexes(self, store: SessionStore, clock: FakeClock) -> None:
        """Both indexes name the new key once and the old key no more."""
        _, new = await self.rotated(store, clock, "old", "new")
        for index in (SessionIndex(user="u"), SessionIndex(op_session="o")):
            assert [stored.key for stored in await store.find(index)] == [new]

    async def test_rotate_can_change_the_user(self, store: SessionStore, clock: FakeClock) -> None:
        """A login moves an anonymous session, or another user's, to the user."""
        old = self.key("old")
        await store.create(old, self.entry(clock, user="u1", op_session="o1"))
        new = self.key("new", after=old)
        entry = self.entry(clock, user="u2", op_session="o2")
        await store.rotate(old, new, entry, version=1, successor_until=clock.now() + HOUR)
        assert list(await store.find(SessionIndex(user="u1"))) == []
        assert list(await store.find(SessionIndex(op_session="o1"))) == []
        assert [stored.key for stored in await store.find(SessionIndex(user="u2"))] == [new]
        assert [stored.key for stored in await store.find(SessionIndex(op_session="o2"))] == [new]

    @pytest.mark.parametrize("version", [0, 1, 3])
    async def test_rotate_refuses_another_version(self, store: SessionStore, clock: FakeClock, version: int) -> None:
        """A rotation of an outdated version would lose another request's write."""
        old = self.key("old")
        await store.create(old, self.entry(clock))
        await store.replace(old, self.entry(clock, b"2"), version=1)
        new = self.key("new", after=old)
        with pytest.raises(SessionConflictError):
            await store.rotate(old, new, self.entry(clock), version=version, successor_until=clock.now() + HOUR)
        assert await store.load(new) is None
        assert await store.load(old) == StoredSession(old, 2, self.entry(clock, b"2"))

    @pytest.mark.parametrize("how", ["never", "deleted", "expired", "rotated"])
    async def test_rotate_never_revives_a_session(self, store: SessionStore, clock: FakeClock, how: str) -> None:
        """The session exists under neither key."""
        old = self.key("old")
        if how != "never":
            await store.create(old, self.entry(clock))
        if how == "deleted":
            await store.delete(old)
        if how == "rotated":
            first = self.key("first", after=old)
            await store.rotate(old, first, self.entry(clock), version=1, successor_until=clock.now() + HOUR)
        if how == "expired":
            clock.advance(hours=1)
        new = self.key("new", after=old)
        for version in (1, 2):
            with pytest.raises(SessionGoneError):
                await store.rotate(old, new, self.entry(clock), version=version, successor_until=clock.now() + HOUR)
        assert await self.live(store, old, new) == []

    async def test_rotate_refuses_a_taken_key(self, store: SessionStore, clock: FakeClock) -> None:
        """No session is overwritten, and the old one is unchanged."""
        old = self.key("old")
        new = self.key("new", after=old)
        await store.create(old, self.entry(clock, b"mine", user="u"))
        await store.create(new, self.entry(clock, b"theirs", user="v"))
        for target in (new, old):
            with pytest.raises(SessionConflictError):
                await store.rotate(old, target, self.entry(clock), version=1, successor_until=clock.now() + HOUR)
        assert await store.load(old) == StoredSession(old, 1, self.entry(clock, b"mine", user="u"))
        await store.delete(old)
        with pytest.raises((SessionConflictError, SessionGoneError)):
            await store.rotate(old, new, self.entry(clock, user="u"), version=1, successor_until=clock.now() + HOUR)
        assert await store.load(new) == StoredSession(new, 1, self.entry(clock, b"theirs", user="v"))

    async def test_rotate_replaces_an_expired_record(self, store: SessionStore, clock: FakeClock) -> None:
        """As `create` does."""
        old = self.key("old")
        new = self.key("new", after=old)
        await store.create(old, self.entry(clock, hours=2, user="u"))
        await store.create(new, self.entry(clock, user="v", op_session="p", rank=9))
        clock.advance(hours=1)
        entry = self.entry(clock, b"mine", user="u", op_session="o", rank=7)
        await store.rotate(old, new, entry, version=1, successor_until=clock.now() + HOUR)
        assert await store.load(new) == StoredSession(new, 1, entry)
        assert list(await store.find(SessionIndex(op_session="p"))) == []

    async def test_delete_ends_a_session(self, store: SessionStore, clock: FakeClock) -> None:
        """The record is gone, from the indexes too, and its key is reported; others stay."""
        await store.create(self.key("a"), self.entry(clock, user="u", op_session="o"))
        await store.create(self.key("b"), self.entry(clock, user="u", op_session="o"))
        assert await store.delete(self.key("a")) == (self.key("a"),)
        assert await self.live(store, self.key("a"), self.key("b")) == [self.key("b")]
        for index in (SessionIndex(user="u"), SessionIndex(op_session="o")):
            assert [stored.key for stored in await store.find(index)] == [self.key("b")]

    async def test_delete_is_idempotent(self, store: SessionStore, clock: FakeClock) -> None:
        """Deleting an absent session is no error and reports nothing."""
        assert await store.delete(self.key("a")) == ()
        await store.create(self.key("a"), self.entry(clock))
        await store.delete(self.key("a"))
        assert await store.delete(self.key("a")) == ()

    async def test_delete_does_not_report_an_expired_record(self, store: SessionStore, clock: FakeClock) -> None:
        """It had ended already."""
        await store.create(self.key("a"), self.entry(clock))
        await store.create(self.key("b"), self.entry(clock))
        clock.advance(hours=1)
        assert await store.delete(self.key("a")) == ()
        clock.advance(seconds=0.001)
        assert await store.delete(self.key("b")) == ()

    async def test_a_deleted_key_is_free_again(self, store: SessionStore, clock: FakeClock) -> None:
        """A new record starts at version 1."""
        await store.create(self.key("a"), self.entry(clock, user="u"))
        await store.delete(self.key("a"))
        await store.create(self.key("a"), self.entry(clock, b"new"))
        assert await store.load(self.key("a")) == StoredSession(self.key("a"), 1, self.entry(clock, b"new"))

    async def test_delete_follows_the_successor(self, store: SessionStore, clock: FakeClock) -> None:
        """A logout with the id from before a regeneration ends the session too."""
        old, new = await self.rotated(store, clock, "old", "new")
        assert await store.delete(old) == (new,)
        assert await self.live(store, old, new) == []
        assert list(await store.find(SessionIndex(user="u"))) == []

    async def test_delete_follows_all_successors(self, store: SessionStore, clock: FakeClock) -> None:
        """Also after several regenerations."""
        keys = await self.rotated(store, clock, "a", "b", "c", "d")
        assert await store.delete(keys[0]) == (keys[-1],)
        assert await self.live(store, *keys) == []

    async def test_delete_follows_only_forward(self, store: SessionStore, clock: FakeClock) -> None:
        """After the newest key is deleted, earlier keys lead to no session."""
        keys = await self.rotated(store, clock, "a", "b", "c")
        assert await store.delete(keys[2]) == (keys[2],)
        assert await store.delete(keys[0]) == ()
        assert await self.live(store, *keys) == []

    async def test_delete_follows_only_while_it_is_remembered(self, store: SessionStore, clock: FakeClock) -> None:
        """From `successor_until` on, an old id cannot end the session."""
        old, new = await self.rotated(store, clock, "old", "new", minutes=10)
        clock.advance(seconds=599.999)
        newest = self.key("newest", after=new)
        await store.rotate(new, newest, self.entry(clock), version=1, successor_until=clock.now() + HOUR // 60)
        clock.advance(seconds=0.001)
        assert await store.delete(old) == ()
        assert await store.load(newest) is not None
        assert await store.delete(new) == (newest,)

    async def test_a_remembered_key_is_used_by_delete_only(self, store: SessionStore, clock: FakeClock) -> None:
        """Apart from `delete`, every method treats an old id as absent."""
        old, new = await self.rotated(store, clock, "old", "new")
        assert await store.load(old) is None
        assert await store.touch(old, clock.now() + 9 * HOUR) is False
        if store.capabilities.listable:
            assert [stored.key async for stored in store.scan()] == [new]
        assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == [new]
        clock.advance(minutes=10)
        assert await store.load(old) is None
