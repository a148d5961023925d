"""The store contract, part three: the sessions of a user or of an OP session, and how many there may be."""

from __future__ import annotations

import pytest

from session_core.errors import ConfigurationError
from session_core.stores.base import SessionIndex, SessionStore
from session_core.testing.clock import FakeClock
from session_core.testing.contract_base import HOUR, ContractBase

__all__ = ("IndexContract",)


class IndexContract(ContractBase):
    """find, delete_by and the limit."""

    async def fill(
        self, store: SessionStore, clock: FakeClock, names: str, user: str, op_session: str | None = None
    ) -> list[str]:
        """Create one session per letter, of rising rank; return the keys."""
        keys = [self.key(f"{user}-{name}") for name in names]
        for rank, key in enumerate(keys):
            await store.create(key, self.entry(clock, user=user, op_session=op_session, rank=rank))
        return keys

    async def found(self, store: SessionStore, index: SessionIndex) -> set[str]:
        """Return the keys of an index; each is given once."""
        keys = [stored.key for stored in await store.find(index)]
        assert len(keys) == len(set(keys))
        return set(keys)

    async def test_find_returns_the_sessions_of_a_user(self, store: SessionStore, clock: FakeClock) -> None:
        """Other users' sessions are not found; sessions without a user have no index entry."""
        mine = await self.fill(store, clock, "abc", "u")
        await self.fill(store, clock, "ab", "v")
        await store.create(self.key("anonymous"), self.entry(clock))
        assert await self.found(store, SessionIndex(user="u")) == set(mine)
        assert await self.found(store, SessionIndex(user="another")) == set()

    async def test_find_returns_the_same_as_load(self, store: SessionStore, clock: FakeClock) -> None:
        """Each found record is complete and current."""
        (key,) = await self.fill(store, clock, "a", "u", "o")
        await store.replace(key, self.entry(clock, b"2", user="u", op_session="o", rank=7), version=1)
        assert list(await store.find(SessionIndex(user="u"))) == [await store.load(key)]

    async def test_find_returns_the_sessions_of_an_op_session(self, store: SessionStore, clock: FakeClock) -> None:
        """The index by OP session is independent of the user; one value in both means nothing."""
        mine = await self.fill(store, clock, "ab", "u", "o") + await self.fill(store, clock, "a", "v", "o")
        await self.fill(store, clock, "c", "o", "other")
        assert await self.found(store, SessionIndex(op_session="o")) == set(mine)

    async def test_find_follows_a_change_of_index(self, store: SessionStore, clock: FakeClock) -> None:
        """A replaced record is found under its new user and OP session only."""
        (key,) = await self.fill(store, clock, "a", "u1", "o1")
        await store.replace(key, self.entry(clock, user="u2", op_session="o2"), version=1)
        assert await self.found(store, SessionIndex(user="u1")) == set()
        assert await self.found(store, SessionIndex(op_session="o1")) == set()
        assert await self.found(store, SessionIndex(user="u2")) == {key}
        assert await self.found(store, SessionIndex(op_session="o2")) == {key}
        await store.replace(key, self.entry(clock), version=2)
        assert await self.found(store, SessionIndex(user="u2")) == set()
        assert await self.found(store, SessionIndex(op_session="o2")) == set()

    async def test_find_omits_ended_sessions(self, store: SessionStore, clock: FakeClock) -> None:
        """Deleted and expired sessions are not found, and a key used again is not found under its old user."""
        keys = await self.fill(store, clock, "abc", "u", "o")
        await store.delete(keys[0])
        await store.touch(keys[1], clock.now() + 2 * HOUR)
        clock.advance(hours=1)
        assert await self.found(store, SessionIndex(user="u")) == {keys[1]}
        assert await self.found(store, SessionIndex(op_session="o")) == {keys[1]}
        await store.create(keys[2], self.entry(clock, user="v"))
        assert await self.found(store, SessionIndex(user="u")) == {keys[1]}
        assert await self.found(store, SessionIndex(user="v")) == {keys[2]}

    async def test_delete_by_user(self, store: SessionStore, clock: FakeClock) -> None:
        """All sessions of the user end, each is reported, no other user's ends."""
        mine = await self.fill(store, clock, "abc", "u")
        others = await self.fill(store, clock, "ab", "v", "u")
        assert sorted(await store.delete_by(SessionIndex(user="u"))) == sorted(mine)
        assert await self.live(store, *mine, *others) == others
        assert await self.found(store, SessionIndex(user="u")) == set()
        assert await store.delete_by(SessionIndex(user="u")) == ()

    async def test_delete_by_op_session(self, store: SessionStore, clock: FakeClock) -> None:
        """A logout at the OP ends the sessions of that OP session, of any user, and no other."""
        mine = await self.fill(store, clock, "ab", "u", "o") + await self.fill(store, clock, "a", "v", "o")
        others = await self.fill(store, clock, "c", "u", "other") + await self.fill(store, clock, "c", "o")
        assert sorted(await store.delete_by(SessionIndex(op_session="o"))) == sorted(mine)
        assert await self.live(store, *mine, *others) == others

    async def test_delete_by_keeps_one(self, store: SessionStore, clock: FakeClock) -> None:
        """'Log out everywhere else' keeps the current session."""
        a, b, c = await self.fill(store, clock, "abc", "u")
        assert sorted(await store.delete_by(SessionIndex(user="u"), keep=b)) == sorted([a, c])
        assert await self.live(store, a, b, c) == [b]
        assert await self.found(store, SessionIndex(user="u")) == {b}

    async def test_delete_by_does_not_report_expired_records(self, store: SessionStore, clock: FakeClock) -> None:
        """Expired sessions are not reported."""
        await self.fill(store, clock, "ab", "u")
        clock.advance(hours=1)
        assert await store.delete_by(SessionIndex(user="u")) == ()

    async def test_delete_by_ends_a_rotated_session(self, store: SessionStore, clock: FakeClock) -> None:
        """A rotated session is deleted and reported under its new key."""
        (old,) = await self.fill(store, clock, "a", "u", "o")
        new = self.key("new", after=old)
        entry = self.entry(clock, user="u", op_session="o")
        await store.rotate(old, new, entry, version=1, successor_until=clock.now() + HOUR)
        assert await store.delete_by(SessionIndex(op_session="o")) == (new,)
        assert await self.live(store, old, new) == []

    async def test_the_limit_ends_the_lowest_rank(self, store: SessionStore, clock: FakeClock) -> None:
        """The limit counts the new session; the oldest logins go, whatever the order of writing."""
        self.needs_an_atomic_store(store)
        a, b, c = await self.fill(store, clock, "abc", "u")
        others = await self.fill(store, clock, "abc", "v")
        await store.replace(a, self.entry(clock, user="u", rank=9), version=1)
        new = self.key("new")
        assert sorted(await store.create(new, self.entry(clock, user="u", rank=10), limit=2)) == sorted([b, c])
        assert await self.live(store, a, b, c, new, *others) == [a, new, *others]

    async def test_the_limit_keeps_the_new_session(self, store: SessionStore, clock: FakeClock) -> None:
        """The new session stays even if its rank is the lowest."""
        self.needs_an_atomic_store(store)
        (old,) = await self.fill(store, clock, "a", "u")
        new = self.key("new")
        assert await store.create(new, self.entry(clock, user="u", rank=-5), limit=1) == (old,)
        assert await self.live(store, old, new) == [new]

    async def test_the_limit_leaves_room_unused(self, store: SessionStore, clock: FakeClock) -> None:
        """No session ends below the limit, without a limit, or for a session without a user."""
        self.needs_an_atomic_store(store)
        keys = await self.fill(store, clock, "ab", "u")
        assert await store.create(self.key("c"), self.entry(clock, user="u"), limit=3) == ()
        assert await store.create(self.key("d"), self.entry(clock, user="u"), limit=0) == ()
        assert await store.create(self.key("e"), self.entry(clock), limit=1) == ()
        assert await store.create(self.key("f"), self.entry(clock), limit=1) == ()
        assert await store.create(self.key("g"), self.entry(clock, user="u"), limit=-1) == ()
        names = [*keys, *(self.key(name) for name in "cdefg")]
        assert await self.live(store, *names) == names

    async def test_the_limit_does_not_count_ended_sessions(self, store: SessionStore, clock: FakeClock) -> None:
        """Expired, deleted and rotated sessions do not count."""
        self.needs_an_atomic_store(store)
        keys = await self.fill(store, clock, "abcd", "u")
        await store.touch(keys[0], clock.now() + 3 * HOUR)
        clock.advance(hours=1)
        await store.create(self.key("e"), self.entry(clock, user="u", rank=9))
        await store.delete(self.key("e"))
        assert await store.create(self.key("f"), self.entry(clock, user="u", rank=9), limit=2) == ()
        assert await self.live(store, keys[0], self.key("f")) == [keys[0], self.key("f")]

    async def test_the_limit_applies_to_a_login_that_rotates(self, store: SessionStore, clock: FakeClock) -> None:
        """A login rotates the anonymous session; the session of the lowest rank ends."""
        self.needs_an_atomic_store(store)
        a, b = await self.fill(store, clock, "ab", "u")
        old = self.key("anonymous")
        await store.create(old, self.entry(clock))
        new = self.key("new", after=old)
        entry = self.entry(clock, user="u", rank=5)
        until = clock.now() + HOUR
        assert await store.rotate(old, new, entry, version=1, successor_until=until, limit=2) == (a,)
        assert await self.live(store, a, b, old, new) == [b, new]

    async def test_a_rotation_does_not_count_twice(self, store: SessionStore, clock: FakeClock) -> None:
        """Regenerating at the limit ends no session, and the moved one is not reported."""
        self.needs_an_atomic_store(store)
        a, b = await self.fill(store, clock, "ab", "u")
        new = self.key("new", after=a)
        entry = self.entry(clock, user="u", rank=0)
        assert await store.rotate(a, new, entry, version=1, successor_until=clock.now() + HOUR, limit=2) == ()
        assert await self.live(store, a, b, new) == [b, new]

    async def test_a_limit_is_kept_or_refused(self, store: SessionStore, clock: FakeClock) -> None:
        """Where two logins at once would pass it, it is not taken, and nothing changes. Without a user there is none to keep."""
        anonymous, first, second = self.key("anonymous"), self.key("first"), self.key("second")
        await store.create(anonymous, self.entry(clock), limit=1)
        entry = self.entry(clock, user="u")
        if store.capabilities.atomic:
            await store.create(first, entry, limit=1)
            assert await store.create(second, entry, limit=1) == (first,)
            return
        moved, until = self.key("moved", after=anonymous), clock.now() + HOUR
        with pytest.raises(ConfigurationError):
            await store.create(first, entry, limit=1)
        with pytest.raises(ConfigurationError):
            await store.rotate(anonymous, moved, entry, version=1, successor_until=until, limit=1)
        assert await self.live(store, anonymous, first, moved) == [anonymous]
