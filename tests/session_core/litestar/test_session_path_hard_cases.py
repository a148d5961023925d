"""Regressions of the optimised session path."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from litestar import post
from litestar.params import FromPath

from session_core import Identity, Session, StoreUnavailableError
from session_core.sessions.record import encode_record
from session_core.stores import MemoryStore
from session_core.stores.base import StoredSession
from session_core.stores.guarded import GuardedStore
from tests.support.factories import RecordFactory
from tests.support.sessions import ALICE, AppSession, client_of, make_app

pytestmark = pytest.mark.anyio
SHORT = 0.05


def test_seeding_random_does_not_repeat_write_ids() -> None:
    record = RecordFactory.build()
    random.seed(0)
    first = encode_record(record)
    random.seed(0)
    assert encode_record(record) != first


class Broken(MemoryStore):
    async def replace(self, key: str, entry: Any, *, version: int) -> int:
        del key, entry, version
        raise StoreUnavailableError


@pytest.mark.usefixtures("virtual_time")
async def test_a_listener_slower_than_the_store_timeout_is_no_outage() -> None:
    heard: list[str] = []

    async def slow(reason: str) -> None:
        await asyncio.sleep(3 * SHORT)
        heard.append(reason)

    store = GuardedStore(Broken(), timeout=SHORT, on_outage=slow)
    await store.open()
    with pytest.raises(StoreUnavailableError):
        await store.replace("key", object(), version=1)  # type: ignore[arg-type]
    assert heard == ["unavailable"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


class Slow(MemoryStore):
    """Inherits `keeps_within`, but has a slow `load` without the mark `keeps_time`."""

    async def load(self, key: str) -> StoredSession | None:
        await asyncio.sleep(60)
        return await super().load(key)


class Wrapped:
    """Forwards the attributes of the wrapped store."""

    def __init__(self, inner: MemoryStore) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("store", [Slow(), Wrapped(Slow())])
async def test_only_a_load_with_its_own_timeout_is_called_directly(store: Any) -> None:
    async def ignore(reason: str) -> None:
        del reason

    guarded = GuardedStore(store, timeout=SHORT, on_outage=ignore)
    await guarded.open()
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailableError):
            await guarded.load("key")


@post("/login-with/{note:str}")
async def login_and_assign(session: Session[AppSession], note: FromPath[str]) -> None:
    await session.login(ALICE)
    session.data.note = "\ud800" if note == "surrogate" else object()  # type: ignore[assignment]


@pytest.mark.parametrize("note", ["surrogate", "object"])
async def test_a_value_that_cannot_be_stored_keeps_the_login_cookie(note: str) -> None:
    async with client_of(make_app(login_and_assign)) as client:
        answer = await client.post(f"/login-with/{note}")
        assert answer.status_code == 500
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert "session-8000" in client.cookies
        assert (await client.get("/read")).json()["subject"] == "alice"


async def test_the_data_after_an_update_equals_the_stored_data() -> None:
    """An update returns what it decoded; that must equal the stored data, also after a concurrent write."""
    app = make_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        answers = await asyncio.gather(*(client.post("/visit") for _ in range(20)))
        assert sorted(answer.json()["visits"] for answer in answers) == list(range(1, 21))
        assert (await client.get("/read")).json()["data"]["visits"] == 20


def test_the_time_of_issue_does_not_change_the_identity() -> None:
    assert msgspec.structs.replace(ALICE, auth_time=5).is_same_user(ALICE)
    assert Identity(issuer="i", subject="s", auth_time=1).user_key == Identity(issuer="i", subject="s").user_key
