"""The features of the JavaScript original (A1-A14), as its user would use them here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from litestar import Litestar, get, post

from session_core import (
    ConfigurationError,
    CookieConfig,
    Identity,
    Session,
    SessionConfig,
    SessionHandle,
    SessionPlugin,
    Timeouts,
    errors,
    open_store,
)
from session_core.cookies import sign_cookie, unsign_cookie
from session_core.guards import requires_login, requires_role
from session_core.oidc import BatchRefresh, local_return_to
from session_core.stores.document.store import DocumentStore
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import World
from tests.support.sessions import SECRET, AppSession, Recorder, client_of, make_app, plugin_in

pytestmark = pytest.mark.anyio
OLD_SECRET = "fedcba9876543210fedcba9876543210-older"


class TestA1UseSession:
    """The cookie is verified and the session loaded, or a new one starts."""

    async def test_a_visitor_gets_fresh_data_without_a_store_call(self) -> None:
        app = make_app()
        async with client_of(app) as client:
            answer = await client.get("/read")
        assert answer.json() == {"data": msgspec.to_builtins(AppSession()), "subject": None, "exists": False}
        assert "set-cookie" not in answer.headers
        assert (await plugin_in(app).sessions.stats()).total == 0

    async def test_a_session_continues_and_a_forged_cookie_is_a_visitor(self) -> None:
        async with client_of(make_app()) as client:
            await client.post("/visit")
            assert (await client.get("/read")).json()["data"]["visits"] == 1
            name, value = next(iter(client.cookies.items()))
            forged = {"cookie": f"{name}={value[:-1]}x"}
            client.cookies.clear()
            assert (await client.get("/read", headers=forged)).json()["exists"] is False


class TestA2GetSession:
    """Typed and without await: the session is loaded before the handler runs."""

    async def test_the_data_is_the_struct(self) -> None:
        seen: list[AppSession] = []

        @get("/typed")
        async def typed(session: Session[AppSession]) -> None:
            seen.append(session.data)

        async with client_of(make_app(typed)) as client:
            await client.get("/typed")
        assert seen == [AppSession()]


class TestA3RefetchSession:
    async def test_reload_reads_another_requests_write(self) -> None:
        @post("/reload")
        async def reload(session: Session[AppSession]) -> dict[str, int]:
            before = session.data.visits
            other: SessionHandle[AppSession] = SessionHandle(plugin_in(app).lifecycle, session.source)
            await other.load()
            await other.update(visits=7)
            return {"before": before, "after": (await session.reload()).visits}

        app = make_app(reload)
        async with client_of(app) as client:
            await client.post("/visit")
            assert (await client.post("/reload")).json() == {"before": 1, "after": 7}


class TestA4UpdateSession:
    async def test_a_partial_update_is_merged_and_durable(self) -> None:
        @post("/partial")
        async def partial(session: Session[AppSession]) -> dict[str, Any]:
            await session.update(note="kept")

            def empty(data: AppSession) -> None:
                data.visits += 1
                data.cart.clear()  # it can remove values too

            return msgspec.to_builtins(await session.update(empty))  # type: ignore[no-any-return]

        async with client_of(make_app(partial)) as client:
            await client.patch("/assign", json={"add": "tea"})
            answer = await client.post("/partial")
            assert answer.json() == {**msgspec.to_builtins(AppSession()), "note": "kept", "visits": 1}
            assert (await client.get("/read")).json()["data"] == answer.json()


class TestA5DestroySession:
    async def test_the_session_and_the_cookie_are_deleted(self) -> None:
        app = make_app()
        async with client_of(app) as client:
            begun = (await client.post("/visit")).headers["set-cookie"]
            ended = (await client.post("/logout")).headers["set-cookie"]
            assert (await plugin_in(app).sessions.stats()).total == 0
            assert not client.cookies
            assert (await client.post("/logout")).status_code == 201  # no error without a session

        def attributes(header: str) -> set[str]:
            return {part for part in header.split("; ")[1:] if not part.startswith(("Max-Age", "Expires"))}

        assert attributes(begun) == attributes(ended)


class TestA6RegenerateSession:
    async def test_a_new_id_keeps_the_data_and_invalidates_the_old_one(self) -> None:
        async with client_of(make_app()) as client:
            await client.post("/visit")
            name, old = next(iter(client.cookies.items()))
            await client.post("/regenerate")
            assert client.cookies[name] != old
            assert (await client.get("/read")).json()["data"]["visits"] == 1
            client.cookies.clear()
            assert (await client.get("/read", headers={"cookie": f"{name}={old}"})).json()["exists"] is False


class TestA7CreateStore:
    def test_a_url_opens_a_store(self) -> None:
        assert isinstance(open_store("memory://"), MemoryStore)
        with pytest.raises(ConfigurationError, match="no session store answers to"):
            open_store("carrier-pigeon://loft")


class TestA8SignCookie:
    def test_values_are_signed_as_by_cookie_signature(self) -> None:
        """A vector of Node's `cookie-signature`: `s:` and the value, a dot, the HMAC without padding."""
        signed = sign_cookie("hello", "tobiiscool")
        assert signed == "s:hello.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI"
        assert unsign_cookie(signed, ["tobiiscool"]) is not None
        assert unsign_cookie(signed[:-1] + "J", ["tobiiscool"]) is None

    def test_an_older_secret_still_verifies(self) -> None:
        signed = sign_cookie("hello", OLD_SECRET)
        found = unsign_cookie(signed, [SECRET, OLD_SECRET])
        assert found is not None
        assert unsign_cookie(signed, [SECRET]) is None


