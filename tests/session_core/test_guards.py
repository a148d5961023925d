"""Guards: access, redirects to the login, and no bypass by HEAD or OPTIONS."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from litestar import Controller, Litestar, MediaType, Request, Response, Router, WebSocket, get, post, route, websocket
from litestar.exceptions import NotAuthorizedException, WebSocketDisconnect
from litestar.params import FromQuery, JSONBody
from litestar.testing import TestClient

from session_core import ConfigurationError, Identity, Session, SessionHandle, SessionPlugin, session_of
from session_core.guards import (
    forbids_impersonation,
    requires,
    requires_acr,
    requires_login,
    requires_recent_login,
    requires_role,
)
from session_core.litestar.posture import routes_posture
from session_core.testing import FakeClock, logged_in_cookie
from tests.support.sessions import ALICE, ISSUER, AppSession, Recorder, client_of, make_app, make_config, plugin_in

pytestmark = pytest.mark.anyio


@route("/member", http_method=["GET", "HEAD"], guards=[requires_login], media_type=MediaType.TEXT)
async def member() -> Response[str]:
    return Response("member")


@post("/member", guards=[requires_login])
async def member_post() -> None: ...


@get("/gold", guards=[requires(AppSession, lambda session: "gold" in session.data.roles)])
async def gold() -> str:
    return "gold"


@get("/admin", guards=[requires_role("admin", "root")])
async def admin() -> str:
    return "admin"


@get("/recent", guards=[requires_recent_login(minutes=5)])
async def recent() -> str:
    return "recent"


@get("/strong", guards=[requires_acr("phr", "phrh")])
async def strong() -> str:
    return "strong"


@post("/enter")
async def enter(session: Session[AppSession], auth_time: FromQuery[int | None] = None, acr: FromQuery[str | None] = None) -> None:
    await session.login(Identity(issuer=ISSUER, subject="alice", auth_time=auth_time, acr=acr))


@post("/roles")
async def set_roles(session: Session[AppSession], data: JSONBody[list[str]]) -> None:
    await session.update(roles=data)


@websocket("/ws", guards=[requires_login])
async def ws(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    await socket.accept()
    await socket.send_text(session.identity.subject if session.identity else "")
    await socket.close()


GUARDED = [member, member_post, gold, admin, recent, strong, ws, enter, set_roles]
PAGE = {"accept": "text/html,application/xhtml+xml", "sec-fetch-mode": "navigate"}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def app(clock: FakeClock, recorder: Recorder) -> Litestar:
    return make_app(*GUARDED, clock=clock, on_event=[recorder])


@pytest.mark.parametrize("path", ["/member", "/gold", "/admin", "/recent", "/strong"])
async def test_a_program_that_is_not_logged_in_gets_401(app: Litestar, path: str) -> None:
    async with client_of(app) as client:
        answer = await client.get(path)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json() == {"type": "about:blank", "title": "Login required", "status": 401, "code": "login_required"}
        assert "set-cookie" not in answer.headers


async def test_a_browser_is_sent_to_the_login_and_returns(app: Litestar) -> None:
    async with client_of(app) as client:
        answer = await client.get("/member?page=2&q=a%20b", headers=PAGE)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/auth/login?next=%2Fmember%3Fpage%3D2%26q%3Da%2520b&page=1"


async def test_a_browsers_form_returns_to_its_page(app: Litestar) -> None:
    async with client_of(app) as client:
        ours = {**PAGE, "referer": "http://localhost:8000/basket?x=1"}
        answer = await client.post("/member", headers=ours)
        assert answer.headers["location"] == "/auth/login?next=%2Fbasket%3Fx%3D1&unsent=1&page=1"
        theirs = {**PAGE, "referer": "https://evil.example/basket"}
        answer = await client.post("/member", headers=theirs)
        assert answer.headers["location"] == "/auth/login?next=%2F&unsent=1&page=1"


async def test_an_own_script_gets_401_not_a_redirect(app: Litestar) -> None:
    async with client_of(app) as client:
        headers = {"accept": "text/html", "sec-fetch-mode": "cors"}
        assert (await client.get("/member", headers=headers)).status_code == 401


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_head_does_not_bypass_a_guard(app: Litestar, method: str) -> None:
    async with client_of(app) as client:
        assert (await client.request(method, "/member")).status_code == 401
        await client.post("/login/alice")
        assert (await client.request(method, "/member")).status_code == 200


async def test_options_returns_the_methods_only(app: Litestar) -> None:
    async with client_of(app) as client:
        answer = await client.options("/member")
        assert answer.content == b""
        assert "member" not in answer.text


async def test_the_predicate_sees_the_typed_session(app: Litestar, recorder: Recorder) -> None:
    async with client_of(app) as client:
        await client.post("/login/alice")
        assert (await client.get("/gold")).status_code == 403
        await client.post("/roles", json=["gold"])
        assert (await client.get("/gold")).text == "gold"
    assert recorder.names.count("access.denied") == 1


def test_a_predicate_for_other_data_is_refused_when_the_application_is_built() -> None:
    class Other(AppSession):
        pass

    @get("/other", guards=[requires(Other, lambda _: True)])
    async def other() -> None: ...

    with pytest.raises(ConfigurationError, match=r"other .*requires\(Other"):
        make_app(other)


@pytest.mark.attack("63")
async def test_a_removed_role_is_gone_on_the_next_request() -> None:
    roles = {"admin"}

    async def resolve(session: SessionHandle[Any]) -> set[str]:
        assert session.identity is not None
        return roles

    async with client_of(make_app(*GUARDED, roles=resolve)) as client:
        await client.post("/login/alice")
        assert (await client.get("/admin")).status_code == 200
        roles.clear()
        assert (await client.get("/admin")).status_code == 403


@pytest.mark.attack("63")
async def test_a_disabled_user_is_refused_on_the_next_request() -> None:
    active = True

    async def is_active(identity: Identity) -> bool:
        assert identity.subject == "alice"
        return active

    async with client_of(make_app(*GUARDED, is_active=is_active)) as client:
        await client.post("/login/alice")
        assert (await client.get("/member")).status_code == 200
        active = False
        assert (await client.get("/member")).status_code == 403


@pytest.mark.attack("asvs-7.5.3")
async def test_an_old_login_must_be_renewed(app: Litestar, clock: FakeClock) -> None:
    async with client_of(app) as client:
        await client.post("/enter", params={"auth_time": clock.now() // 1000})
        clock.advance(minutes=5)
        assert (await client.get("/recent")).status_code == 200
        clock.advance(seconds=1)
        answer = await client.get("/recent")
        assert (answer.status_code, answer.json()["code"], answer.json()["max_age"]) == (401, "step_up_required", 300)
        page = await client.get("/recent", headers=PAGE)
        assert page.headers["location"] == "/auth/login?next=%2Frecent&max_age=240&page=1"


@pytest.mark.attack("asvs-7.6.1")
async def test_an_unknown_login_time_is_not_recent(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.post("/enter")
        assert (await client.get("/recent")).status_code == 401


@pytest.mark.attack("asvs-6.8.4")
async def test_a_weak_login_must_be_strengthened(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.post("/enter", params={"acr": "0"})
        page = await client.get("/strong", headers=PAGE)
        assert page.headers["location"] == "/auth/login?next=%2Fstrong&acr_values=phr%20phrh&page=1"
        await client.post("/enter", params={"acr": "phr"})
        assert (await client.get("/strong")).status_code == 200


def test_a_websocket_is_guarded_and_gets_the_session(app: Litestar) -> None:
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/ws"):
            pass
        assert refused.value.code == 4401
        client.post("/login/alice")
        with client.websocket_connect("/ws") as socket:
            assert socket.receive_text() == "alice"


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "none", "origin": "null"}, {"sec-fetch-site": "none"}]
)
def test_a_websocket_of_another_site_is_refused(app: Litestar, recorder: Recorder, headers: dict[str, str]) -> None:
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        client.post("/login/alice")
        with (
            pytest.raises(WebSocketDisconnect) as refused,
            client.websocket_connect("/ws", headers=headers),
        ):
            pass
        assert refused.value.code == 4403
    assert "request.cross_site" in recorder.names


async def test_reading_the_session_without_the_plugin_is_an_error() -> None:
    @get("/asks")
    async def asks(request: Request[Any, Any, Any]) -> None:
        await session_of(request)

    async with client_of(make_app(asks)) as client:
        assert (await client.get("/asks")).status_code == 500


@pytest.mark.parametrize("make", [requires_role, requires_acr, requires_recent_login])
def test_an_ineffective_guard_is_refused(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


# -- guards on the whole application, and exempt routes


class Area(Controller):
    path = "/area"
    opt = {"exclude_from_auth": True}  # noqa: RUF012 - Litestar copies it

    @get("/open")
    async def open_area(self) -> str:
        return "open"

    @get("/closed", opt={"exclude_from_auth": False})
    async def closed_area(self) -> str:
        return "closed"


@get("/open", opt={"exclude_from_auth": True}, cache=True)
async def open_handler() -> str:
    return "open"


@get("/typo", opt={"exclude_from_auth": "false"})
async def mistaken_option() -> str:
    return "closed"


@get("/closed", guards=[requires_role("admin")])
async def closed_handler() -> str:
    return "closed"


@websocket("/open-ws", opt={"exclude_from_auth": True})
async def open_socket(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close()


async def never(connection: Any, handler: Any) -> None:
    raise NotAuthorizedException


def gated(*guards: Any) -> Litestar:
    routes = Router("/router", route_handlers=[open_handler], opt={"exclude_from_auth": True})
    closed = Router("/router-closed", route_handlers=[closed_handler])
    handlers = [open_handler, Area, routes, closed, mistaken_option, open_socket]
    plugins = [SessionPlugin(make_config())]
    return Litestar(handlers, guards=list(guards), plugins=plugins, openapi_config=None, logging_config=None)


async def test_guards_on_the_application_exempt_open_routes() -> None:
    app = gated(requires_login)
    async with client_of(app) as client:
        for path, status in {
            "/open": 200, "/area/open": 200, "/area/closed": 401, "/router/open": 200, "/router-closed/closed": 401, "/typo": 401,
            "/nowhere": 404,
        }.items():  # fmt: skip
            assert (await client.get(path)).status_code == status, path


def test_guards_on_the_application_exempt_open_websockets() -> None:
    with (
        TestClient(gated(requires_login), base_url="http://127.0.0.1:8000") as client,
        client.websocket_connect("/open-ws") as socket,
        pytest.raises(WebSocketDisconnect),
    ):
        socket.receive_text()


async def test_an_open_route_loads_no_session_and_stays_cacheable(monkeypatch: pytest.MonkeyPatch) -> None:
    app = gated(requires_login)
    async with client_of(app) as client:
        client.headers["cookie"] = "=".join(await logged_in_cookie(app, ALICE))

        async def none(*_: Any) -> None:
            pytest.fail("the store was asked")

        monkeypatch.setattr(plugin_in(app).store.inner, "load", none)
        answer = await client.get("/open")
        assert (answer.status_code, "vary" in answer.headers) == (200, False)
    handler = next(handler for route in app.routes if route.path == "/open" for handler in route.route_handlers)  # type: ignore[union-attr]
    assert handler.cache is True


async def test_an_open_route_still_has_its_other_guards() -> None:
    async with client_of(gated(requires_login, never)) as client:
        assert (await client.get("/open")).status_code == 401


def test_the_route_table_shows_inherited_guards_and_open_routes() -> None:
    rows = {row.path: row.guards for row in routes_posture(gated(requires_login))}
    assert rows["/open"] == "public (exempt from requires login (application))"
    assert rows["/area/open"] == "public (exempt from requires login (application))"
    assert rows["/area/closed"] == "requires login (application)"
    assert rows["/router-closed/closed"] == "requires login (application), requires role admin"
    assert rows["/typo"] == "requires login (application)"
    assert {row.path for row in routes_posture(gated())} == set(rows)


def test_the_table_of_routes_names_the_layer_of_each_guard() -> None:
    class Orders(Controller):
        path = "/orders"
        guards: ClassVar[Any] = [requires_login]

        @get("/all", guards=[requires_role("admin")])
        async def everything(self) -> None: ...

        @websocket("/live")
        async def live(self, socket: WebSocket[Any, Any, Any]) -> None: ...

    @get("/plain")
    async def plain() -> None: ...

    area = Router("/area", route_handlers=[Orders, plain], guards=[forbids_impersonation])
    app = Litestar([area], plugins=[SessionPlugin(make_config())], guards=[requires_role("user")], openapi_config=None)
    rows = {row.path: row.guards for row in routes_posture(app)}
    outer = "requires role user (application), forbids_impersonation (router)"
    assert rows["/area/plain"] == outer
    assert rows["/area/orders/live"] == f"{outer}, requires login (controller)"
    assert rows["/area/orders/all"] == f"{outer}, requires login (controller), requires role admin"


@pytest.mark.parametrize(("options", "seconds"), [({"seconds": 90}, 90), ({"minutes": 2}, 120)])
def test_a_recent_login_takes_minutes_or_seconds(options: dict[str, float], seconds: int) -> None:
    guard: Any = requires_recent_login(**options)
    assert guard.__name__ == f"requires login within {seconds} s"
