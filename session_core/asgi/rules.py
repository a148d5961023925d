"""The rules that the guards of every framework check. Independent of frameworks and requests."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from session_core.config import SessionConfig
from session_core.errors import (
    AccessDeniedError,
    ConfigurationError,
    ForbiddenError,
    ImpersonationForbiddenError,
    LoginRequiredError,
    StepUpRequiredError,
)
from session_core.events import Events
from session_core.identity import Identity
from session_core.sessions.handle import SessionHandle

__all__ = ("Rule", "acr_rule", "check", "login_rule", "own_rule", "predicate_rule", "recent_login_rule", "role_rule")

Rule: TypeAlias = "Callable[[SessionHandle[Any], Identity, SessionConfig[Any]], Awaitable[None]]"
"""Raises an `AccessDeniedError` when the logged-in user is refused."""

_ACR: Final = re.compile(r"[!#-\[\]-~]{1,255}\Z")
"""Printable ASCII without space, quote and backslash: values are sent in a space-separated list in a quoted header (RFC 9470
3)."""


async def check(session: SessionHandle[Any], rule: Rule, config: SessionConfig[Any], events: Events) -> None:
    """Check that a user is logged in and active and passes the rule; emit an event on refusal. Raises an `AccessDeniedError`."""
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
    """Accepts every logged-in user."""
    del session, identity, config


async def own_rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
    """Accepts users who act for themselves; refuses an administrator who acts as the user."""
    del identity, config
    if session.actor is not None:
        raise ImpersonationForbiddenError


def predicate_rule(predicate: Callable[[SessionHandle[Any]], bool | Awaitable[bool]]) -> Rule:
    """Accepts users for whose session `predicate` returns True."""

    async def rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        del identity, config
        # Exactly True: a predicate that returns an uncalled function must not accept every user.
        if await _result(predicate(session)) is not True:
            raise ForbiddenError

    return rule


def role_rule(roles: tuple[str, ...]) -> Rule:
    """Accepts users who have one of the roles now. Raises `ConfigurationError` if `roles` is empty."""
    if not roles:
        msg = "requires_role needs at least one role, for example requires_role('admin')"
        raise ConfigurationError(msg)

    async def rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        del identity
        has = await _result(config.roles(session))
        if not set(roles) & set(has):
            raise ForbiddenError(roles=roles)

    return rule


def recent_login_rule(minutes: float, seconds: float) -> tuple[Rule, int]:
    """Accepts users who authenticated at most this long ago; also returns the time in seconds. Raises `ConfigurationError`."""
    max_age = int(minutes * 60 + seconds)
    if max_age <= 0:
        msg = "requires_recent_login needs a positive time, for example requires_recent_login(minutes=5)"
        raise ConfigurationError(msg)

    async def rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        await own_rule(session, identity, config)
        # Without `auth_time` the OP has not proved a recent login.
        if identity.auth_time is None or config.clock.now() // 1000 - identity.auth_time > max_age:
            raise StepUpRequiredError(max_age=max_age)

    return rule, max_age


def acr_rule(acr_values: tuple[str, ...]) -> Rule:
    """Accepts users whose login has one of these classes (OpenID Connect Core 2, `acr`). Raises `ConfigurationError`."""
    if not acr_values or not all(_ACR.match(value) for value in acr_values):
        msg = "requires_acr needs at least one value, and values are single words, for example requires_acr('phr')"
        raise ConfigurationError(msg)

    async def rule(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        await own_rule(session, identity, config)
        if identity.acr not in acr_values:
            raise StepUpRequiredError(acr_values=acr_values)

    return rule


async def _result(value: Any) -> Any:  # noqa: ANN401 - bool or roles, plain or awaitable
    return await value if inspect.isawaitable(value) else value
