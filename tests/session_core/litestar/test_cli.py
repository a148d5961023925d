"""`litestar sessions ...` and `litestar check` with a real store file, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from litestar import Litestar
from litestar.cli.main import litestar_group

from session_core import Identity
from session_core.ids import handle_of, new_session_id, session_key
from session_core.litestar.commands import add_commands
from session_core.sessions.record import SessionRecord
from session_core.sessions.snapshot import entry_of
from session_core.testing import FakeClock, logged_in_cookie
from tests.support.sessions import ALICE, BOB, AppSession, make_app, plugin_in

APP = """
from session_core.guards import requires_login, requires_role
from litestar import get
from tests.support.sessions import make_app, SECRET

@get("/members", guards=[requires_login])
async def members() -> None: ...

@get("/admins", guards=[requires_role("admin")])
async def admins() -> None: ...

app = make_app(members, admins, store="{store}")
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/sessions"


@pytest.fixture
def run(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = f"operators_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(APP.format(store=store))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(litestar_group, ["--app", f"{module}:app", *arguments])

    return invoke


def log_in_users(store: str, *users: Identity) -> None:
    app: Litestar = make_app(store=store)

    async def work() -> None:
        for user in users:
            await logged_in_cookie(app, user, AppSession(note="private-canary"))
        await plugin_in(app).store.close()

    asyncio.run(work())


def handles_in(output: str) -> list[str]:
    return re.findall(r"^[A-Za-z0-9_-]{22}(?=  )", output, re.MULTILINE)


@pytest.mark.parametrize("form", ["-h", "-[^-].*h", "--", "-"])
def test_a_handle_that_begins_with_a_dash_is_not_an_option(run: Any, store: str, form: str) -> None:
    app: Litestar = make_app(store=store)

    async def store_one() -> str:
        sessions = plugin_in(app)
        await sessions.store.open()
        while not re.match(form, handle := handle_of(key := session_key(new_session_id()))):
            pass
        now = sessions.config.clock.now()
        record = SessionRecord(created_at=now, absolute_expires_at=now + 60_000)
        await sessions.store.create(key, entry_of(record, now + 60_000))
        await sessions.store.close()
        return handle

    handle = asyncio.run(store_one())
    assert f"handle          {handle}" in run("sessions", "show", handle).output
    assert run("sessions", "revoke", handle).output.endswith(f"ended {handle}\n")


def test_list_show_and_revoke(run: Any, store: str) -> None:
    log_in_users(store, ALICE, ALICE, BOB)
    listed = run("sessions", "list")
    handles = handles_in(listed.output)
    assert (listed.exit_code, len(handles)) == (0, 3)
    assert listed.output.count("alice @ https://op.example") == 2
    shown = run("sessions", "show", handles[0])
    assert "issuer          https://op.example" in shown.output
    assert "canary" not in shown.output
    assert run("sessions", "revoke", handles[0]).output.endswith(f"ended {handles[0]}\n")
    assert run("sessions", "revoke", handles[0]).exit_code == 2
    assert run("sessions", "show", handles[0]).exit_code == 2


def test_a_users_sessions_are_listed_and_ended_together(run: Any, store: str) -> None:
    log_in_users(store, ALICE, ALICE, BOB)
    user = ("--issuer", ALICE.issuer, "--subject", ALICE.subject)
    assert len(handles_in(run("sessions", "list", *user).output)) == 2
    assert run("sessions", "list", "--subject", "alice").exit_code == 2
    assert run("sessions", "revoke-all", *user).output.endswith("ended 2 session(s)\n")
    assert len(handles_in(run("sessions", "list").output)) == 1


def test_stats_counts_sessions_and_users(run: Any, store: str) -> None:
    log_in_users(store, ALICE, ALICE, BOB)
    output = run("sessions", "stats").output
    assert "sessions    3" in output
    assert "logged in   3 (of 2 users)" in output


def test_prune_removes_expired_records(run: Any, store: str) -> None:
    old = FakeClock(start_ms=1_600_000_000_000)
    app = make_app(store=store, clock=old)

    async def work() -> None:
        await logged_in_cookie(app, ALICE)
        await plugin_in(app).store.close()

    asyncio.run(work())
    assert run("sessions", "prune").output.endswith("removed 1 expired record(s)\n")
    assert run("sessions", "prune").output.endswith("removed 0 expired record(s)\n")


def test_generate_secret_is_valid_for_both_settings(run: Any) -> None:
    from session_core.cookies import parse_secrets
    from session_core.sealing import parse_keys

    first, second = (run("sessions", "generate-secret").output.strip() for _ in range(2))
    assert first != second
    assert parse_secrets(first) == (first,)
    assert len(parse_keys(first)[0]) == 32


def test_rotate_puts_a_new_secret_first_and_keeps_the_old_ones(run: Any, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("# settings\nSESSION_SECRETS=old-one,older-one\nOTHER=1\n")
    assert run("sessions", "rotate").exit_code == 0
    lines = env.read_text().splitlines()
    assert re.fullmatch(r"SESSION_SECRETS=[\w-]{43},old-one", lines[1])
    assert (lines[0], lines[2]) == ("# settings", "OTHER=1")
    assert env.stat().st_mode & 0o777 == 0o600
    output = run("sessions", "rotate", "--name", "SESSION_ENCRYPTION_KEYS", "--env-file", "new.env").output
    assert (tmp_path / "new.env").read_text().partition("=")[2].strip() not in output


def test_rotate_refuses_a_file_that_the_environment_overrides(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leaked secret would stay valid, and the output would say the contrary."""
    monkeypatch.setenv("SESSION_SECRETS", "leaked")
    for text in (None, "OTHER=1\n", "SESSION_SECRETS=another\n"):
        if text is not None:
            (tmp_path / ".env").write_text(text)
        refused = run("sessions", "rotate", "--keep", "0")
        assert refused.exit_code == 1
        assert "error: SESSION_SECRETS is set in the environment, not in .env: " in refused.output
        assert (tmp_path / ".env").exists() is (text is not None)
        assert text is None or (tmp_path / ".env").read_text() == text
    assert run("sessions", "rotate", "--keep", "0", "--env-file", ".env").exit_code == 0
    for text in ('SESSION_SECRETS="leaked"\n', "export SESSION_SECRETS=leaked\n"):
        (tmp_path / ".env").write_text(text)
        assert run("sessions", "rotate", "--keep", "0").exit_code == 0
        assert "leaked" not in (tmp_path / ".env").read_text()


def test_an_outage_is_reported_in_one_line(run: Any, tmp_path: Path) -> None:
    (tmp_path / "sessions").write_text("not a folder")
    result = run("sessions", "list")
    assert result.exit_code == 1
    assert result.output.strip().splitlines()[-1] == "error: The session store is unavailable, please try again shortly"
    assert "Traceback" not in result.output


def test_check_names_unfit_settings_and_lists_every_route(run: Any) -> None:
    result = run("check")
    assert result.exit_code == 1
    assert "public_url: must be https" in result.output
    assert re.search(r"^/members +GET +requires login$", result.output, re.MULTILINE)
    assert re.search(r"^/admins +GET +requires role admin$", result.output, re.MULTILINE)
    assert re.search(r"^/public +GET +public$", result.output, re.MULTILINE)


@pytest.mark.attack("78")
def test_revoke_before_ends_sessions_revived_by_a_backup(run: Any, store: str, tmp_path: Path) -> None:
    log_in_users(store, ALICE, BOB)
    shutil.copytree(tmp_path / "sessions", tmp_path / "backup")
    run("sessions", "revoke-all", "--issuer", ALICE.issuer, "--subject", ALICE.subject)
    shutil.rmtree(tmp_path / "sessions")
    shutil.copytree(tmp_path / "backup", tmp_path / "sessions")
    assert len(handles_in(run("sessions", "list").output)) == 2  # the restored backup contains ended sessions
    ended = run("sessions", "revoke-before", "now")
    assert ended.exit_code == 0
    assert "ended 2 session(s) that began before " in ended.output
    assert handles_in(run("sessions", "list").output) == []


def test_revoke_before_keeps_later_sessions(run: Any, store: str) -> None:
    log_in_users(store, ALICE)
    assert "ended 0 session(s)" in run("sessions", "revoke-before", "2001-02-03T04:05:06Z").output
    assert "ended 1 session(s)" in run("sessions", "revoke-before", "2999-01-01T00:00:00+02:00").output


@pytest.mark.parametrize("moment", ["yesterday", "2026-01-31", "2026-01-31T12:00:00", "", "1700000000"])
def test_revoke_before_refuses_an_ambiguous_time(run: Any, store: str, moment: str) -> None:
    log_in_users(store, ALICE)
    refused = run("sessions", "revoke-before", moment)
    assert refused.exit_code == 2
    assert "2026-01-31T12:00:00Z" in refused.output
    assert len(handles_in(run("sessions", "list").output)) == 1


def test_check_online_queries_the_store(run: Any, tmp_path: Path) -> None:
    assert "session store: ok\n" in run("check", "--online").output
    shutil.rmtree(tmp_path / "sessions")
    (tmp_path / "sessions").write_text("not a folder")
    result = run("check", "--online")
    assert result.exit_code == 1
    assert "session store: FAILED (" in result.output


def test_an_issuer_with_or_without_a_trailing_slash_is_the_same_user(run: Any, store: str) -> None:
    log_in_users(store, ALICE, BOB)
    user = ("--issuer", f"{ALICE.issuer}/", "--subject", ALICE.subject)
    assert len(handles_in(run("sessions", "list", *user).output)) == 1
    assert run("sessions", "revoke-all", *user).output.endswith("ended 1 session(s)\n")


@pytest.fixture
def ask(run: Any) -> Callable[..., Any]:
    """Run a command with `--json`; return what it prints, which is one line."""
    return lambda *arguments: json.loads(run(*arguments, "--json").stdout.splitlines()[-1])


def test_every_command_prints_json() -> None:
    cli = click.Group()
    add_commands(cli)
    groups = [command for command in cli.commands.values() if isinstance(command, click.Group)]
    commands = [command for group in groups for command in group.commands.values()] + [cli.commands["check"]]
    assert len(commands) >= 11
    assert [each.name for each in commands if not any("--json" in option.opts for option in each.params)] == []


def test_found_sessions_are_printed_as_json(ask: Callable[..., Any], store: str) -> None:
    log_in_users(store, ALICE)
    (session,) = ask("sessions", "list")
    assert (session["subject"], session["issuer"]) == (ALICE.subject, ALICE.issuer)
    assert "canary" not in str(session)
    assert ask("sessions", "show", session["handle"]) == session
    assert ask("sessions", "stats")["total"] == 1


def test_actions_are_printed_as_json(ask: Callable[..., Any], run: Any, store: str) -> None:
    log_in_users(store, ALICE, ALICE, BOB)
    handle = ask("sessions", "list", "--issuer", BOB.issuer, "--subject", BOB.subject)[0]["handle"]
    assert ask("sessions", "revoke", handle) == {"ended": 1}
    assert ask("sessions", "revoke-all", "--issuer", ALICE.issuer, "--subject", ALICE.subject) == {"ended": 2}
    assert ask("sessions", "revoke-before", "2026-01-31T12:00:00+01:00") == {"ended": 0, "before": "2026-01-31T11:00:00+00:00"}
    assert ask("sessions", "prune") == {"removed": 0}
    assert len(ask("sessions", "generate-secret")["secret"]) == 43
    assert ask("sessions", "rotate", "--env-file", "new.env") == {"name": "SESSION_SECRETS", "env_file": "new.env", "kept": 0}
    missing = run("sessions", "show", handle, "--json")
    assert (missing.exit_code, "no live session has the handle" in missing.output) == (2, True)


def test_check_prints_json(ask: Callable[..., Any], run: Any) -> None:
    found = ask("check")
    assert found["fit"] is False
    assert any(problem.startswith("public_url: ") for problem in found["problems"])
    assert {"path": "/members", "method": "GET", "guards": "requires login"} in found["routes"]
    assert "online" not in found
    assert {"what": "session store", "good": True, "detail": ""} in ask("check", "--online")["online"]
    assert run("check", "--json").exit_code == 1
