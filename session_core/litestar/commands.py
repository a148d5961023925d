"""The commands `litestar sessions ...` and `litestar check`, for operators."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Protocol, TypeVar, cast, runtime_checkable

import click
from click.core import ParameterSource
from litestar import Litestar

from session_core.errors import ConfigurationError, SessionCoreError
from session_core.identity import Identity
from session_core.litestar.access import application_in
from session_core.litestar.env_file import is_overridden, rotate_secret
from session_core.litestar.online import check_online
from session_core.litestar.output import JSON_OPTION, print_found, printable
from session_core.litestar.posture import routes_posture, routes_table, session_problems
from session_core.sessions.manager import SessionManager, SessionSummary

__all__ = ("add_commands",)

T = TypeVar("T")

_FAILED = 1
_NOT_FOUND = 2
_ANY_HANDLE = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
"""One handle in 64 begins with a dash: it must not be parsed as an option such as `-h`."""


class _Refreshed(Protocol):
    failed: int
    complete: bool


@runtime_checkable
class _RefreshesTokens(Protocol):
    """The login plugin, which commands on sessions do not import."""

    async def refresh_tokens(self, *, horizon_seconds: int | None, concurrency: int | None, dry_run: bool) -> _Refreshed:
        """Refresh the tokens of the sessions that are due."""
        ...


def add_commands(cli: click.Group) -> None:
    """Add the commands to Litestar's command line; replaces Litestar's own `sessions`, which knows other sessions."""
    # Litestar's group class passes the application to commands that need it.
    kind = cast("type[click.Group]", getattr(cli, "group_class", None) or click.Group)
    group = kind("sessions", help="List, show and end sessions; secrets; counts.")
    ending = (_revoke, _revoke_all, _revoke_before)
    for command in (_list, _show, *ending, _prune, _stats, _generate_secret, _rotate, _refresh_tokens):
        group.add_command(command)
    cli.add_command(group)
    cli.add_command(_check)


def _run(app: Litestar, work: Callable[[SessionManager], Coroutine[None, None, T]]) -> T:
    """Run `work` with the application's store open; an outage is one error line."""
    plugin = application_in(app)

    # The application's lifespan, which its event listeners need (for example an audit trail).
    context = app.opt.get("command_context", nullcontext)

    async def with_store() -> T:
        async with context():
            await plugin.store.open()
            try:
                return await work(plugin.sessions)
            finally:
                await plugin.store.close()

    try:
        return asyncio.run(with_store())
    except SessionCoreError as error:
        click.echo(f"error: {error if isinstance(error, ConfigurationError) else error.title}", err=True)
        sys.exit(_FAILED)


