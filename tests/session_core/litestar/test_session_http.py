"""Sessions over HTTP: outages, caching, cross-site requests, forged cookies, logs without secrets."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from litestar import Litestar, Response, get
from litestar.exceptions import NotFoundException
from litestar.response import Stream

from session_core import ConfigurationError, Session, SessionConfig, StoreUnavailableError, Timeouts
from session_core.ids import handle_of, new_session_id, session_key
from session_core.stores import MemoryStore, StoreCapabilities
from session_core.testing import FakeClock
from tests.support.sessions import ALICE, AppSession, Recorder, client_of, cookie_of, make_app, make_config, plugin_in

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("bypasses", [True, False], ids=["bypassed", "by Litestar"], indirect=True),
]


class BrokenStore(MemoryStore):
    """A memory store that can fail, hang, and recover."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        super().__init__(clock=clock)
        self.fault: str | None = None

    async def _meet_fault(self) -> None:
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.fault == "refuse":
            raise ConnectionRefusedError
        if self.fault == "driver":
            msg = "driver message with a secret-canary"
            raise RuntimeError(msg)
        if self.fault == "typed":
            raise StoreUnavailableError

    async def load(self, key: str) -> Any:
        await self._meet_fault()
        return await super().load(key)

    async def replace(self, *args: Any, **kwargs: Any) -> int:
        await self._meet_fault()
        return await super().replace(*args, **kwargs)

    async def create(self, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        await self._meet_fault()
        return await super().create(*args, **kwargs)

    async def delete(self, key: str) -> tuple[str, ...]:
        await self._meet_fault()
        return await super().delete(key)


@pytest.mark.attack("62")
@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("fault", ["hang", "refuse", "driver", "typed"])
async def test_an_outage_is_a_503_and_ends_no_session(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    store, recorder = BrokenStore(), Recorder()
    app = make_app(store=store, store_timeout=0.05, on_event=[recorder])
    async with client_of(app) as client:
        await client.post("/login/alice")
        cookie = cookie_of(client)
        store.fault = fault
        for method, path in (("GET", "/read"), ("POST", "/visit"), ("POST", "/logout")):
            answer = await client.request(method, path)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["cache-control"] == "no-store"
            assert "set-cookie" not in answer.headers
            assert answer.json()["code"] == "store_unavailable"
            assert "canary" not in answer.text
        assert (await client.get("/public")).status_code == 200
        assert cookie_of(client) == cookie
        store.fault = None
        assert (await client.get("/read")).json()["subject"] == "alice"
    assert "store.unavailable" in recorder.names
    assert "canary" not in capsys.readouterr().out


async def test_an_outage_while_saving_replaces_the_response() -> None:
    store = BrokenStore()

    @get("/loads-then-fails")
    async def handler(session: Session[AppSession]) -> str:
        session.data.note = "not durable"
        store.fault = "refuse"
        return "done"

    async with client_of(make_app(handler, store=store)) as client:
        await client.post("/visit")
        answer = await client.get("/loads-then-fails")
        assert (answer.status_code, "done" in answer.text) == (503, False)
        store.fault = None
        assert (await client.get("/read")).json()["data"]["note"] == ""


async def test_a_replaced_stream_is_stopped() -> None:
    store = BrokenStore()
    produced = 0

    @get("/stream")
    async def stream(session: Session[AppSession]) -> Stream:
        session.data.note = "not durable"
        store.fault = "refuse"

        async def endless() -> Any:
            nonlocal produced
            while True:
                produced += 1
                yield b"x"

        return Stream(endless())

    async with client_of(make_app(stream, store=store)) as client:
        await client.post("/visit")
        assert (await client.get("/stream")).status_code == 503
    assert produced <= 2


@pytest.mark.attack("62")
async def test_a_store_that_is_down_at_start_is_opened_later() -> None:
    class Late(MemoryStore):
        up = False

        async def open(self) -> None:
            if not self.up:
                raise ConnectionRefusedError

    store = Late()
    app = make_app(store=store)
    async with app.lifespan(), client_of(app) as client:
        assert (await client.post("/visit")).status_code == 503
        store.up = True
        assert (await client.post("/visit")).status_code == 201


@pytest.mark.attack("59")
@pytest.mark.attack("asvs-14.3.2")
async def test_a_session_page_is_private_and_varies_on_the_cookie() -> None:
    @get("/cached-by-mistake")
    async def handler(session: Session[AppSession]) -> Response[str]:
        return Response(str(session.exists), headers={"cache-control": "public, max-age=3600", "vary": "Accept"})

    async with client_of(make_app(handler)) as client:
        anonymous = await client.get("/cached-by-mistake")
        assert anonymous.headers["vary"] == "Accept, Cookie"
        await client.post("/login/alice")
        answer = await client.get("/cached-by-mistake")
        assert answer.headers.get_list("cache-control") == ["private, no-store"]


@pytest.mark.attack("59")
@pytest.mark.attack("asvs-14.2.2")
async def test_the_response_cache_never_serves_another_visitors_page() -> None:
    @get("/cached", cache=60)
    async def handler(session: Session[AppSession]) -> int:
        session.data.visits += 1
        return session.data.visits

    app = make_app(handler)
    async with client_of(app) as first, client_of(app) as second:
        assert "set-cookie" in (await first.get("/cached")).headers
        await first.get("/cached")
        answer = await second.get("/cached")
        assert answer.text == "1"
        assert answer.headers["set-cookie"].partition(";")[0] != f"session-8000={cookie_of(first)}"


async def test_errors_after_a_login_still_carry_the_new_cookie() -> None:
    @get("/login-then-fail")
    async def handler(session: Session[AppSession]) -> None:
        await session.login(ALICE)
        raise NotFoundException

    @get("/login-then-crash")
    async def crash(session: Session[AppSession]) -> None:
        await session.login(ALICE)
        msg = "crash"
        raise RuntimeError(msg)

    async with client_of(make_app(handler, crash)) as client:
        for path, status in (("/login-then-fail", 404), ("/login-then-crash", 500)):
            answer = await client.get(path)
            assert answer.status_code == status
            assert "set-cookie" in answer.headers
            assert (await client.get("/read")).json()["subject"] == "alice"


@pytest.mark.attack("60")
@pytest.mark.attack("asvs-3.5.1")
@pytest.mark.attack("asvs-3.5.2")
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "none", "origin": "null"},
        {"sec-fetch-site": "none", "origin": "http://localhost:8001"},
        {"sec-fetch-site": "same-site", "origin": "http://localhost:8000"},
        {"sec-fetch-site": "same-origin", "origin": "null, null"},
    ],
)
async def test_another_site_cannot_change_state(headers: dict[str, str]) -> None:
    recorder = Recorder()
    async with client_of(make_app(on_event=[recorder])) as client:
        await client.post("/login/alice")
        for method, path in (("POST", "/visit"), ("POST", "/logout"), ("PATCH", "/assign"), ("DELETE", "/sessions")):
            answer = await client.request(method, path, headers=headers, json={} if method == "PATCH" else None)
            assert answer.status_code == 403
            assert answer.json()["code"] == "cross_site_request"
        assert (await client.get("/read", headers=headers)).json()["subject"] == "alice"
    assert recorder.names.count("request.cross_site") == 4


