"""The features of the JavaScript original (A1-A14), as its user would use them here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
import pytest
from litestar import Litestar, get, post
from litestar.params import FromQuery
from structlog.testing import capture_logs

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
from session_core.cookies.encoding import encode_component
from session_core.guards import requires_login, requires_role
from session_core.oidc import BatchRefresh, local_return_to
from session_core.stores.document.store import DocumentStore
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GET_PAGE, World
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
        with pytest.raises(ConfigurationError, match="no session store matches"):
            open_store("carrier-pigeon://loft")


class TestA8SignCookie:
    def test_values_are_signed_as_by_cookie_signature(self) -> None:
        """A vector of Node's `cookie-signature`: `s:` and the value, a dot, the HMAC without padding."""
        signed = sign_cookie("hello", "tobiiscool")
        assert signed == "s:hello.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI"
        found = unsign_cookie(signed, ["tobiiscool"])
        assert found is not None
        assert (found.value, found.by_first_secret) == ("hello", True)
        assert unsign_cookie(signed[:-1] + "J", ["tobiiscool"]) is None

    def test_an_older_secret_still_verifies(self) -> None:
        signed = sign_cookie("hello", OLD_SECRET)
        found = unsign_cookie(signed, [SECRET, OLD_SECRET])
        assert found is not None
        assert (found.value, found.by_first_secret) == ("hello", False)
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

    def test_every_attribute_of_its_cookie_can_be_set(self) -> None:
        cookie = CookieConfig(
            name="sid", domain="example.com", path="/shop", secure=True, http_only=False, same_site="lax", persistent=False
        )
        header = cookie.resolve("https://www.example.com").set_header("value", 60).decode()
        assert set(header.split("; ")) == {"sid=value", "Domain=example.com", "Path=/shop", "Secure", "SameSite=Lax"}


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
            "mongodb://db.example/app",
            "azure-tables://sessions",
            "s3://bucket/sessions",
            "dynamodb://sessions",
            "memcached://cache.example",
            "rediss://default:token@kv-1.kv.vercel-storage.com:34567",
            "mysql://name:pscale_pw_secret@aws.connect.psdb.cloud/shop?sslaccept=strict",
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

    async def test_no_write_of_two_at_once_is_lost(self) -> None:
        async with client_of(make_app()) as client:
            await client.post("/visit")
            answers = await asyncio.gather(*(client.post("/visit") for _ in range(50)))
            assert sorted(answer.json()["visits"] for answer in answers) == list(range(2, 52))

    async def test_two_values_for_one_field_are_a_conflict(self) -> None:
        @post("/slow")
        async def slow(session: Session[AppSession]) -> None:
            session.data.note = "slow"
            reached.set()
            await other_is_done.wait()

        reached, other_is_done = asyncio.Event(), asyncio.Event()
        async with client_of(make_app(slow)) as client:
            await client.post("/visit")
            waiting = asyncio.create_task(client.post("/slow"))
            await reached.wait()
            assert (await client.patch("/assign", json={"note": "quick"})).status_code == 200
            other_is_done.set()
            assert (await waiting).status_code == 409
            assert (await client.get("/read")).json()["data"]["note"] == "quick"

    async def test_the_memory_driver_works(self) -> None:
        app = make_app(store="memory://")
        async with client_of(app) as client, client_of(app) as other:
            assert [(await each.post("/visit")).json()["visits"] for each in (client, client, other)] == [1, 2, 1]


class TestA13Auth:
    async def test_log_in_read_the_user_and_log_out(self) -> None:
        world = World()
        assert (await world.login(next="/read")).headers["location"] == "/read"
        assert await world.subject() == "alice"
        assert (await world.browser.get("/auth/session")).json()["authenticated"] is True
        await world.browser.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
        assert await world.subject() is None

    async def test_a_silent_provider_is_a_timeout(self) -> None:
        async def silence(request: httpx2.Request) -> httpx2.Response:
            await asyncio.Event().wait()
            return httpx2.Response(200)

        world = World(http_timeout_seconds=0.05)
        world.op.replies["/.well-known/openid-configuration"] = silence
        answer = await world.browser.get("/auth/login", headers=GET_PAGE)
        assert (answer.status_code, "set-cookie" in answer.headers) == (503, False)
        assert [event.reason for event in world.events if event.name == "login.failed"] == ["discovery_timeout"]
        assert (await world.browser.get("/read")).status_code == 200

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
        async def enter(session: Session[AppSession], role: FromQuery[str] = "user") -> None:
            await session.login(Identity(issuer="https://op.example", subject="alice"))
            await session.update(roles=[role])

        config = SessionConfig(AppSession, secrets=(SECRET,), sweep_interval=0)
        app = Litestar(
            [opened, closed, admin, enter], guards=[requires_login], plugins=[SessionPlugin(config)], logging_config=None
        )
        async with client_of(app) as client:
            assert [(await client.get(path)).status_code for path in ("/open", "/closed", "/admin")] == [200, 401, 401]
            await client.post("/enter")
            assert [(await client.get(path)).status_code for path in ("/open", "/closed", "/admin")] == [200, 200, 403]
            await client.post("/enter?role=admin")
            assert [(await client.get(path)).status_code for path in ("/open", "/closed", "/admin")] == [200, 200, 200]

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

    async def test_the_log_has_structured_lines_without_secrets(self) -> None:
        with capture_logs() as logs:
            async with client_of(make_app()) as client:
                await client.post("/login/alice")
                value = next(iter(client.cookies.values()))
                forged = encode_component(sign_cookie("forged", OLD_SECRET))
                await client.get("/read", headers={"cookie": f"session-8000={forged}"})
        assert [line["event"] for line in logs] == ["session.created", "login.succeeded", "cookie.rejected"]
        assert (logs[0]["log_level"], logs[2]["log_level"], logs[2]["reason"]) == ("info", "warning", "bad_signature")
        assert logs[0]["user"] == Identity(issuer="https://op.example", subject="alice").user_key
        told = json.dumps(logs, default=str)
        assert all(part not in told for part in (value, value.partition(".")[0].removeprefix("s%3A"), "alice"))