@click.command("list")
@click.option("--issuer", help="Only sessions of the user with this issuer (needs --subject).")
@click.option("--subject", help="Only sessions of the user with this subject (needs --issuer).")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many to print.")
@JSON_OPTION
def _list(app: Litestar, issuer: str | None, subject: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001 - click
    """List live sessions by their handles."""

    async def work(sessions: SessionManager) -> list[SessionSummary]:
        if issuer and subject:
            return [found for user in _users(issuer, subject) for found in await sessions.list_for(user)][:limit]
        found: list[SessionSummary] = []
        async for summary in sessions.all():
            found.append(summary)
            if len(found) >= limit:
                break
        return found

    if bool(issuer) != bool(subject):
        msg = "--issuer and --subject go together: a subject alone does not name a user"
        raise click.UsageError(msg)
    found = _run(app, work)
    print_found(*map(_line, found), data=[_facts(summary) for summary in found] if as_json else None)
    if not found:
        click.echo("no live session", err=True)


@click.command("show", context_settings=_ANY_HANDLE)
@click.argument("handle")
@JSON_OPTION
def _show(app: Litestar, handle: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """Show one session: user, times and device. Never its data or tokens."""

    async def work(sessions: SessionManager) -> SessionSummary | None:
        async for summary in sessions.all():
            if summary.handle == handle:
                return summary
        return None

    summary = _run(app, work)
    if summary is None:
        _not_found(handle)
        return
    identity, acting_as = summary.identity, summary.acting_as
    facts = (
        ("handle", summary.handle),
        ("issuer", identity.issuer if identity else "-"),
        ("subject", identity.subject if identity else "(not logged in)"),
        *([("acting as", f"{acting_as.subject} @ {acting_as.issuer}")] if acting_as else []),
        ("created", _time(summary.created_at)),
        ("last seen", _time(summary.last_seen_at)),
        ("idle until", _time(summary.idle_expires_at)),
        ("absolute until", _time(summary.absolute_expires_at)),
        ("address", summary.device.ip or "-"),
        ("user agent", summary.device.user_agent or "-"),
        ("bytes", str(summary.size)),
    )
    print_found(*(f"{name:15} {printable(value)}" for name, value in facts), data=_facts(summary) if as_json else None)


@click.command("revoke", context_settings=_ANY_HANDLE)
@click.argument("handle")
@JSON_OPTION
def _revoke(app: Litestar, handle: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """End the session with this handle."""
    if _run(app, lambda sessions: sessions.revoke_any(handle)):
        print_found(f"ended {handle}", data={"ended": 1} if as_json else None)
    else:
        _not_found(handle)


@click.command("revoke-all")
@click.option("--issuer", required=True)
@click.option("--subject", required=True)
@JSON_OPTION
def _revoke_all(app: Litestar, issuer: str, subject: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """End all sessions of one user."""

    async def work(sessions: SessionManager) -> int:
        return sum([await sessions.revoke_all(user, reason="operator") for user in _users(issuer, subject)])

    count = _run(app, work)
    print_found(f"ended {count} session(s)", data={"ended": count} if as_json else None)


@click.command("revoke-before")
@click.argument("moment")
@JSON_OPTION
def _revoke_before(app: Litestar, moment: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """End all sessions that began before MOMENT: `now`, or a time such as 2026-01-31T12:00:00Z.

    After a restore from a backup this ends the sessions that had ended since the backup.
    """
    try:
        instant = datetime.now(UTC) if moment == "now" else datetime.fromisoformat(moment)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        msg = f"{moment!r} is not a point in time: write now, or a time with its offset such as 2026-01-31T12:00:00Z"
        raise click.BadParameter(msg)
    count = _run(app, lambda sessions: sessions.revoke_before(round(instant.timestamp() * 1000)))
    before = instant.astimezone(UTC).isoformat(timespec="seconds")
    data = {"ended": count, "before": before} if as_json else None
    print_found(f"ended {count} session(s) that began before {before}", data=data)


@click.command("prune")
@click.option("--batch", type=int, default=1000, show_default=True, help="Records removed in one step.")
@JSON_OPTION
def _prune(app: Litestar, batch: int, as_json: bool) -> None:  # noqa: FBT001 - click
    """Remove expired records from the store."""
    count = _run(app, lambda sessions: sessions.prune(batch=batch))
    print_found(f"removed {count} expired record(s)", data={"removed": count} if as_json else None)


@click.command("stats")
@JSON_OPTION
def _stats(app: Litestar, as_json: bool) -> None:  # noqa: FBT001 - click
    """Count the live sessions and print their sizes."""
    stats = _run(app, lambda sessions: sessions.stats())
    print_found(
        f"sessions    {stats.total}",
        f"logged in   {stats.logged_in} (of {stats.users} users)",
        f"anonymous   {stats.anonymous}",
        f"undecodable {stats.undecodable}",
        f"bytes       p50 {stats.size_p50}, p90 {stats.size_p90}, p99 {stats.size_p99}, max {stats.size_max}",
        "last used   " + ", ".join(f"{name} {count}" for name, count in stats.idle.items()),
        *(printable(f"issuer      {issuer} {count}") for issuer, count in stats.issuers.items()),
        data=stats if as_json else None,
    )


@click.command("refresh-tokens")
@click.option("--horizon", type=click.IntRange(min=0), help="Refresh access tokens that expire within this many seconds.")
@click.option("--concurrency", type=click.IntRange(1, 100), help="How many sessions are refreshed at once.")
@click.option("--dry-run", is_flag=True, help="Only count those that are due.")
@click.option("--json", is_flag=True, expose_value=False, help="As without it: the output is JSON.")
def _refresh_tokens(app: Litestar, horizon: int | None, concurrency: int | None, dry_run: bool) -> None:  # noqa: FBT001 - click
    """Refresh the tokens of the sessions that are due, and print how many as JSON."""
    login = next((plugin for plugin in app.plugins if isinstance(plugin, _RefreshesTokens)), None)
    if login is None:
        click.echo("error: the application has no OidcPlugin, so there are no tokens", err=True)
        sys.exit(_FAILED)
    result = _run(app, lambda _: login.refresh_tokens(horizon_seconds=horizon, concurrency=concurrency, dry_run=dry_run))
    print_found(data=result)
    if result.failed or not result.complete:
        sys.exit(_FAILED)


@click.command("generate-secret")
@JSON_OPTION
def _generate_secret(as_json: bool) -> None:  # noqa: FBT001 - click
    """Print a new random secret: fit for SESSION_SECRETS and for SESSION_ENCRYPTION_KEYS (32 bytes, base64url)."""
    secret = secrets.token_urlsafe(32)
    print_found(secret, data={"secret": secret} if as_json else None)


@click.command("rotate")
@click.option("--env-file", type=click.Path(dir_okay=False), default=".env", show_default=True)
@click.option(
    "--name",
    type=click.Choice(["SESSION_SECRETS", "SESSION_ENCRYPTION_KEYS"]),
    default="SESSION_SECRETS",
    show_default=True,
)
@click.option(
    "--keep", type=click.IntRange(min=0), default=1, show_default=True, help="How many old ones still verify or decrypt."
)
@JSON_OPTION
@click.pass_context
def _rotate(context: click.Context, env_file: str, name: str, keep: int, as_json: bool) -> None:  # noqa: FBT001 - click
    """Put a new secret in front of those in a settings file.

    Restart the application to use it; cookies are re-signed as they come.
    """
    # The application takes the environment's value, so a leaked secret would stay valid.
    if context.get_parameter_source("env_file") is ParameterSource.DEFAULT and is_overridden(env_file, name):
        click.echo(
            f"error: {name} is set in the environment, not in {env_file}: name the file that sets it with --env-file, or put a "
            "new secret there, from `litestar sessions generate-secret`",
            err=True,
        )
        sys.exit(_FAILED)
    kept = rotate_secret(env_file, name, secrets.token_urlsafe(32), keep=keep)
    new, old = ("key encrypts", "decrypt") if name == "SESSION_ENCRYPTION_KEYS" else ("secret signs", "verify")
    line = f"{name} in {env_file}: a new {new}, {kept} old one(s) still {old}"
    print_found(line, data={"name": name, "env_file": env_file, "kept": kept} if as_json else None)


@click.command("check")
@click.option("--online", is_flag=True, help="Also check that the store, the provider and other services answer.")
@JSON_OPTION
def _check(app: Litestar, online: bool, as_json: bool) -> None:  # noqa: FBT001 - click
    """Check the settings for the environment of the application, and print every route with its guards."""
    plugin = application_in(app)
    environment, problems = "session settings", session_problems(plugin.config, plugin.store.capabilities)
    if app_check := app.opt.get("posture_check"):
        environment, app_problems, enforced = app_check()
        problems = app_problems if enforced else []
    routes = routes_posture(app)
    if not as_json:
        print_found(*routes_table(routes))  # before the services are asked, which may take seconds
        print_found(*(f"NOT FIT for {environment}: {problem}" for problem in problems), err=True)
    answers = asyncio.run(check_online(app)) if online else []
    fit = not problems and all(answer.good for answer in answers)
    if as_json:
        found = {"environment": environment, "fit": fit, "problems": problems, "routes": [each._asdict() for each in routes]}
        print_found(data={**found, "online": answers} if online else found)
    else:
        for answer in answers:
            print_found(printable(str(answer)), err=not answer.good)
        print_found(*([f"fit for {environment}"] if fit else []))
    if not fit:
        sys.exit(_FAILED)


def _users(issuer: str, subject: str) -> list[Identity]:
    """Return the user by the issuer as given, and also with or without a slash at its end."""
    other = issuer.rstrip("/") if issuer.endswith("/") else f"{issuer}/"
    return [Identity(issuer=each, subject=subject) for each in (issuer, other)]


def _line(summary: SessionSummary) -> str:
    who = f"{summary.identity.subject} @ {summary.identity.issuer}" if summary.identity else "(not logged in)"
    who += f" as {summary.acting_as.subject} @ {summary.acting_as.issuer}" if summary.acting_as else ""
    return printable(f"{summary.handle}  {_time(summary.last_seen_at)}  {summary.device.ip or '-':15}  {who}")


def _facts(summary: SessionSummary) -> dict[str, object]:
    """Return the public facts about a session; times are Unix milliseconds."""
    identity = summary.identity
    return {
        "handle": summary.handle,
        "issuer": identity.issuer if identity else None,
        "subject": identity.subject if identity else None,
        "created_at": summary.created_at,
        "last_seen_at": summary.last_seen_at,
        "idle_expires_at": summary.idle_expires_at,
        "absolute_expires_at": summary.absolute_expires_at,
        "ip": summary.device.ip,
        "user_agent": summary.device.user_agent,
        "bytes": summary.size,
        "acting_as": {"issuer": summary.acting_as.issuer, "subject": summary.acting_as.subject} if summary.acting_as else None,
    }


def _time(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "never"


def _not_found(handle: str) -> None:
    click.echo(f"no live session has the handle {handle!r}", err=True)
    sys.exit(_NOT_FOUND)