async def test_same_origin_pages_and_programs_can_change_state(clock: FakeClock) -> None:
    async with client_of(make_app(clock=clock, trusted_origins=("https://admin.example",))) as client:
        for headers in (
            {"sec-fetch-site": "same-origin"},
            {"sec-fetch-site": "same-origin", "origin": "null"},
            {"sec-fetch-site": "none", "origin": "http://localhost:8000"},
            {"sec-fetch-site": "same-site", "origin": "https://admin.example"},
            {"origin": "http://localhost:8000"},
            {},
            {"origin": "https://admin.example"},
        ):
            assert (await client.post("/visit", headers=headers)).status_code == 201


@pytest.mark.attack("50")
@pytest.mark.attack("asvs-7.2.1")
async def test_a_cookie_with_any_byte_flipped_is_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        cookie = cookie_of(client) or ""

    async def refuse(key: str) -> None:
        raise AssertionError(key)

    monkeypatch.setattr(plugin_in(app).store.inner, "load", refuse)
    for position, character in enumerate(cookie):
        for other in {"A", "b", "0", "%", "."} - {character}:
            forged = cookie[:position] + other + cookie[position + 1 :]
            async with client_of(app, headers={"cookie": f"session-8000={forged}"}) as client:
                answer = await client.get("/read")
                assert (answer.status_code, answer.json()["exists"]) == (200, False)


@pytest.mark.attack("52")
@pytest.mark.attack("asvs-14.2.1")
async def test_ids_outside_the_cookie_are_ignored() -> None:
    app = make_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        cookie = cookie_of(client) or ""
    async with client_of(app) as client:
        answer = await client.get(
            "/read", params={"session-8000": cookie, "sid": cookie}, headers={"x-session": cookie, "authorization": cookie}
        )
        assert answer.json()["exists"] is False


