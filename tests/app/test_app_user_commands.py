"""`litestar users` finds, disables and enables users; the audit trail names the command line as the actor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner, Result
from litestar import Litestar
from litestar.cli._utils import LitestarEnv
from litestar.cli.main import litestar_group

from app.asgi import create_app
from app.services import Services
from app.settings.settings import Settings
from app.user_commands import UserCommands
from session_core import Identity, SessionPlugin
from session_core.errors import StoreUnavailableError
from session_core.testing import FakeClock

ISSUER = "https://op.example"


@pytest.fixture
def app(make_settings: Callable[..., Settings], tmp_path: Path) -> Litestar:
    app = create_app(make_settings(session_store=f"sqlite:///{tmp_path}/sessions.db"), clock=FakeClock())
    services: Services = app.state["services"]

    async def fill() -> None:
        await services.database.open()
        for subject, name in (("1", "Alice"), ("2", "Alan\x1b[2J"), ("same", "Bob"), ("same", "Bill")):
            issuer = ISSUER if name != "Bill" else f"{ISSUER}/other"
            claims = {"name": name, "email": f"{name[:5].lower()}@example.org"}
            await services.users.remember(Identity(issuer=issuer, subject=subject), claims)
        await services.database.close()

    asyncio.run(fill())
    return app


@pytest.fixture
def run(app: Litestar, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    env = LitestarEnv(app_path="app", app=app, cwd=Path.cwd())
    monkeypatch.setattr(litestar_group, "_prepare_done", False)  # another test's application may have added its commands
    monkeypatch.setattr(LitestarEnv, "from_env", classmethod(lambda *_, **__: env))
    return lambda *arguments: CliRunner().invoke(litestar_group, ["users", *arguments])


def trail(app: Litestar) -> list[Any]:
    services: Services = app.state["services"]

    async def read() -> list[Any]:
        await services.database.open()
        try:
            return await services.audit.latest()
        finally:
            await services.database.close()

    return asyncio.run(read())


def test_find_reports_that_no_user_matches(run: Callable[..., Result]) -> None:
    found = run("find", "unknown@example.org")
    assert (found.exit_code, found.stdout, found.stderr) == (0, "", "no user matches\n")
    assert run("find", "unknown@example.org", "--json").stdout == "[]\n"


def test_find_lists_matching_users(run: Callable[..., Result]) -> None:
    assert "alice@example.org" in run("find", "ALICE@example").output
    assert "\x1b" not in run("find").output
    users = json.loads(run("find", "--json").output.splitlines()[-1])
    assert len(users) == 4
    assert {user["disabled"] for user in users} == {False}


def test_disable_and_enable_by_email_are_audited(run: Callable[..., Result], app: Litestar) -> None:
    assert "disabled Alice, ended 0 session(s)" in run("disable", "Alice@Example.org").output
    assert "disabled" in run("find", "alice").output
    assert "enabled Alice" in run("enable", "1").output
    assert [(entry.event, entry.actor) for entry in trail(app)] == [
        ("user.enabled", "command line"),
        ("user.disabled", "command line"),
    ]


def test_an_outage_of_the_store_is_not_taken_for_an_account_that_was_not_disabled(
    run: Callable[..., Result], app: Litestar, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out(*_: object, **__: object) -> int:
        raise StoreUnavailableError

    monkeypatch.setattr(type(app.plugins.get(SessionPlugin).sessions), "revoke_all", out)
    failed = run("disable", "alice@example.org")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "disabled Alice, but some sessions may not have ended: repeat the command" in failed.stderr
    assert "disabled" in run("find", "alice").output


def test_a_partial_or_ambiguous_name_disables_no_user(run: Callable[..., Result], app: Litestar) -> None:
    for who in ("ali", "same", "unknown@example.org", ""):
        assert run("disable", who).exit_code == 2
    assert trail(app) == []


def test_every_command_prints_json(run: Callable[..., Result]) -> None:
    cli = click.Group()
    UserCommands().on_cli_init(cli)
    commands = ("find", "disable", "enable")
    assert set(cast("click.Group", cli.commands["users"]).commands) == set(commands)
    done = {name: json.loads(run(name, "alice@example.org", "--json").stdout.splitlines()[-1]) for name in commands}
    assert [user["name"] for user in done["find"]] == ["Alice"]
    assert (done["disable"]["user"]["disabled"], done["disable"]["ended"]) == (True, 0)
    assert done["enable"]["user"] == done["find"][0]
    assert run("find", "--json").stdout.isascii()
