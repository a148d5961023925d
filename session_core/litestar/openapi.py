"""Adds sessions to the OpenAPI schema: the cookie on guarded routes, and the errors of the library."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar.config.app import AppConfig
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Components, Operation, SecurityScheme
from litestar.types import Empty

from session_core.config import SessionConfig
from session_core.litestar.routes import is_public, is_state_changing, session_guards

__all__ = ("PublicOperation", "SessionProblem", "describe", "describe_application", "problem_responses")

_SCHEME: Final = "session"
_BEARER: Final = "bearer"
_DESCRIPTIONS: Final = {
    400: "The request is malformed",
    401: "No user is logged in, or the login is not recent or strong enough",
    403: "The user may not do this, or another site sent the request",
    404: "There is no such resource",
    409: "Another request changed the same field of the session",
    429: "The client exceeded a rate limit",
    502: "The identity provider did not answer as it must",
    503: "The session store, or the identity provider, does not answer",
    504: "The identity provider did not answer in time",
}


class SessionProblem(msgspec.Struct):
    """The problem details (RFC 9457) of an error."""

    type: str
    title: str
    status: int
    code: str | msgspec.UnsetType = msgspec.UNSET
    """The stable code of an error of the library."""
    detail: str | msgspec.UnsetType = msgspec.UNSET
    fields: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Of a conflict: the fields of the session."""
    max_age: int | msgspec.UnsetType | None = msgspec.UNSET
    """Of a step-up: how old the login may be, in seconds."""
    acr_values: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Of a step-up: the authentication context classes of which one is needed."""


def problem_responses(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the documentation of responses with these statuses as problem+json, for `responses` of a handler."""
    return {
        status: ResponseSpec(
            data_container=SessionProblem,
            description=_DESCRIPTIONS[status],
            generate_examples=False,
            media_type="application/problem+json",
        )
        for status in sorted(statuses)
    }


def describe_application(app_config: AppConfig, config: SessionConfig[Any]) -> None:
    """Add the security schemes to the components of the application's schema."""
    if app_config.openapi_config is None:
        return
    ours = Components(
        security_schemes={
            _SCHEME: SecurityScheme(
                type="apiKey",
                name=config.resolved_cookie.name,
                security_scheme_in="cookie",
                description=f"The session cookie; GET {config.login_path} begins the login that sets it.",
            )
        },
    )
    if config.bearer and ours.security_schemes is not None:
        ours.security_schemes[_BEARER] = SecurityScheme(
            type="http", scheme="bearer", description="The token of a native client's session, in place of the cookie (RFC 6750)."
        )
    theirs = app_config.openapi_config.components
    # The application's own come last and take precedence.
    described = copy(app_config.openapi_config)  # the default one is shared by all applications
    described.components = [ours, *(theirs if isinstance(theirs, list) else [theirs])]
    app_config.openapi_config = described


def describe(handler: BaseRouteHandler, *, uses: bool, bearer: bool = False) -> None:
    """Document on a handler's operation whether it needs the cookie, and the library's errors. `uses`: the session.

    `bearer`: a token is accepted in place of the cookie.
    """
    if not isinstance(handler, HTTPRouteHandler):
        return
    guarded = bool(session_guards(handler)) and not is_public(handler)
    statuses = {401, 403, 409, 503} if guarded else {409, 503} if uses else set()
    if is_state_changing(handler) and not handler.opt.get("cross_site"):
        statuses.add(403)
    if bearer and uses:  # a token that is unknown, or that comes beside the cookie
        statuses |= {400, 401}
    handler.responses = {**problem_responses(*statuses), **(handler.responses or {})}
    if guarded:
        if not any(_SCHEME in requirement for requirement in handler.resolve_security()):
            ways: list[dict[str, list[str]]] = [{_SCHEME: []}, {_BEARER: []}] if bearer else [{_SCHEME: []}]
            handler.security = [*(handler.security or ()), *ways]
            handler._resolved_security = Empty  # noqa: SLF001 - asked for just now; nothing else makes Litestar forget it
    elif handler.operation_class is Operation:
        handler.operation_class = PublicOperation


@dataclass
class PublicOperation(Operation):
    """An operation that needs no login, even if the application's schema requires one globally."""

    def __post_init__(self) -> None:
        """Set no security requirement, unless the application has set one."""
        if self.security is None:
            self.security = []
