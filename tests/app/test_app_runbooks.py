"""The runbooks, followed step by step with a real Valkey and a real PostgreSQL."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.processes import ROOT, clean_environment
from tests.app.test_app_serve import serving
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer, postgres_server
from tests.support.redis_servers import RedisServer, needed_valkey

BIN = Path(sys.executable).parent


@pytest.fixture
def valkey() -> Iterator[RedisServer]:
    server = RedisServer(needed_valkey(), "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.remove()


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def settings(valkey: RedisServer, postgres: PostgresServer) -> dict[str, str]:
    return {"SESSION_STORE": valkey.url, "DATABASE_URL": postgres.url_through(postgres.port)}


def litestar(directory: Path, settings: dict[str, str], *words: str) -> tuple[int, str]:
    """Run a command of a runbook; return its exit code and output."""
    command = [BIN / "litestar", "--app", "app:create_app", *words]
    environment = {**clean_environment(), **settings, "APP_LOG_LEVEL": "ERROR"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=200)
    return done.returncode, done.stdout + done.stderr


def until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 120
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline, "not ready"
        time.sleep(0.05)


def test_store_and_database_fail_and_recover(
    tmp_path: Path, settings: dict[str, str], valkey: RedisServer, postgres: PostgresServer
) -> None:
    with serving(tmp_path, **settings) as (_, url), httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        client.post("/api/session/visits")
        valkey.kill()
        out = client.get("/api/session")
        assert (out.status_code, "retry-after" in out.headers, "set-cookie" in out.headers) == (503, True, False)
        assert client.get("/health/live").status_code == 200
        assert 'store_failures_total{call="load"} 1.0' in client.get("/metrics").text
        code, said = litestar(tmp_path, settings, "check", "--online")
        assert code == 1
        assert "session store: FAILED (" in said
        valkey.start()
        until_ready(client)
        assert client.get("/api/session").json()["visits"] == 1

        postgres.kill()
        assert client.get("/health/ready").json()["checks"] == {"session_store": "ok", "database": "unavailable"}
        assert client.post("/api/session/visits").json() == {"visits": 2}
        code, said = litestar(tmp_path, settings, "check", "--online")
        assert code == 1
        assert "database: FAILED (the database does not answer, or refuses: " in said
        postgres.start()
        until_ready(client)


def test_a_restored_backup_revives_no_ended_session(tmp_path: Path, settings: dict[str, str], valkey: RedisServer) -> None:
    files = valkey.directory / "appendonlydir"
    with serving(tmp_path, **settings) as (_, url), httpx.Client(base_url=url, trust_env=False) as client:
        client.post("/api/session/visits")
        cookie = {"cookie": f"{next(iter(client.cookies.jar)).name}={next(iter(client.cookies.jar)).value}"}
        shutil.copytree(files, tmp_path / "backup")
        client.post("/auth/logout")
    valkey.kill()
    shutil.rmtree(files)
    shutil.copytree(tmp_path / "backup", files)
    valkey.start()
    assert "sessions    1\n" in litestar(tmp_path, settings, "sessions", "stats")[1]
    assert "ended 1 session(s)" in litestar(tmp_path, settings, "sessions", "revoke-before", "now")[1]
    assert "sessions    0\n" in litestar(tmp_path, settings, "sessions", "stats")[1]
    with serving(tmp_path, **settings) as (_, url):
        assert httpx.get(f"{url}/api/session", headers=cookie, trust_env=False).json()["visits"] == 0


def test_a_leaked_secret_is_useless_after_the_rotation(tmp_path: Path, settings: dict[str, str]) -> None:
    with serving(tmp_path, **settings) as (_, url), httpx.Client(base_url=url, trust_env=False) as client:
        client.post("/api/session/visits")
        cookie = {"cookie": f"{next(iter(client.cookies.jar)).name}={next(iter(client.cookies.jar)).value}"}
    assert "0 old one(s) still verify" in litestar(tmp_path, settings, "sessions", "rotate", "--keep", "0")[1]
    _, said = litestar(tmp_path, settings, "sessions", "rotate", "--name", "SESSION_ENCRYPTION_KEYS", "--keep", "0")
    assert "a new key encrypts, 0 old one(s) still decrypt" in said
    with serving(tmp_path, **settings) as (_, url):
        assert httpx.get(f"{url}/api/session", headers=cookie, trust_env=False).json()["visits"] == 0


def documented_output() -> list[str]:
    """The lines of docs/how-to/deploy.md, one for each check, in their order."""
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    block = page.partition("$ uv run litestar check --online\n")[2].partition("```")[0]
    return block.splitlines()[:-1]  # the last one is the verdict


def test_the_provider_is_out_and_sessions_go_on(tmp_path: Path, settings: dict[str, str]) -> None:
    provider = {"OIDC_ISSUER": f"http://127.0.0.1:{free_port()}", "OIDC_CLIENT_ID": "shop", "OIDC_CLIENT_SECRET": "x" * 32}
    settings = {**settings, **provider}
    with serving(tmp_path, **settings) as (_, url), httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        assert client.post("/api/session/visits").json() == {"visits": 1}
        assert client.get("/auth/login").status_code == 503
        assert client.get("/api/session").json()["visits"] == 1
        code, said = litestar(tmp_path, settings, "check", "--online")
        assert code == 1
        assert f"provider {provider['OIDC_ISSUER']}: FAILED (discovery_refused" in said
        checked = [line.split(":")[0].split()[0] for line in documented_output()]
        checked.remove("clock")  # of the provider, which is out
        asked = json.loads(litestar(tmp_path, settings, "check", "--online", "--json")[1].splitlines()[0])["online"]
        assert [each["what"].split()[0] for each in asked] == checked
        assert 'provider_failures_total{call="discovery"}' in client.get("/metrics").text
        assert client.get("/health/ready").status_code == 200
        assert client.post("/auth/logout").headers["location"].endswith("/")
        assert client.get("/api/session").json()["visits"] == 0


def test_a_rolling_deployment_keeps_sessions_and_mass_revocation_reaches_every_instance(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    with (
        serving(tmp_path, **settings) as (old, first),
        httpx.Client(trust_env=False, timeout=20) as client,
        serving(tmp_path, **settings) as (_, second),
    ):
        assert client.post(f"{first}/api/session/visits").json() == {"visits": 1}
        migrated = subprocess.run(
            [BIN / "alembic", "-c", ROOT / "alembic.ini", "upgrade", "head"],
            cwd=tmp_path,
            env={**clean_environment(), **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert migrated.returncode == 0, migrated.stderr
        old.terminate()
        assert old.wait(20) == 0
        assert client.post(f"{second}/api/session/visits").json() == {"visits": 2}
        assert "ended 1 session(s)" in litestar(tmp_path, settings, "sessions", "revoke-before", "now")[1]
        assert client.get(f"{second}/api/session").json()["visits"] == 0
