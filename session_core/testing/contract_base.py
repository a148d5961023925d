"""Fixtures and functions that the parts of the store contract share."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Coroutine
from hashlib import sha256

import pytest

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.ids import TAG_CHARS
from session_core.stores.base import Entry, SessionStore
from session_core.testing.clock import FakeClock

__all__ = ("HOUR", "ContractBase", "outcome")

HOUR = 3_600_000


class ContractBase:
    """The fixtures of the contract's tests."""

    pytestmark = pytest.mark.anyio

    rounds = 20
    """How often each race is run, in both orders."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run on asyncio."""
        return "asyncio"

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The clock that the store must have been built with."""
        return FakeClock()

    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        """Override this one: an opened, empty store built with `clock`, closed afterwards."""
        del clock
        msg = f"{type(self).__name__} must override the fixture `store`"
        raise NotImplementedError(msg)
        yield  # noqa: PT022 - what makes this an asynchronous generator, as overriding ones are

    def key(self, name: str, *, after: str | None = None) -> str:
        """Return a key as the library makes them: 43 characters of base64url, and a slot tag of three.

        `after` is the key that a rotation will start from; the two have the same tag.
        """
        digest = urlsafe_b64encode(sha256(name.encode()).digest()).rstrip(b"=").decode()
        return digest + (digest if after is None else after)[-TAG_CHARS:]

    def entry(
        self,
        clock: FakeClock,
        data: bytes = b"data",
        *,
        hours: float = 1,
        user: str | None = None,
        op_session: str | None = None,
        rank: int = 0,
    ) -> Entry:
        """Return an entry that lives for `hours`."""
        return Entry(data, clock.now() + round(hours * HOUR), user, op_session, rank)

    def needs_an_atomic_store(self, store: SessionStore) -> None:
        """Skip tests that need compare-and-swap over all processes."""
        if not store.capabilities.atomic:
            pytest.skip("the store says that it is not atomic")

    def sweeps(self, store: SessionStore) -> bool:
        """Whether `delete_expired` removes expired records: the store lists them and has no native expiry."""
        return store.capabilities.listable and not store.capabilities.native_expiry

    async def live(self, store: SessionStore, *keys: str) -> list[str]:
        """Return those of the keys that are live."""
        return [key for key in keys if await store.load(key) is not None]


async def outcome(call: Coroutine[object, object, object]) -> object:
    """Return what the call returned, or the type of the refusal that it raised."""
    try:
        await asyncio.sleep(0)
        return await call
    except (SessionConflictError, SessionGoneError) as error:
        return type(error)
    finally:
        call.close()
