"""The examples work: each file is loaded unchanged and used over HTTP."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import httpx2
import pytest
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient
from starlette.testclient import TestClient as StarletteClient

from session_core import SystemClock
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import CLIENT_ID, CLIENT_SECRET, ISSUER, FakeOp
from tests.session_core.oidc.plain_op import PlainOp

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate"}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def client_of(name: str) -> Iterator[TestClient]:
    with TestClient(load(name).app) as client:
        client.follow_redirects = False
        yield client


def test_every_example_is_tested() -> None:
    tried = Path(__file__).read_text()
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in tried] == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_import_the_library_only(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert {name.split(".")[0] for name in imported} & ours == {"session_core"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_the_command_of_an_example_names_its_application(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    for module, name in re.findall(r"(examples[\w.]+):(\w+)", docstring):
        assert path == ROOT / (module.replace(".", "/") + ".py")
        assert callable(getattr(load(str(path.relative_to(EXAMPLES).with_suffix(""))), name, None)), name


def test_quickstart_counts() -> None:
    with client_of("quickstart") as client:
        assert client.post("/visit").json() == {"visits": 1}
        assert client.post("/visit").json() == {"visits": 2}


def test_guards_protect_their_routes() -> None:
    with client_of("guards") as client:
        assert client.get("/profile").status_code == 401
        client.post("/login", json={"subject": "alice", "seconds_ago": 600})
        assert client.get("/profile").json() == {"subject": "alice"}
        assert client.get("/shop").status_code == 403
        client.post("/terms")
        assert client.get("/shop").text == "shop"
        assert client.get("/admin").status_code == 403
        assert client.get("/password").json()["code"] == "step_up_required"
        assert client.get("/transfer").json()["acr_values"] == ["phr"]
        client.post("/login", json={"subject": "ada", "acr": "phr"})
        assert [client.get(path).status_code for path in ("/admin", "/password", "/transfer")] == [200, 200, 200]


def test_guards_refuse_a_disabled_user_immediately() -> None:
    module = load("guards")
    with TestClient(module.app) as client:
        client.post("/login", json={"subject": "alice"})
        assert client.get("/profile").status_code == 200
        module.DISABLED.add("alice")
        assert client.get("/profile").status_code == 403


def test_oidc_login_logs_in_and_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ISSUER", ISSUER), ("CLIENT_ID", CLIENT_ID), ("CLIENT_SECRET", CLIENT_SECRET)):
        monkeypatch.setenv(f"OIDC_{name}", value)
    # The provider of the tests, with the real clock, as in the example.
    provider = FakeOp(FakeClock(SystemClock().now()))
    app = load("oidc_login").create_app(httpx2.MockTransport(provider.handle))
    with TestClient(app) as client:
        client.follow_redirects = False
        assert "/auth/login" in client.get("/").text
        at_provider = client.get("/auth/login?next=/profile", headers=PAGE | {"sec-fetch-dest": "document"})
        back = client.get(urlsplit(provider.authorize(at_provider.headers["location"]))._replace(scheme="", netloc="").geturl())
        assert (back.status_code, back.headers["location"]) == (303, "/profile")
        assert client.get("/profile").json() == {"name": "Alice", "subject": "alice"}
        assert client.post("/auth/logout").headers["location"].startswith(f"{ISSUER}/end?")
        assert client.get("/profile").status_code == 401


def test_fastapi_login_asks_for_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else over HTTP without Litestar: `tests/session_core/starlette/test_fastapi.py`."""
    for name, value in (("ISSUER", ISSUER), ("CLIENT_ID", CLIENT_ID), ("CLIENT_SECRET", CLIENT_SECRET)):
        monkeypatch.setenv(f"OIDC_{name}", value)
    with StarletteClient(load("fastapi_login").create_app(), follow_redirects=False) as client:
        assert client.post("/visit").json() == 1
        assert client.post("/visit").json() == 2
        assert client.get("/account", headers=PAGE).headers["location"].startswith("/auth/login?next=%2Faccount")
        assert client.get("/auth/session").status_code == 401


