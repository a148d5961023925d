"""The library without Litestar installed: sessions with a real store, over plain ASGI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.environments import make_environment, run_in

REQUIRED = ("msgspec", "cryptography", "structlog")

SESSIONS = """
import asyncio, importlib.util
import msgspec
from session_core import ConfigurationError, Identity, SessionConfig, SessionHandle
import session_core.sessions, session_core.stores, session_core.cookies, session_core.asgi
from session_core.asgi.application import SessionApplication
from session_core.asgi.middleware import SCOPE_KEY, SessionMiddleware
from session_core.connections.closable import ASGI_DISCONNECTS
from session_core.testing import FakeClock

assert importlib.util.find_spec("litestar") is None

class Data(msgspec.Struct):
    visits: int = 0

class Plain:
    disconnects = ASGI_DISCONNECTS
    async def answer_error(self, scope, receive, send, error):
        await send({"type": "http.response.start", "status": error.status_code, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    def connection_of(self, scope):
        return scope

async def app(scope, receive, send):
    session = await scope[SCOPE_KEY].load()
    def bump(data):
        data.visits += 1
    if scope["path"] == "/login":
        await session.login(Identity(issuer="https://op.example", subject="alice"))
    data = await session.update(bump)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{data.visits} {session.identity is not None}".encode()})

async def main():
    sessions = SessionApplication(SessionConfig(Data, store="sqlite:///sessions.db"), Plain())
    middleware = SessionMiddleware(sessions.services)
    cookie = b""
    async with sessions.running():
        for path in ("/", "/login", "/"):
            sent = []
            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}
            async def send(message):
                sent.append(message)
            scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"cookie", cookie)], "client": ("::1", 1)}
            await middleware.serve(app, None, scope, receive, send)
            for name, value in sent[0]["headers"]:
                if name == b"set-cookie":
                    cookie = value.partition(b";")[0]
            print(sent[1]["body"].decode())

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("without-litestar"), *REQUIRED)


def test_sessions_work_over_plain_asgi(environment: Path) -> None:
    result = run_in(environment, SESSIONS)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line for line in result.stdout.splitlines() if "[" not in line] == ["1 False", "2 True", "3 True"]


@pytest.mark.parametrize("name", ["Session", "SessionPlugin", "Sessions", "loaded_session_of", "session_of"])
def test_names_that_need_litestar_say_so(environment: Path, name: str) -> None:
    result = run_in(environment, f"import session_core; session_core.{name}")
    assert f"session_core.{name} needs litestar, which session-core[litestar] installs" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("statement", "wanted", "package", "extra"),
    [
        ("import session_core.guards", "guards", "litestar", "litestar"),
        ("import session_core.stores.sql.schema", "stores.sql", "sqlalchemy", "sql"),
        ("import session_core.oidc", "oidc", "authlib", "oidc"),
        ("import session_core.starlette.oidc", "oidc", "authlib", "oidc"),
        ("import session_core.opentelemetry", "opentelemetry", "opentelemetry", "telemetry"),
    ],
)
def test_a_module_names_the_missing_extra(environment: Path, statement: str, wanted: str, package: str, extra: str) -> None:
    result = run_in(environment, statement)
    assert f"session_core.{wanted} needs {package}, which session-core[{extra}] installs" in result.stderr.splitlines()[-1]


def test_an_unknown_name_is_an_attribute_error(environment: Path) -> None:
    assert "has no attribute 'Sesion'" in run_in(environment, "import session_core; session_core.Sesion").stderr
