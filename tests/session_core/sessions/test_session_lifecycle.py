"""A session over HTTP: starts with the first write, is typed, changes its id, ends."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import Litestar, post

from session_core import CookieConfig, Identity, Session, Timeouts, open_store
from session_core.ids import session_key
from session_core.testing import FakeClock
from tests.support.sessions import SECRET, AppSession, Recorder, client_of, cookie_of, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def app(clock: FakeClock, recorder: Recorder) -> Litestar:
    return make_app(clock=clock, on_event=[recorder], timeouts=Timeouts(idle=600, absolute=3600, touch_interval=60))


async def test_a_visitor_without_data_costs_no_store_call(app: Litestar) -> None:
    async with client_of(app) as client:
        response = await client.get("/read")
        assert response.json() == {
            "data": {"theme": "light", "cart": [], "visits": 0, "note": "", "roles": []},
            "subject": None,
            "exists": False,
        }
        assert "set-cookie" not in response.headers
        assert response.headers["vary"] == "Cookie"
        assert "cache-control" not in response.headers
        assert (await plugin_in(app).sessions.stats()).total == 0


async def test_a_route_without_a_session_never_reads_one(app: Litestar, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client_of(app) as client:
        await client.post("/visit")

        async def refuse(key: str) -> None:
            raise AssertionError(key)

        monkeypatch.setattr(plugin_in(app).store.inner, "load", refuse)
        response = await client.get("/public")
        assert response.status_code == 200
        assert "vary" not in response.headers


async def test_the_first_write_starts_a_session(app: Litestar) -> None:
    async with client_of(app) as client:
        first = await client.post("/visit")
        assert first.json() == {"visits": 1}
        assert first.headers["cache-control"] == "private, no-store"
        cookie = first.headers["set-cookie"]
        assert cookie.startswith("session-8000=s%3A")
        assert {"HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=3600"} <= {part.strip() for part in cookie.split(";")}
        second = await client.post("/visit")
        assert second.json() == {"visits": 2}
        assert "set-cookie" not in second.headers
        assert (await client.get("/read")).json()["data"]["visits"] == 2


async def test_assignments_are_saved_nested_ones_too(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.patch("/assign", json={"theme": "dark"})
        await client.patch("/assign", json={"add": "book"})
        await client.patch("/assign", json={"add": "pen"})
        data = (await client.get("/read")).json()["data"]
        assert data["theme"] == "dark"
        assert data["cart"] == ["book", "pen"]


async def test_a_failed_handler_saves_nothing(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.post("/visit")
        assert (await client.get("/fails")).status_code == 500
        assert (await client.get("/read")).json()["data"]["note"] == ""


@pytest.mark.attack("38")
@pytest.mark.attack("asvs-7.2.4")
async def test_login_changes_the_id_and_keeps_the_visitors_data(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.patch("/assign", json={"add": "book"})
        planted = cookie_of(client)
        await client.post("/login/alice")
        assert cookie_of(client) not in {None, planted}
        session = (await client.get("/read")).json()
        assert (session["subject"], session["data"]["cart"]) == ("alice", ["book"])
        client.cookies.set("session-8000", planted or "", domain="localhost.local")
    async with client_of(app, cookies={"session-8000": planted or ""}) as thief:
        assert (await thief.get("/read")).json() == {
            "data": {"theme": "light", "cart": [], "visits": 0, "note": "", "roles": []},
            "subject": None,
            "exists": False,
        }


@pytest.mark.attack("38")
async def test_the_next_user_of_a_browser_inherits_nothing(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.post("/login/alice")
        await client.patch("/assign", json={"note": "alice's diary"})
        await client.post("/login/bob")
        session = (await client.get("/read")).json()
        assert (session["subject"], session["data"]["note"]) == ("bob", "")


@pytest.mark.attack("asvs-7.2.4")
async def test_logging_in_again_keeps_the_own_data(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.post("/login/alice")
        await client.patch("/assign", json={"note": "mine"})
        before = cookie_of(client)
        await client.post("/login/alice")
        assert cookie_of(client) != before
        assert (await client.get("/read")).json()["data"]["note"] == "mine"


@pytest.mark.attack("39")
async def test_regeneration_changes_the_id_only(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.post("/login/alice")
        await client.patch("/assign", json={"note": "kept"})
        old = cookie_of(client)
        await client.post("/regenerate")
        assert cookie_of(client) != old
        session = (await client.get("/read")).json()
        assert (session["subject"], session["data"]["note"]) == ("alice", "kept")
    async with client_of(app, cookies={"session-8000": old or ""}) as other:
        assert (await other.get("/read")).json()["exists"] is False


async def test_regeneration_without_a_session_stores_nothing(app: Litestar) -> None:
    async with client_of(app) as client:
        response = await client.post("/regenerate")
        assert response.status_code == 201
        assert "set-cookie" not in response.headers


@pytest.mark.attack("asvs-7.4.1")
async def test_logout_ends_the_session_and_deletes_the_cookie(app: Litestar) -> None:
    async with client_of(app) as client:
        created = await client.post("/login/alice")
        old = cookie_of(client)
        response = await client.post("/logout")
        assert response.headers["set-cookie"].startswith("session-8000=;")

        def attributes(header: str) -> set[str]:
            parts = {part.strip() for part in header.split(";")[1:]}
            return {part for part in parts if not part.startswith(("Max-Age", "Expires"))}

        assert attributes(response.headers["set-cookie"]) == attributes(created.headers["set-cookie"])
        assert cookie_of(client) is None
    async with client_of(app, cookies={"session-8000": old or ""}) as other:
        assert (await other.get("/read")).json()["subject"] is None


async def test_logout_without_a_session_is_no_error(app: Litestar) -> None:
    async with client_of(app) as client:
        assert (await client.post("/logout")).status_code == 201


@pytest.mark.attack("asvs-7.3.1")
@pytest.mark.attack("asvs-7.4.1")
async def test_the_idle_timeout_ends_an_unused_session(app: Litestar, clock: FakeClock) -> None:
    async with client_of(app) as client:
        await client.post("/login/alice")
        clock.advance(seconds=599)
        assert (await client.get("/read")).json()["subject"] == "alice"
        clock.advance(seconds=600)
        response = await client.get("/read")
        assert response.json()["subject"] is None
        assert "set-cookie" not in response.headers


@pytest.mark.attack("asvs-7.3.2")
@pytest.mark.attack("asvs-7.4.1")
async def test_the_absolute_timeout_ends_a_used_session(app: Litestar, clock: FakeClock) -> None:
    async with client_of(app) as client:
        await client.post("/login/alice")
        for _ in range(11):
            clock.advance(seconds=300)
            assert (await client.post("/visit")).status_code == 201
            assert (await client.get("/read")).json()["subject"] == "alice"
        clock.advance(seconds=300)
        assert (await client.get("/read")).json()["subject"] is None


async def test_reads_are_written_only_after_the_touch_interval(
    app: Litestar, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[int] = []
    store = plugin_in(app).store.inner
    touch = store.touch

    async def counting(key: str, expires_at: int) -> bool:
        touched.append(expires_at)
        return await touch(key, expires_at)

    monkeypatch.setattr(store, "touch", counting)
    async with client_of(app) as client:
        await client.post("/login/alice")
        for _ in range(6):
            clock.advance(seconds=20)
            await client.get("/read")
    assert len(touched) == 2


@pytest.mark.attack("38")
@pytest.mark.attack("asvs-7.2.1")
@pytest.mark.attack("asvs-7.2.2")
async def test_an_id_not_created_by_the_server_is_never_adopted(app: Litestar, recorder: Recorder) -> None:
    forged = plugin_in(app).config.signer.sign("A" * 46).replace(":", "%3A").replace("+", "%2B").replace("/", "%2F")
    async with client_of(app, cookies={"session-8000": forged}) as client:
        response = await client.post("/visit")
        assert response.json() == {"visits": 1}
        assert "A" * 46 not in response.headers["set-cookie"]
    assert "session.unknown" in recorder.names


@pytest.mark.attack("61")
async def test_an_undecodable_record_is_a_new_session(app: Litestar, recorder: Recorder) -> None:
    async with client_of(app) as client:
        await client.post("/login/alice")
        store = plugin_in(app).store.inner
        async for stored in store.scan():
            entry = type(stored.entry)(b"\x80\x04pickled", stored.entry.expires_at, stored.entry.user)
            await store.replace(stored.key, entry, version=stored.version)
        response = await client.get("/read")
        assert (response.status_code, response.json()["exists"]) == (200, False)
    assert "session.undecodable" in recorder.names


@pytest.mark.attack("51")
@pytest.mark.attack("asvs-11.2.2")
async def test_a_rotated_secret_signs_the_cookie_again(clock: FakeClock) -> None:
    store = open_store("memory://", clock=clock)
    old, new = SECRET, SECRET.replace("first", "second")
    async with client_of(make_app(clock=clock, store=store, secrets=(old,))) as client:
        await client.post("/login/alice")
        cookie = cookie_of(client) or ""
    recorder = Recorder()
    rotated = make_app(clock=clock, store=store, secrets=(new, old), on_event=[recorder])
    async with client_of(rotated, cookies={"session-8000": cookie}) as client:
        response = await client.get("/read")
        assert recorder.names == ["cookie.resigned"]
        assert response.json()["subject"] == "alice"
        resigned = response.headers["set-cookie"].partition(";")[0].removeprefix("session-8000=")
        assert resigned != cookie
        assert resigned.partition(".")[0] == cookie.partition(".")[0]
    async with client_of(make_app(clock=clock, store=store, secrets=(new,)), cookies={"session-8000": resigned}) as client:
        assert (await client.get("/read")).json()["subject"] == "alice"
    async with client_of(make_app(clock=clock, store=store, secrets=(new,)), cookies={"session-8000": cookie}) as client:
        assert (await client.get("/read")).json()["subject"] is None


@pytest.mark.attack("asvs-14.2.4")
async def test_the_store_never_receives_the_id(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.post("/login/alice")
        session_id = (cookie_of(client) or "").removeprefix("s%3A").partition(".")[0]
        stored = [record async for record in plugin_in(app).store.scan()]
    assert [record.key for record in stored] == [session_key(session_id)]
    assert session_id not in repr(stored)


async def test_a_logout_with_the_old_id_ends_the_session_for_the_length_of_a_request(app: Litestar, clock: FakeClock) -> None:
    """A logout sent before a regeneration that arrives a minute later must still end the session."""
    async with client_of(app) as client:
        await client.post("/visit")
        old = cookie_of(client)
        await client.post("/regenerate")
        clock.advance(seconds=60)
        async with client_of(app, cookies={"session-8000": old or ""}) as late:
            await late.post("/logout")
        assert (await client.get("/read")).json()["exists"] is False


DAY = 86_400


@pytest.mark.parametrize(
    ("idle", "absolute", "pause"),
    [(30 * DAY, 800 * DAY, 10), (500 * DAY, 800 * DAY, 390), (800 * DAY, 800 * DAY, 390), (800 * DAY, 800 * DAY, 1)],
)
@pytest.mark.parametrize("path", ["/read", "/visit"])
@pytest.mark.parametrize("of_the_login", [False, True])
async def test_a_session_that_outlives_400_days_gets_its_cookie_renewed(
    clock: FakeClock, idle: int, absolute: int, pause: int, path: str, of_the_login: bool
) -> None:
    clock.advance(seconds=3600)  # not at midnight
    long = Timeouts(idle=idle, absolute=absolute)

    @post("/remember")
    async def remember(session: Session[AppSession]) -> None:
        await session.login(Identity(issuer="https://op.example", subject="alice"), timeouts=long, persistent=True)

    options: dict[str, Any] = {"cookie": CookieConfig(persistent=False)} if of_the_login else {"timeouts": long}
    app = make_app(remember, clock=clock, **options)
    async with client_of(app) as client:
        begun = await client.post("/remember" if of_the_login else "/visit")
        assert "Max-Age=34560000" in begun.headers["set-cookie"]
        kept, given, days = 400, 0, 0
        while days + pause < absolute // DAY:
            days += pause
            clock.advance(seconds=pause * DAY)
            kept -= pause
            assert kept > 0, "the browser has forgotten the cookie"
            response = await (client.get(path) if path == "/read" else client.post(path))
            assert response.status_code < 300
            if "set-cookie" in response.headers:
                kept, given = 400, given + 1
            again = await (client.get(path) if path == "/read" else client.post(path))
            assert "set-cookie" not in again.headers or idle > 400 * DAY
        assert given


@pytest.mark.parametrize("idle", [30 * DAY, 500 * DAY])
async def test_a_session_shorter_than_400_days_sets_its_cookie_once(clock: FakeClock, idle: int) -> None:
    async with client_of(make_app(clock=clock, timeouts=Timeouts(idle=idle, absolute=400 * DAY))) as client:
        await client.post("/visit")
        for _ in range(30):
            clock.advance(seconds=10 * DAY)
            assert "set-cookie" not in (await client.get("/read")).headers


async def test_a_handle_names_its_session_without_the_secret_id(app: Litestar) -> None:
    handle = handle_on(plugin_in(app))
    assert repr(handle) == "<SessionHandle anonymous>"
    await handle.update(visits=1)
    assert repr(handle) == f"<SessionHandle {handle.handle}>"
    assert handle.handle is not None
    assert handle.session_id not in repr(handle)


async def test_a_handle_follows_its_session(app: Litestar, clock: FakeClock) -> None:
    """To the later expiry, and to the id that another request has given to the session."""
    first = handle_on(plugin_in(app))
    await first.update(visits=1)
    clock.advance(seconds=60)
    await first.extend()
    assert first.snapshot.expires_at == clock.now() + 600_000
    second = await handle_on(plugin_in(app), first.session_id).load()
    await second.regenerate()
    assert first.key != second.key
    await first.confirm()
    assert first.key == second.key