def test_two_providers_both_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ISSUER", ISSUER), ("CLIENT_ID", CLIENT_ID), ("CLIENT_SECRET", CLIENT_SECRET)):
        monkeypatch.setenv(f"OIDC_{name}", value)
    monkeypatch.setenv("GITHUB_CLIENT_ID", "git-app")
    monkeypatch.setenv("GITHUB_CLIENT_SECRET", "git-secret")
    company, github = FakeOp(FakeClock(SystemClock().now())), PlainOp()
    company.userinfo = {"email": "alice@example.org", "email_verified": True}

    async def reach(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "api.github.com":
            request.url = request.url.copy_with(path=f"/api{request.url.path}")
        return await (github if "github" in request.url.host else company).handle(request)

    app = load("two_providers").create_app(httpx2.MockTransport(reach))
    for path, provider, name, issuer in (
        ("/auth/login?provider=default&next=/me", company, "Alice", ISSUER),
        ("/auth/login/github?next=/me", github, "Octo", "https://github.com/login/oauth"),
    ):
        with TestClient(app) as client:
            client.follow_redirects = False
            assert path in client.get("/").text
            at_provider = client.get(path, headers=PAGE | {"sec-fetch-dest": "document"})
            back = urlsplit(provider.authorize(at_provider.headers["location"]))._replace(scheme="", netloc="").geturl()
            assert client.get(back).headers["location"] == "/me"
            shown = client.get("/me").json()
            assert (shown["name"], shown["issuer"]) == (name, issuer)
            assert shown["email"]
            client.post("/auth/logout")
    company.userinfo = {"email": "alice@example.org"}
    with TestClient(app) as client:
        client.follow_redirects = False
        at_provider = client.get("/auth/login?provider=default", headers=PAGE | {"sec-fetch-dest": "document"})
        back = urlsplit(company.authorize(at_provider.headers["location"]))._replace(scheme="", netloc="").geturl()
        assert client.get(back).json()["code"] == "login_refused"


def test_call_an_api_refreshes_the_token_and_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ISSUER", ISSUER), ("CLIENT_ID", CLIENT_ID), ("CLIENT_SECRET", CLIENT_SECRET)):
        monkeypatch.setenv(f"OIDC_{name}", value)
    provider = FakeOp(FakeClock(SystemClock().now()))
    provider.refreshable = True

    def api(request: httpx2.Request) -> httpx2.Response:
        good = request.headers["authorization"] == "Bearer at-2"
        return httpx2.Response(200, json=["an order"]) if good else httpx2.Response(401)

    app = load("call_an_api").create_app(httpx2.MockTransport(provider.handle), httpx2.MockTransport(api))
    with TestClient(app) as client:
        client.follow_redirects = False
        assert client.get("/orders").status_code == 401
        at_provider = client.get("/auth/login", headers=PAGE | {"sec-fetch-dest": "document"})
        client.get(urlsplit(provider.authorize(at_provider.headers["location"]))._replace(scheme="", netloc="").geturl())
        assert client.get("/orders").json() == ["an order"]
        assert provider.access_tokens == 2


def test_own_login_logs_in_and_out() -> None:
    with client_of("own_login") as client:
        sent = client.get("/account/devices", headers=PAGE)
        assert sent.headers["location"] == "/login?next=%2Faccount%2Fdevices"
        assert "<form" in client.get(sent.headers["location"]).text
        before = client.cookies["session-8000"]
        assert client.post("/login", data={"user": "alice", "password": "guess"}).status_code == 403
        account = {"user": "alice", "password": "correct horse battery staple"}
        assert client.post("/login", data=account).headers["location"] == "/account/devices"
        assert client.cookies["session-8000"] != before
        assert client.get("/account").json() == {"subject": "alice"}
        assert client.get("/account/devices").json() == [{"device": "testclient", "current": True}]
        assert client.post("/logout").headers["location"] == "/login"
        assert client.get("/account").status_code == 401


def test_own_login_redirects_to_no_other_site() -> None:
    with client_of("own_login") as client:
        client.get("/login?next=https://evil.example/")
        account = {"user": "alice", "password": "correct horse battery staple"}
        assert client.post("/login", data=account).headers["location"] == "/account"


def test_own_login_ends_on_every_device() -> None:
    module = load("own_login")
    account = {"user": "alice", "password": "correct horse battery staple"}
    with TestClient(module.app) as phone:
        laptop = TestClient(module.app)
        phone.post("/login", data=account)
        laptop.post("/login", data=account)
        phone.post("/logout-everywhere")
        assert [client.get("/account").status_code for client in (phone, laptop)] == [401, 401]


def test_websocket_uses_the_session_until_it_ends() -> None:
    with client_of("websocket") as client:
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/echo"):
            pass
        assert refused.value.code == 4401
        client.post("/login")
        with client.websocket_connect("/echo") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "1: hello"
            client.post("/logout")
            socket.send_text("hello")
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_text()
            assert ended.value.code == 4401


@pytest.mark.parametrize("path", ["/logout", "/logout-everywhere"])
def test_live_connections_end_with_the_session(path: str) -> None:
    with client_of("live_connections") as client, ThreadPoolExecutor() as threads:
        assert client.get("/clock").status_code == 401
        client.post("/login")
        with client.websocket_connect("/chat") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "you said hello"
            stream = threads.submit(client.get, "/clock")
            deadline = time.monotonic() + 60
            while client.get("/online").json() != ["chat", "clock"]:
                assert time.monotonic() < deadline
            client.post(path)
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_text()
            assert ended.value.code == 4401
            assert stream.result(60).text.startswith("data: ")
        while client.get("/online").json():
            assert time.monotonic() < deadline


def test_own_store_keeps_the_store_contract() -> None:
    # In its own process: the file is a test module that the command in its first line runs.
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "examples/own_store.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout


def test_own_store_serves_an_application(tmp_path: Path) -> None:
    store = load("own_store").JsonStore(tmp_path / "sessions.json")
    module = load("quickstart")
    config = module.SessionConfig(module.AppSession, store=store)
    app = module.Litestar([module.visit], plugins=[module.SessionPlugin(config)])
    with TestClient(app) as client:
        assert [client.post("/visit").json()["visits"] for _ in range(3)] == [1, 2, 3]
