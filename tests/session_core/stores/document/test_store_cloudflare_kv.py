"""The store contract on a stand-in for Cloudflare KV, and the effects of eventual consistency on a session."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex, SessionStore
from session_core.stores.document.cloudflare_kv import CloudflareKvStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.contract.one_process import OneProcessContract
from tests.session_core.stores.document.cloudflare_standin import ACCOUNT, NAMESPACE, TOKEN, URL, KvStandIn
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def kv() -> KvStandIn:
    return KvStandIn()


def _store(kv: KvStandIn, place: str = "here", *, clock: FakeClock | None = None, url: str = URL) -> CloudflareKvStore:
    return CloudflareKvStore(url, clock=clock or FakeClock(), transport=httpx2.ASGITransport(app=kv.place(place)))


async def _opened(kv: KvStandIn, clock: FakeClock) -> AsyncIterator[SessionStore]:
    async with opened_store(_store(kv, clock=clock)) as store:
        yield store


class TestCloudflareKv(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        async for store in _opened(KvStandIn(), clock):
            yield store


class TestOneProcess(OneProcessContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        async for store in _opened(KvStandIn(), clock):
            yield store


async def test_a_logout_is_not_visible_elsewhere_at_once(kv: KvStandIn) -> None:
    """The meaning of `consistent=False`: the plugin refuses this store unless `accept_weak_store` is set."""
    clock = FakeClock()
    here, there = _store(kv, "here", clock=clock), _store(kv, "there", clock=clock)
    await here.create("key", Entry(b"data", clock.now() + 600_000, user="u"))
    assert await there.load("key") is None
    kv.now += 61
    assert await there.load("key") is not None
    assert await here.delete("key") == ("key",)
    assert await here.load("key") is None
    assert await there.load("key") is not None
    kv.now += 61
    assert await there.load("key") is None


async def test_a_concurrent_write_elsewhere_revives_nothing(kv: KvStandIn) -> None:
    """The mark overrides the record once both have arrived."""
    clock = FakeClock()
    here, there = _store(kv, "here", clock=clock), _store(kv, "there", clock=clock)
    await here.create("key", Entry(b"data", clock.now() + 600_000))
    kv.now += 61
    await here.delete("key")
    assert await there.replace("key", Entry(b"late", clock.now() + 600_000), version=1) == 2
    kv.now += 61
    third = _store(kv, "third", clock=clock)
    assert [await store.load("key") for store in (here, there, third)] == [None, None, None]


async def test_a_process_sees_its_own_writes_at_any_location(kv: KvStandIn) -> None:
    clock = FakeClock()
    store = _store(kv, "here", clock=clock)
    await store.create("key", Entry(b"1", clock.now() + 600_000))
    for written in kv.history.values():  # the API is called at another location from now on
        for each in written:
            each.place = "elsewhere"
    stored = await store.load("key")
    assert stored is not None
    assert await store.replace("key", Entry(b"2", clock.now() + 600_000), version=stored.version) == 2


async def test_a_list_of_many_pages_is_read_completely(kv: KvStandIn) -> None:
    clock = FakeClock()
    store = _store(kv, clock=clock)
    for number in range(1203):
        await store.create(f"key{number}", Entry(b"", clock.now() + 600_000))
    kv.calls.clear()
    assert len([stored async for stored in store.scan()]) == 1203
    assert [path.rpartition("/")[2] for _, path in kv.calls].count("keys") == 2


async def test_the_time_to_live_is_at_least_the_minimum(kv: KvStandIn) -> None:
    clock = FakeClock()
    store = _store(kv, clock=clock)
    await store.create("key", Entry(b"", clock.now() + 1000))
    assert await store.claim("name", clock.now() + 1) is True
    clock.advance(seconds=1)
    assert await store.load("key") is None
    assert await store.claimed_until("name") is None


async def test_revoking_all_sessions_meets_a_session_missing_from_every_list(kv: KvStandIn) -> None:
    clock = FakeClock()
    store = _store(kv, clock=clock)
    await store.create("key", Entry(b"", clock.now() + 600_000, user="u"))
    await store._documents.delete("u:uu")
    assert await store.delete_by(SessionIndex(user="u")) == ()
    assert await store.load("key") is None


@pytest.mark.parametrize(
    "answer",
    [
        (429, b'{"success":false,"errors":[{"code":10048}]}', "application/json"),
        (404, b'{"success":false,"errors":[{"code":10013}]}', "application/json"),
        (404, b"<html>", "text/html"),
        (404, b'{"success":false,"errors":"10009"}', "application/json"),
        (404, b"[" * 100_000, "application/json"),
        (403, b'{"success":false,"errors":[{"code":10009}]}', "application/json"),
        (200, b"<html>", "text/html"),
        (500, b"", "text/plain"),
        (302, b"", "text/plain"),
    ],
)
async def test_any_other_response_is_an_outage_and_no_logout(kv: KvStandIn, answer: tuple[int, bytes, str]) -> None:
    kv.refuse = answer
    store = _store(kv)
    for call in (store.load("key"), store.delete("key"), store.ping(), store.claim("name", 9)):
        with pytest.raises(StoreUnavailableError):
            await call
    with pytest.raises(StoreUnavailableError):
        [stored async for stored in store.scan()]


@pytest.mark.parametrize("url", [URL.replace(TOKEN, "wrong"), URL.replace(NAMESPACE, "0" * 32), URL.replace(ACCOUNT, "0" * 32)])
async def test_a_wrong_token_or_namespace_is_an_outage(kv: KvStandIn, url: str) -> None:
    with pytest.raises(StoreUnavailableError) as error:
        await _store(kv, url=url).load("key")
    assert "wrong" not in str(error.value)


def test_the_token_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KV_TOKEN", "very-secret")
    store = open_store("cloudflare-kv://account/namespace?token_env=KV_TOKEN&prefix=shop:&timeout=3")
    assert isinstance(store, CloudflareKvStore)
    assert "very-secret" not in repr(store) + repr(vars(store)) + repr(vars(store._documents))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("cloudflare-kv://account", "another form"),
        ("cloudflare-kv://account/namespace/more", "another form"),
        ("cloudflare-kv://account/namespace", "no API token"),
        ("cloudflare-kv://token@account/namespace", "no user"),
        ("cloudflare-kv://account/namespace?token_env=NO_SUCH_VARIABLE", "token_env"),
        ("cloudflare-kv://:a@account/namespace?prefix=a/b", "prefix"),
        ("cloudflare-kv://:a@account/namespace?api_url=http://evil", "no option 'api_url'"),
        ("cloudflare-kv://:a@account/namespace?timeout=x", "timeout"),
    ],
)
def test_a_malformed_url_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        open_store(url)
