"""Litestar's idioms with these sessions: `request.user`, `request.auth`, `request.session`, and OpenAPI."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, WebSocket, get, post, websocket
from litestar.params import FromPath
from litestar.testing import TestClient
from structlog.testing import capture_logs

from session_core import ConfigurationError, Identity, Session, SessionConfig, SessionPlugin
from session_core.guards import requires_login
from session_core.testing import log_in
from tests.support.sessions import SECRET, client_of, plugin_in

pytestmark = pytest.mark.anyio
PUBLIC = {"exclude_from_auth": True}


class Data(msgspec.Struct):
    theme: str = "light"
    cart: list[str] = []
    visits: int = 0
    other: dict[str, Any] = {}


class User(msgspec.Struct):
    name: str


class Users:
    """A user table that counts its queries."""

    def __init__(self) -> None:
        self.known = {"alice": User("Alice")}
        self.asked = 0

    async def load(self, identity: Identity, connection: Any) -> User | None:
        assert connection.app is not None
        self.asked += 1
        return self.known.get(identity.subject)


AnyRequest = Request[Any, Any, Any]


@get("/who", guards=[requires_login])
async def who(request: Request[User, Identity, Any]) -> dict[str, str]:
    return {"name": request.user.name, "subject": request.auth.subject}


@get("/maybe")
async def maybe(request: Request[User | None, Identity | None, Any]) -> str | None:
    return None if request.user is None else request.user.name


@get("/nothing")
async def nothing() -> None: ...


@post("/login/{subject:str}")
async def login(request: AnyRequest, session: Session[Data], subject: FromPath[str]) -> str | None:
    await session.login(Identity(issuer="https://app.example", subject=subject))
    return None if request.user is None else str(request.user.name)


@post("/logout")
async def logout(request: AnyRequest, session: Session[Data]) -> None:
    await session.destroy()
    assert (request.user, request.auth) == (None, None)


@post("/set/{key:str}/{value:str}")
async def set_key(request: AnyRequest, key: FromPath[str], value: FromPath[str]) -> None:
    await asyncio.sleep(0)
    request.session[key] = value


@post("/replace")
async def replace(request: AnyRequest) -> None:
    request.set_session({"only": [1, {"two": 2}]})


@post("/remove/{key:str}")
async def remove(request: AnyRequest, key: FromPath[str]) -> None:
    del request.session[key]


@post("/clear")
async def clear(request: AnyRequest) -> None:
    request.clear_session()


@post("/fail")
async def fail(request: AnyRequest) -> None:
    request.session["a"] = "not saved"
    raise RuntimeError


@post("/append")
async def append(request: AnyRequest) -> None:
    request.session.setdefault("cart", []).append("tea")


@get("/session")
async def read(request: AnyRequest, session: Session[Data]) -> dict[str, Any]:
    return {"request": request.session, "typed": msgspec.to_builtins(session.data)}


@post("/typed")
async def typed(session: Session[Data]) -> None:
    session.data.visits += 1


HANDLERS = [who, maybe, nothing, login, logout, set_key, replace, remove, clear, fail, append, read, typed]


def application(users: Users | None = None, *handlers: Any, **options: Any) -> Litestar:
    config = SessionConfig(Data, secrets=(SECRET,), sweep_interval=0, load_user=users.load if users else None, **options)
    return Litestar([*HANDLERS, *handlers], plugins=[SessionPlugin(config)], logging_config=None)


@pytest.fixture
def users() -> Users:
    return Users()


async def test_the_user_is_loaded_once_per_request(users: Users) -> None:
    async with client_of(application(users)) as client:
        assert (await client.get("/maybe")).json() is None
        assert users.asked == 0
        assert (await client.post("/login/alice")).text == "Alice"
        users.asked = 0
        assert (await client.get("/who")).json() == {"name": "Alice", "subject": "alice"}
        assert users.asked == 1


@pytest.mark.attack("76")
async def test_no_user_remains_after_the_session_ends(users: Users) -> None:
    async with client_of(application(users)) as client:
        await client.post("/login/alice")
        assert (await client.post("/logout")).status_code == 201
        assert (await client.get("/maybe")).json() is None
        assert (await client.get("/who")).status_code == 401


@pytest.mark.attack("63")
async def test_an_identity_without_a_user_passes_no_guard(users: Users) -> None:
    async with client_of(application(users)) as client:
        await client.post("/login/alice")
        del users.known["alice"]
        assert (await client.get("/who")).status_code == 403
        assert (await client.get("/maybe")).json() is None


async def test_an_error_of_the_loader_affects_only_requests_that_need_the_user() -> None:
    """Users must be able to log out while the user table is out."""

    async def load(identity: Identity, connection: Any) -> User | None:
        raise ConnectionError(identity.subject)

    @post("/begin/{subject:str}", opt={"exclude_from_auth": True})
    async def begin(session: Session[Data], subject: FromPath[str]) -> None:
        await session.login(Identity(issuer="https://app.example", subject=subject))

    @post("/end", opt={"exclude_from_auth": True})
    async def end(request: AnyRequest, session: Session[Data]) -> None:
        assert ("user" in request.scope, request.auth.subject) == (False, "alice")
        await session.destroy()

    @get("/shown", opt={"exclude_from_auth": True})
    async def shown(request: AnyRequest) -> bool:
        return request.user is None

    config = SessionConfig(Data, secrets=(SECRET,), sweep_interval=0, load_user=load)
    app = Litestar([*HANDLERS, begin, end, shown], plugins=[SessionPlugin(config)], logging_config=None)
    with capture_logs() as logged:
        async with client_of(app) as client:
            assert (await client.post("/begin/alice")).status_code == 201
            assert [(await client.get(path)).status_code for path in ("/maybe", "/who", "/shown")] == [500] * 3
            assert (await client.post("/end")).status_code == 201
            assert (await client.get("/maybe")).json() is None
    failed = [(entry["path"], entry["error"]) for entry in logged if entry["event"] == "user not loaded"]
    assert failed == [(path, "ConnectionError") for path in ("/begin/alice", "/shown", "/end")]


async def test_a_websocket_has_the_user(users: Users) -> None:
    @websocket("/socket")
    async def socket_handler(socket: WebSocket[User, Identity, Any]) -> None:
        await socket.accept()
        await socket.send_text(socket.user.name)
        await socket.close()

    config = SessionConfig(Data, secrets=(SECRET,), sweep_interval=0, load_user=users.load)
    app = Litestar([login, socket_handler], plugins=[SessionPlugin(config)], logging_config=None)
    with TestClient(app) as client:
        client.post("/login/alice")
        with client.websocket_connect("/socket") as socket:
            assert socket.receive_text() == "Alice"


async def test_typed_and_dict_handlers_share_the_session() -> None:
    app = application(request_session="other")
    async with client_of(app) as client:
        assert (await client.get("/session")).json()["request"] == {}
        assert (await plugin_in(app).sessions.stats()).total == 0  # reading creates no session
        await client.post("/set/theme/dark")
        await client.post("/set/color/red")
        await client.post("/append")
        await client.post("/append")
        await client.post("/typed")
        found = (await client.get("/session")).json()
    assert found["request"] == {"theme": "dark", "cart": ["tea", "tea"], "visits": 1, "color": "red"}
    assert found["typed"] == {"theme": "dark", "cart": ["tea", "tea"], "visits": 1, "other": {"color": "red"}}


async def test_concurrent_writes_of_different_keys_are_all_kept() -> None:
    async with client_of(application(request_session="other")) as client:
        await client.post("/set/first/x")
        answers = await asyncio.gather(*(client.post(f"/set/key{n}/{n}") for n in range(20)))
        assert {answer.status_code for answer in answers} == {201}
        content = (await client.get("/session")).json()["request"]
    assert content == {"first": "x", **{f"key{n}": str(n) for n in range(20)}}


async def test_set_session_replaces_and_clear_session_ends() -> None:
    app = application(request_session="other")
    async with client_of(app) as client:
        await client.post("/login/alice")
        await client.post("/set/theme/dark")
        await client.post("/set/a/b")
        await client.post("/replace")
        assert (await client.get("/session")).json()["request"] == {"only": [1, {"two": 2}]}
        await client.post("/remove/only")
        assert (await client.get("/session")).json()["request"] == {}
        await client.post("/clear")
        assert (await plugin_in(app).sessions.stats()).total == 0
        assert (await client.get("/who")).status_code == 401


async def test_changes_of_a_failed_handler_are_not_saved() -> None:
    async with client_of(application(request_session="other")) as client:
        await client.post("/set/a/b")
        assert (await client.post("/fail")).status_code == 500
        assert (await client.get("/session")).json()["request"] == {"a": "b"}


async def test_a_value_of_the_wrong_type_is_refused() -> None:
    async with client_of(application(request_session="other")) as client:
        refused = await client.post("/set/visits/many")
        assert (refused.status_code, refused.headers["content-type"]) == (500, "application/problem+json")
        assert refused.json()["code"] == "session_data"
        assert (await client.get("/session")).json()["request"] == {}


async def test_a_session_that_ended_meanwhile_is_a_401(users: Users) -> None:
    @post("/late")
    async def late(request: AnyRequest) -> None:
        await plugin_in(app).sessions.revoke_all(request.auth)
        request.session["late"] = 1

    app = application(users, late, request_session="other")
    async with client_of(app) as client:
        await client.post("/login/alice")
        refused = await client.post("/late")
        assert (refused.status_code, refused.json()["code"]) == (401, "session_gone")


@pytest.mark.parametrize("name", ["theme", "missing"])
def test_a_field_that_is_not_a_dict_is_refused_at_start(name: str) -> None:
    with pytest.raises(ConfigurationError, match="must name a field of Data that holds a dict"):
        SessionConfig(Data, request_session=name)


def operation(schema: httpx.Response, path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = schema.json()["paths"][path][method]
    return found


async def test_openapi_lists_the_cookie_on_routes_that_need_it() -> None:
    @get("/closed")
    async def closed() -> None: ...

    @get("/open", opt=PUBLIC)
    async def opened(session: Session[Data]) -> None: ...

    config = SessionConfig(Data, secrets=(SECRET,), sweep_interval=0)
    app = Litestar([closed, opened, login], guards=[requires_login], plugins=[SessionPlugin(config)], logging_config=None)
    async with client_of(app) as client:
        await log_in(client, app, "alice")
        schema = await client.get("/schema/openapi.json")
    assert schema.json()["components"]["securitySchemes"]["session"]["name"] == "session-8000"
    guarded, public = operation(schema, "/closed", "get"), operation(schema, "/open", "get")
    assert guarded["security"] == [{"session": []}]
    assert public["security"] == []
    assert {"401", "403", "409", "503"} <= guarded["responses"].keys()
    assert {"401", "403"}.isdisjoint(public["responses"])
    problem = guarded["responses"]["401"]["content"]["application/problem+json"]["schema"]["$ref"]
    fields = schema.json()["components"]["schemas"][problem.rpartition("/")[2]]["properties"]
    assert {"type", "title", "status", "code"} <= fields.keys()


async def test_openapi_settings_of_the_application_are_kept() -> None:
    @get("/own", security=[{"key": []}])
    async def own() -> None: ...

    @get("/both", guards=[requires_login], security=[{"session": []}])
    async def both() -> None: ...

    config = SessionConfig(Data, secrets=(SECRET,), sweep_interval=0)
    app = Litestar([own, both], plugins=[SessionPlugin(config)], logging_config=None)
    async with client_of(app) as client:
        schema = await client.get("/schema/openapi.json")
    assert operation(schema, "/own", "get")["security"] == [{"key": []}]
    assert operation(schema, "/both", "get")["security"] == [{"session": []}]
