"""A start that is refused or fails ends with one line, under every command that starts the application."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.app.processes import ROOT
from tests.app.test_app_serve import SERVE, run
from tests.auth_demo.demo_process import DEMO  # demo:line
from tests.support.ports import free_port

LITESTAR = str(Path(sys.executable).parent / "litestar")
NO_DATABASE = "postgresql+asyncpg://app:canary-password@127.0.0.1:1/app"


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "litestar run",
        "demo",  # demo:line
        "alembic",
    ],
)
def test_a_database_that_is_down_is_reported_in_one_line_in_development(tmp_path: Path, command: str) -> None:
    port = str(free_port())
    commands = {
        "serve": (*SERVE, "--port", port),
        "litestar run": (LITESTAR, "--app", "app:create_app", "run", "--port", port),
        "demo": (*DEMO, "--no-browser", "--port", port, "--op-port", str(free_port())),  # demo:line
        "alembic": (str(Path(sys.executable).parent / "alembic"), "-c", str(ROOT / "alembic.ini"), "upgrade", "head"),
    }
    result = run(tmp_path, *commands[command], DATABASE_URL=NO_DATABASE)
    told = result.stdout + result.stderr
    assert result.returncode in {1, 3}
    assert told.count("error: DATABASE_URL: the database does not answer, or refuses: ConnectionRefusedError") == 1
    assert "Traceback" not in told
    assert "canary-password" not in told


@pytest.mark.attack("75")
@pytest.mark.parametrize("program", [(LITESTAR,), (sys.executable, "-m", "litestar")], ids=["litestar", "python -m litestar"])
def test_an_application_built_for_check_cannot_serve(tmp_path: Path, program: tuple[str, ...]) -> None:
    result = run(tmp_path, *program, "--app", "app:create_app", "run", "--uds", "check", APP_ENV="production")
    told = result.stdout + result.stderr
    assert result.returncode != 0
    assert "Application startup complete" not in told
    assert not (tmp_path / "check").exists()


@pytest.mark.attack("75")
@pytest.mark.parametrize(
    "command",
    [
        ("users", "disable", "check"),
        ("sessions", "revoke", "check"),
        ("sessions", "revoke-all", "--issuer", "https://x.example", "--subject", "check"),
    ],
    ids=" ".join,
)
def test_a_command_about_something_named_check_does_not_run_with_invalid_settings(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    result = run(tmp_path, LITESTAR, "--app", "app:create_app", *command, APP_ENV="production")
    assert result.returncode != 0
    assert "error: SESSION_SECRETS: must be set in production" in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack("75")
@pytest.mark.parametrize("options", [(), ("--lifespan", "off")], ids=["with lifespan", "without lifespan"])
def test_an_application_built_for_check_cannot_serve_under_another_server(tmp_path: Path, options: tuple[str, ...]) -> None:
    port = free_port()
    code = f"""
import sys, threading, urllib.request, urllib.error
sys.argv = ["litestar", "check"]
from app import create_app
import uvicorn
server = uvicorn.Server(uvicorn.Config(create_app(), port={port}, **{{"lifespan": "off"}} if {bool(options)} else {{}}))
def ask():
    while not server.started and not server.should_exit:
        pass
    try:
        print("answered", urllib.request.urlopen("http://127.0.0.1:{port}/health/live", timeout=60).status)
    except urllib.error.HTTPError as error:
        print("answered", error.code)
    except OSError:
        print("refused")
    server.should_exit = True
threading.Thread(target=ask, daemon=True).start()
server.run()
"""
    result = run(tmp_path, sys.executable, "-c", code, APP_ENV="production")
    told = result.stdout + result.stderr
    assert "answered 200" not in told
    assert "built for `litestar check`" in told


def test_check_itself_still_reports_unfit_settings(tmp_path: Path) -> None:
    result = run(tmp_path, LITESTAR, "--app", "app:create_app", "check", APP_ENV="production")
    assert result.returncode == 1
    assert "NOT FIT for production" in result.stderr
    assert "/auth/login" in result.stdout