class TestA9Config:
    async def test_every_option_of_the_original_exists(self) -> None:
        config = SessionConfig(
            AppSession,
            store="memory://",
            secrets=[SECRET, OLD_SECRET],
            cookie=CookieConfig(name="sid", path="/", same_site="strict"),
            timeouts=Timeouts(idle=600, absolute=1200),
            default_factory=lambda: AppSession(theme="dark"),
            sweep_interval=0,
        )
        async with client_of(make_app(config=config)) as client:
            assert (await client.get("/read")).json()["data"]["theme"] == "dark"
            header = (await client.post("/visit")).headers["set-cookie"]
        assert header.startswith("sid=")
        assert header.partition("; ")[2].split("; ") == ["Max-Age=1200", "Path=/", "HttpOnly", "SameSite=Strict"]


class TestA10Drivers:
    @pytest.mark.parametrize(
        "url",
        [
            "memory://",
            "file:///var/lib/sessions",
            "redis://localhost",
            "redis+cluster://localhost",
            "https://unstorage.example/base",
            "cloudflare-kv://:token@account/namespace",
            "mysql+asyncmy://user@db.example/app",
            "postgresql+asyncpg://user@db.example/app",
        ],
    )
    def test_each_of_its_drivers_has_a_url(self, url: str) -> None:
        store = open_store(url)
        assert store.capabilities.shared is not None
        assert isinstance(store, DocumentStore) is url.startswith(("https", "cloudflare"))


class TestA11ErrorCodes:
    def test_every_error_has_a_stable_code(self) -> None:
        kinds = [getattr(errors, name) for name in errors.__all__]
        assert all(issubclass(kind, errors.SessionCoreError) and kind.code for kind in kinds)
        assert {"store_unavailable", "session_conflict", "session_gone", "session_data"} <= {kind.code for kind in kinds}


class TestA12ItsLimits:
    """Limits of the original: expiry on the server, locking, and a working memory driver."""

    async def test_a_session_expires_on_the_server(self, clock: FakeClock) -> None:
        app = make_app(clock=clock)
        async with client_of(app) as client:
            await client.post("/visit")
            clock.advance(hours=2)
            assert (await client.get("/read")).json()["exists"] is False
        await plugin_in(app).sessions.prune()
        assert (await plugin_in(app).sessions.stats()).total == 0


class TestA13Auth:
    async def test_log_in_read_the_user_and_log_out(self) -> None:
        world = World()
        assert (await world.login(next="/read")).headers["location"] == "/read"
        assert await world.subject() == "alice"
        assert (await world.browser.get("/auth/session")).json()["authenticated"] is True
        await world.browser.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
        assert await world.subject() is None

    @pytest.mark.parametrize("target", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"])
    def test_a_redirect_to_another_site_is_refused(self, target: str) -> None:
        assert local_return_to(target) == "/"

    async def test_the_application_maps_the_user(self) -> None:
        async def on_login(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> Any:
            def change(data: AppSession) -> None:
                data.note = f"user {identity.subject}"

            return change

        world = World(on_login=on_login)
        await world.login()
        assert (await world.browser.get("/read")).json()["data"]["note"] == "user alice"

    async def test_a_limit_of_one_session_per_user(self) -> None:
        app = make_app(max_sessions_per_user=1)
        async with client_of(app) as first, client_of(app) as second:
            await first.post("/login/alice")
            await second.post("/login/alice")
            assert (await first.get("/read")).json()["subject"] is None
            assert (await second.get("/read")).json()["subject"] == "alice"

    async def test_a_gate_with_open_routes_and_a_role(self) -> None:
        @get("/open", opt={"exclude_from_auth": True})
        async def opened() -> None: ...

        @get("/closed")
        async def closed() -> None: ...

        @get("/admin", guards=[requires_role("admin")])
        async def admin() -> None: ...

        @post("/enter", opt={"exclude_from_auth": True})
        async def enter(session: Session[AppSession]) -> None:
            await session.login(Identity(issuer="https://op.example", subject="alice"))

        config = SessionConfig(AppSession, secrets=(SECRET,), sweep_interval=0)
        app = Litestar(
            [opened, closed, admin, enter], guards=[requires_login], plugins=[SessionPlugin(config)], logging_config=None
        )
        async with client_of(app) as client:
            assert [(await client.get(path)).status_code for path in ("/open", "/closed", "/admin")] == [200, 401, 401]
            await client.post("/enter")
            assert [(await client.get(path)).status_code for path in ("/open", "/closed", "/admin")] == [200, 200, 403]

    async def test_tokens_are_refreshed_in_a_batch_by_key(self) -> None:
        world = World(batch_refresh=BatchRefresh(key="k" * 32))
        await world.login()
        refused = await world.browser.post("/auth/refresh-tokens", headers={"authorization": "Bearer wrong"})
        done = await world.browser.post("/auth/refresh-tokens", headers={"authorization": f"Bearer {'k' * 32}"})
        assert (refused.status_code, done.status_code) == (401, 200)


class TestA14Logging:
    async def test_events_and_logs_contain_no_id(self) -> None:
        recorder = Recorder()
        async with client_of(make_app(on_event=[recorder])) as client:
            await client.post("/login/alice")
            value = next(iter(client.cookies.values()))
        assert recorder.names == ["session.created", "login.succeeded"]
        session_id = value.partition(".")[0].removeprefix("s%3A").removeprefix("s:")
        told = json.dumps([msgspec.to_builtins(event) for event in recorder.events])
        assert session_id not in told

    def test_the_library_logs_structured_lines(self) -> None:
        code = "import session_core.events, structlog; print(structlog.get_logger('session_core') is not None)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
