"""Who may pass: the rules that the guards of every framework check. Independent of frameworks and requests."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from session_core.errors import AccessDeniedError, ConfigurationError, ForbiddenError, LoginRequiredError, StepUpRequiredError

if TYPE_CHECKING:
    from session_core.config import SessionConfig
    from session_core.events import Events
    from session_core.identity import Identity
    from session_core.sessions.handle import SessionHandle

__all__ = ("Rule", "acr_rule", "check", "login_rule", "predicate_rule", "recent_login_rule", "role_rule")

Rule: TypeAlias = "Callable[[SessionHandle[Any], Identity, SessionConfig[Any]], Awaitable[None]]"
"""Raises an `AccessDeniedError` where the logged-in user may not pass."""

_ACR: Final = re.compile(r"[!#-\[\]-~]{1,255}\Z")
"""Printable ASCII without space, quote and backslash: a list of them is sent as words, and quoted in a header (RFC 9470 3)."""


async def check(session: SessionHandle[Any], rule: Rule, config: SessionConfig[Any], events: Events) -> None:
    """Check a rule for a logged-in, active user; a refusal of one is an event. Raises an `AccessDeniedError`."""
    try:
        identity = session.identity
        if identity is None:
            raise LoginRequiredError
        if not await config.lets_act(identity):
            raise ForbiddenError
        await rule(session, identity, config)
    except AccessDeniedError as error:
        if not isinstance(error, LoginRequiredError):
            await events.emit("access.denied", handle=session.handle, identity=session.identity, reason=error.code)
        raise


async def login_rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
    """Every logged-in user may pass."""
    del session, identity, config


def predicate_rule(predicate: Callable[[SessionHandle[Any]], bool | Awaitable[bool]]) -> Rule:
    """Users may pass of whose session `predicate` is true."""

    async def rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        del identity, config
        # Exactly True: a predicate that forgets to call something must not let every user in.
        if await _result(predicate(session)) is not True:
            raise ForbiddenError

    return rule


def role_rule(roles: tuple[str, ...]) -> Rule:
    """Users may pass who have one of the roles now. Raises `ConfigurationError` without any."""
    if not roles:
        msg = "requires_role needs at least one role, for example requires_role('admin')"
        raise ConfigurationError(msg)

    async def rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        del identity
        has = await _result(config.roles(session))
        if not set(roles) & set(has):
            raise ForbiddenError

    return rule


def recent_login_rule(minutes: float, seconds: float) -> tuple[Rule, int]:
    """Users may pass who proved who they are at most so long ago; also returns that in seconds. Raises `ConfigurationError`."""
    max_age = int(minutes * 60 + seconds)
    if max_age <= 0:
        msg = "requires_recent_login needs a positive time, for example requires_recent_login(minutes=5)"
        raise ConfigurationError(msg)

    async def rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        del session
        # An OP that does not say when has not proved that it was recently.
        if identity.auth_time is None or config.clock.now() // 1000 - identity.auth_time > max_age:
            raise StepUpRequiredError(max_age=max_age)

    return rule, max_age


def acr_rule(acr_values: tuple[str, ...]) -> Rule:
    """Users may pass whose login reached one of these classes (OpenID Connect Core 2, `acr`). Raises `ConfigurationError`."""
    if not acr_values or not all(_ACR.match(value) for value in acr_values):
        msg = "requires_acr needs at least one value, and values are single words, for example requires_acr('phr')"
        raise ConfigurationError(msg)

    async def rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        del session, config
        if identity.acr not in acr_values:
            raise StepUpRequiredError(acr_values=acr_values)

    return rule


async def _result(value: Any) -> Any:  # noqa: ANN401 - bool or roles, plain or awaitable
    return await value if inspect.isawaitable(value) else value
