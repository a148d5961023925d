"""`litestar users ...`: find, disable and enable users; recorded in the audit trail with the command line as actor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
import msgspec
from litestar import Litestar
from litestar.plugins import CLIPlugin

from app.data.database import DatabaseUnavailableError
from session_core import Identity, SessionPlugin
from session_core.errors import SessionCoreError
from session_core.litestar.output import JSON_OPTION, print_found, printable

if TYPE_CHECKING:
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
@JSON_OPTION
def _find(app: Litestar, text: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """List users whose name, e-mail address or subject contains TEXT, the latest login first."""
    found = _run(app, lambda services: services.users.search(text, limit=_MOST))
    print_found(*map(_line, found), data=found if as_json else None)
    if not found:
        click.echo("no user matches", err=True)


@click.command("disable")
@click.argument("who")
@JSON_OPTION
def _disable(app: Litestar, who: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """Disable a user from the next request on, and end all sessions. WHO: an e-mail address, a subject or a user key."""

    async def work(services: Services) -> tuple[User, int]:
        user = await _one(services, who)
        await services.users.set_disabled(user.key, disabled=True)
        services.audit.add("user.disabled", user_key=user.key)
        plugin = app.plugins.get(SessionPlugin)
        try:
            await plugin.store.open()
            identity = Identity(issuer=user.issuer, subject=user.subject)
            return msgspec.structs.replace(user, disabled=True), await plugin.sessions.revoke_all(identity, reason="disabled")
        except SessionCoreError:
            click.echo(f"disabled {printable(user.name)}, but some sessions may not have ended: repeat the command", err=True)
            raise
        finally:
            await plugin.store.close()

    user, ended = _run(app, work)
    data = {"user": user, "ended": ended} if as_json else None
    print_found(f"disabled {printable(user.name)}, ended {ended} session(s)", data=data)


@click.command("enable")
@click.argument("who")
@JSON_OPTION
def _enable(app: Litestar, who: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """Let a disabled user log in again. WHO as for `disable`."""

    async def work(services: Services) -> User:
        user = await _one(services, who)
        await services.users.set_disabled(user.key, disabled=False)
        services.audit.add("user.enabled", user_key=user.key)
        return msgspec.structs.replace(user, disabled=False)

    user = _run(app, work)
    print_found(f"enabled {printable(user.name)}", data={"user": user} if as_json else None)


async def _one(services: Services, who: str) -> User:
    """Return the named user; end the command if there is none, or more than one."""
    by_key = await services.users.find(who) if who.isprintable() else None
    candidates = [by_key] if by_key else await services.users.search(who, limit=_MOST)
    meant = [user for user in candidates if who in {user.key, user.subject} or who.lower() == (user.email or "").lower()]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        click.echo(f"no user has the e-mail address, subject or key {printable(who)!r}", err=True)
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
    except DatabaseUnavailableError:
        click.echo("error: the database does not answer, or is not migrated", err=True)
    except SessionCoreError as error:
        click.echo(f"error: {error.title}", err=True)
    sys.exit(_FAILED)


def _line(user: User) -> str:
    state = "disabled" if user.disabled else "active"
    return printable(f"{user.key}  {state:8}  {user.email or '-'}  {user.name}  {user.subject} @ {user.issuer}")
