"""`serve` and the `litestar` commands as an operator runs them, each in its own process."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from session_core import Identity
from tests.app.processes import ROOT, clean_environment
from tests.support.ports import free_ports

SERVE = (sys.executable, "-c", "import sys; from app.cli import serve; sys.exit(serve())")


@contextmanager
def serving(
    directory: Path, *arguments: str, command: Sequence[str] = SERVE, start_new_session: bool = False, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [*command, "--port", str(port), *arguments],
        cwd=directory,
        env={**clean_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=start_new_session,
        pipesize=1_048_576,  # read only at the end: a full pipe would block the server
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            if process.poll() is not None:
                pytest.fail(f"serve ended: {process.communicate()[0]}")
            assert time.monotonic() < deadline, "nothing answers"
            try:
                urllib.request.urlopen(f"{url}/health/ready", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=120)


def is_free(url: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        except OSError:
            return False
    return True


def wait_until_free(url: str) -> bool:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if is_free(url):
            return True
        time.sleep(0.05)
    return False


def run(directory: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def metrics_of(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
        return str(response.read().decode())


def test_two_workers_share_sessions_secrets_and_metrics_and_stop_together(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as (process, url):
        cookie = ""
        counts = []
        for _ in range(20):
            request = urllib.request.Request(f"{url}/api/session/visits", method="POST", headers={"cookie": cookie})
            with urllib.request.urlopen(request, timeout=60) as response:
                counts.append(json.load(response)["visits"])
                cookie = (response.headers["set-cookie"] or cookie).partition(";")[0]
        assert counts == list(range(1, 21))
        counted = 'http_requests_total{method="POST",route="/api/session/visits",status="200"} 20.0'
        deadline = time.monotonic() + 60
        while counted not in metrics_of(url):  # a request is counted when its response has been sent
            assert time.monotonic() < deadline
        assert all(counted in metrics_of(url) for _ in range(5))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert "Traceback" not in out
        assert wait_until_free(url)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: the kernel ends the workers with their parent")
def test_killing_the_server_leaves_no_worker_behind(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as (process, url):
        process.kill()
        process.wait()
        assert wait_until_free(url)


@pytest.mark.attack("asvs-14.2.1")
def test_no_log_contains_a_query_string(tmp_path: Path) -> None:
    with serving(tmp_path, APP_LOG_LEVEL="DEBUG") as (process, url):
        urllib.request.urlopen(f"{url}/api/session?code=canary-code&state=canary-state", timeout=60).close()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)
    assert "/api/session" in out
    assert "canary" not in out


def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run(tmp_path, *SERVE, "--port", str(port))
    assert result.returncode == 1
    assert result.stderr == (
        f"error: port {port} on 127.0.0.1 is in use; stop the other program, or choose another port: "
        f"uv run serve --port {port + 1}\n"
    )


def test_several_workers_refuse_a_store_they_cannot_share(tmp_path: Path) -> None:
    result = run(tmp_path, *SERVE, "--workers", "2", SESSION_STORE="memory://")
    assert result.returncode == 1
    assert result.stderr.startswith("error: SESSION_STORE: sessions in memory")


@pytest.mark.parametrize("arguments", [("--port", "http"), ("--workers", "0"), ("--workers", "many")])
def test_a_bad_option_is_refused_with_a_valid_example(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run(tmp_path, *SERVE, *arguments)
    assert result.returncode == 2
    assert "a good example" in result.stderr


def test_the_command_line_finds_the_application_by_itself(tmp_path: Path) -> None:
    litestar = str(Path(sys.executable).parent / "litestar")
    # The settings say where files go, so the tree stays unchanged.
    keep = {
        "SESSION_STORE": f"sqlite+aiosqlite:///{tmp_path}/app.db",
        "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/app.db",
        "SESSION_SECRETS": "Jc7Wm2xTq9Lf4RzKp8Vd1NsYb6Hg3Ea0UoIiXkQwMtB",
        "SESSION_ENCRYPTION_KEYS": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
        "OIDC_ISSUER": "https://login.example.org",
        "OIDC_CLIENT_ID": "shop",
        "OIDC_CLIENT_SECRET": "client-secret-of-the-tests",
    }
    routes = run(ROOT, litestar, "routes", **keep)
    assert routes.returncode == 0, routes.stderr
    assert "/auth/callback" in routes.stdout
    check = run(ROOT, litestar, "check", **keep)
    assert check.returncode == 0, check.stderr
    assert "fit for development" in check.stdout
    assert "/admin" in check.stdout
    assert run(ROOT, litestar, "sessions", "stats", **keep).returncode == 0
    assert run(ROOT, litestar, "run", "--help", **keep).returncode == 0


def test_sessions_ended_by_the_command_line_are_in_the_audit_trail(tmp_path: Path) -> None:
    litestar = (str(Path(sys.executable).parent / "litestar"), "--app", "app:create_app", "sessions")
    identity = ("--issuer", "https://op.example", "--subject", "alice")
    begin = """
import asyncio
from app import create_app
from session_core import Identity, SessionPlugin
from session_core.sessions.record import Device
async def begin():
    app = create_app()
    async with app.lifespan():
        lifecycle = app.plugins.get(SessionPlugin).lifecycle
        for subject in ("alice", "alice", "bob"):
            identity = Identity(issuer="https://op.example", subject=subject)
            await lifecycle.begin(bytes([0x80]), device=Device(), identity=identity)
asyncio.run(begin())
"""
    begun = run(tmp_path, sys.executable, "-c", begin)
    assert begun.returncode == 0, begun.stderr
    assert run(tmp_path, *litestar, "revoke-all", *identity).stdout == "ended 2 session(s)\n"
    (line,) = run(tmp_path, *litestar, "list").stdout.splitlines()
    assert run(tmp_path, *litestar, "revoke", line.split()[0]).returncode == 0
    with sqlite3.connect(tmp_path / "var" / "app.db") as database:
        rows = database.execute("SELECT user_key, actor, reason FROM audit_trail WHERE event = 'session.revoked'").fetchall()
    database.close()
    alice, bob = (Identity(issuer="https://op.example", subject=subject).user_key for subject in ("alice", "bob"))
    expected = [(alice, "command line", "operator")] * 2 + [(bob, "command line", "operator")]
    assert rows == expected


def test_check_names_each_setting_unfit_for_production(tmp_path: Path) -> None:
    litestar = str(Path(sys.executable).parent / "litestar")
    result = run(tmp_path, litestar, "--app", "app:create_app", "check", APP_ENV="production", SESSION_STORE="memory://")
    assert result.returncode == 1
    named = [line.split(":")[1].strip() for line in result.stderr.splitlines()]
    assert named == ["PUBLIC_URL", "SESSION_SECRETS", "SESSION_ENCRYPTION_KEYS", "SESSION_STORE", "OIDC_ISSUER"]
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("command", [("check",), ("run", "--port", "1"), ("sessions", "stats"), SERVE])
def test_no_command_starts_production_on_a_store_that_forgets(tmp_path: Path, command: Sequence[str]) -> None:
    litestar = (str(Path(sys.executable).parent / "litestar"), "--app", "app:create_app")
    program = command if command is SERVE else (*litestar, *command)
    result = run(tmp_path, *program, APP_ENV="production", SESSION_STORE="memcached://127.0.0.1:1")
    assert result.returncode == 1
    refused = "SESSION_STORE: the memcached store is not for production: sessions may be gone after a restart"
    assert refused in result.stderr
    assert "Traceback" not in result.stderr


def test_the_environment_of_these_tests_has_no_settings() -> None:
    assert os.environ.get("APP_ENV") is None