@pytest.mark.attack("50")
async def test_a_cookie_signed_for_another_purpose_opens_no_session() -> None:
    from session_core.cookies import CookieSigner

    app = make_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        session_id = (cookie_of(client) or "").removeprefix("s%3A").partition(".")[0]
    other = CookieSigner.for_cookie("theme", plugin_in(app).config.secrets).sign(session_id)
    async with client_of(app, headers={"cookie": f"session-8000={other.replace(':', '%3A')}"}) as client:
        assert (await client.get("/read")).json()["exists"] is False


@pytest.mark.attack("54")
@pytest.mark.parametrize("size", [9_000, 65_536])
async def test_an_oversized_cookie_is_anonymous(size: int) -> None:
    async with client_of(make_app(), headers={"cookie": "session-8000=" + "s" * size}) as client:
        assert (await client.get("/read")).json()["exists"] is False


@pytest.mark.attack("asvs-14.2.4")
async def test_the_log_contains_no_secret(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    app = make_app(on_event=[recorder], max_sessions_per_user=1)
    secrets = [new_session_id()]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("session_core").debug("listened to")
        async with client_of(app, headers={"cookie": f"session-8000=s%3A{secrets[0]}.forged"}) as client:
            await client.get("/read")
        async with client_of(app) as client:
            for path in ("/visit", "/login/alice", "/regenerate", "/login/bob", "/logout", "/visit"):
                await client.post(path)
                if cookie := cookie_of(client):
                    secrets += [cookie, cookie.removeprefix("s%3A").partition(".")[0], cookie.partition(".")[2]]
            secrets += [session_key(secret) for secret in secrets if len(secret) == 46]
            await plugin_in(app).events.emit("session.created", handle=handle_of(session_key(secrets[0])))
    captured = capsys.readouterr()
    # The client's debug log shows headers; only the library's records count.
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore")))
    haystack = captured.out + captured.err + ours + repr(recorder.events) + repr(plugin_in(app).config)
    assert len(secrets) > 10
    assert "listened to" in ours
    assert [secret for secret in secrets if secret and secret in haystack] == []


async def test_a_guarantee_the_store_cannot_keep_is_refused_at_start() -> None:
    class Weak(MemoryStore):
        capabilities = StoreCapabilities(atomic=False, indexed=True, shared=True, durable=True, native_expiry=True)

    recorder = Recorder()
    with pytest.raises(ConfigurationError, match="max_sessions_per_user"):
        make_app(store=Weak(), max_sessions_per_user=3)
    app = make_app(store=Weak(), on_event=[recorder])
    async with app.lifespan():
        assert [event.reason for event in recorder.events if event.name == "store.weak"] == ["no_compare_and_swap"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"store": "nonsense://x"}, "no session store matches"),
        ({"store": "memory"}, "no session store matches"),
        ({"secrets": ("short",)}, "32"),
        ({"public_url": "ftp://example.org"}, "public URL"),
        ({"max_sessions_per_user": -1}, "max_sessions_per_user"),
        ({"store_timeout": 0}, "store_timeout"),
        ({"on_conflict": "whatever"}, "on_conflict"),
    ],
)
def test_an_invalid_setting_is_refused_by_name(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        make_app(**options)


def test_contradictory_timeouts_are_refused() -> None:
    for values in ({"idle": 0}, {"absolute": -1}, {"idle": 0, "absolute": 10}, {"touch_interval": -1}):
        with pytest.raises(ConfigurationError):
            Timeouts(**values)


def test_data_without_defaults_is_refused() -> None:
    import msgspec

    class Needs(msgspec.Struct):
        name: str

    class Tagged(msgspec.Struct, tag=True):
        name: str = ""

    class Wrong(msgspec.Struct):
        count: int = "none"  # type: ignore[assignment]

    for data_type in (Needs, Tagged, Wrong, dict):
        with pytest.raises(ConfigurationError):
            SessionConfig(data_type)  # type: ignore[type-var]
    assert make_config().codec.fresh() == AppSession()


async def test_the_sweeper_stops_with_the_application(clock: FakeClock) -> None:
    app: Litestar = make_app(clock=clock, sweep_interval=1000)
    async with app.lifespan():
        running = {task for task in asyncio.all_tasks() if "_sweep" in repr(task)}
        assert len(running) == 1
    assert all(task.done() for task in running)
