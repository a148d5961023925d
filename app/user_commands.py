"""`litestar users ...`: find, disable and enable users; recorded in the audit trail with the command line as actor."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
import msgspec
from litestar import Litestar
from litestar.plugins import CLIPlugin
from sqlalchemy.exc import SQLAlchemyError

from app.data.database import DatabaseUnavailableError
from session_core import Identity, SessionPlugin
from session_core.errors import SessionCoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from app.data.users import User
    from app.services import Services

__all__ = ("UserCommands",)

T = TypeVar("T")
_FAILED: Final = 1
_NOT_FOUND: Final = 2
_MOST: Final = 100


class UserCommands(CLIPlugin):
    """Adds the commands to Litestar's command line."""

    def on_cli_init(self, cli: click.Group) -> None:
        """Add `users`."""
        kind = cast("type[click.Group]", getattr(cli, "group_class", None) or click.Group)
        group = kind("users", help="Find, disable and enable users.")
        for command in (_find, _disable, _enable):
            group.add_command(command)
        cli.add_command(group)


@click.command("find")
@click.argument("text", default="")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def _find(app: Litestar, text: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """List users whose name, e-mail address or subject contains TEXT, the latest login first."""
    found = _run(app, lambda services: services.users.search(text, limit=_MOST))
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    for user in found:
        click.echo(_line(user))


@click.command("disable")
@click.argument("who")
def _disable(app: Litestar, who: str) -> None:
    """Disable a user from the next request on, and end all sessions. WHO: an e-mail address, a subject or a user key."""

    async def work(services: Services) -> tuple[User, int]:
        user = await _one(services, who)
        await services.users.set_disabled(user.key, disabled=True)
        services.audit.add("user.disabled", user_key=user.key)
        plugin = app.plugins.get(SessionPlugin)
        await plugin.store.open()
        try:
            identity = Identity(issuer=user.issuer, subject=user.subject)
            return user, await plugin.sessions.revoke_all(identity, reason="disabled")
        finally:
            await plugin.store.close()

    user, ended = _run(app, work)
    click.echo(f"disabled {_printable(user.name)}, ended {ended} session(s)")


@click.command("enable")
@click.argument("who")
def _enable(app: Litestar, who: str) -> None:
    """Let a disabled user log in again. WHO as for `disable`."""

    async def work(services: Services) -> User:
        user = await _one(services, who)
        await services.users.set_disabled(user.key, disabled=False)
        services.audit.add("user.enabled", user_key=user.key)
        return user

    click.echo(f"enabled {_printable(_run(app, work).name)}")


async def _one(services: Services, who: str) -> User:
    """Return the named user; end the command if there is none, or more than one."""
    by_key = await services.users.find(who) if who.isprintable() else None
    candidates = [by_key] if by_key else await services.users.search(who, limit=_MOST)
    meant = [user for user in candidates if who in {user.key, user.subject} or who.lower() == (user.email or "").lower()]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        click.echo(f"no user has the e-mail address, subject or key {_printable(who)!r}", err=True)
    else:
        click.echo("several users match; name one by its key:", err=True)
        for user in meant:
            click.echo(_line(user), err=True)
    sys.exit(_NOT_FOUND)


def _run(app: Litestar, work: Callable[[Services], Coroutine[Any, Any, T]]) -> T:
    services: Services = app.state["services"]

    async def with_database() -> T:
        async with app.opt["command_context"]():
            return await work(services)

    try:
        return asyncio.run(with_database())
    except (SQLAlchemyError, DatabaseUnavailableError, OSError):
        click.echo("error: the database does not answer, or is not migrated", err=True)
    except SessionCoreError as error:
        click.echo(f"error: {error.title}", err=True)
    sys.exit(_FAILED)


def _line(user: User) -> str:
    state = "disabled" if user.disabled else "active"
    return _printable(f"{user.key}  {state:8}  {user.email or '-'}  {user.name}  {user.subject} @ {user.issuer}")


def _printable(text: str) -> str:
    """Escape terminal control characters: names come from the provider."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
