"""Reads what a browser, or another site through it, asks of a login: an allow-list, bounded, each parameter once.

The author of a link decides about these, so none of them can weaken what a login must prove: what is asked of the provider by
`max_age` and `acr_values` is at least what the configuration asks, and is checked when the browser comes back. `prompt` proves
nothing, and replaces the configured one: to have every user log in anew, configure `max_age=0`.
"""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from session_core.errors import AuthorizationResponseError
from session_core.oidc.login.authorization_response import single_params
from session_core.oidc.login.return_to import local_return_to
from session_core.oidc.provider.openid import OidcProvider

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from session_core.oidc.provider.registration import Registration
    from session_core.urls import BaseUrl

__all__ = (
    "LoginDemands", "LoginRequest", "carried_params", "login_demands", "read_initiated_login", "read_login_request",
    "return_to_of",
)  # fmt: skip

_MAX_HINT: Final = 256
_MAX_ACR: Final = 512
_MAX_URI: Final = 2048
_MAX_AGE_DIGITS: Final = 9
_REAUTHENTICATION_MAX_AGE: Final = 60
"""With any value a provider says when the user logged in, and `prompt=login` does the rest. Not 0: some would ask without end."""
_PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
_LOCALES: Final = re.compile(r"[A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8})*(?: [A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8})*)*\Z")
_MAX_LOCALES: Final = 128
_INITIATED: Final = frozenset({"iss", "login_hint", "target_link_uri"})
_LOGIN_PARAMS: Final = _INITIATED | {
    *("next", "max_age", "acr_values", "prompt", "ui_locales", "provider", "unsent", "page", "option")
}


class LoginRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parameters of a request for a login. `next` and `target_link_uri` are not checked here.

    `others` are parameters that some provider takes from a link. `issuer` and `target_link_uri` come with a login that a third
    party initiates (OpenID Connect Core 4). `unsent`: the login interrupts a form, whose page is to say that it was not sent.
    `page`: the redirect may follow a form, so a page leads on. `option` names one of `OidcConfig.login_options`.
    """

    next: str | None = None
    max_age: int | None = None
    acr_values: tuple[str, ...] = ()
    prompt: str | None = None
    login_hint: str | None = None
    ui_locales: str | None = None
    provider: str | None = None
    issuer: str | None = None
    target_link_uri: str | None = None
    others: dict[str, str] = {}
    unsent: bool = False
    page: bool = False
    option: str | None = None


class LoginDemands(msgspec.Struct, frozen=True, kw_only=True):
    """What a login must prove; checked when it comes back. `max_age` is in seconds.

    `reauthenticate`: the user must prove who they are in this very login. `params` are what is sent to ask for all of this; they
    prove nothing.
    """

    max_age: int | None = None
    acr_values: tuple[str, ...] = ()
    reauthenticate: bool = False
    params: dict[str, str] = {}


def read_login_request(query: bytes, also: AbstractSet[str] = frozenset()) -> LoginRequest:
    """Return the parameters of `GET /auth/login`. Raises `AuthorizationResponseError` (`login_parameter`).

    `also` names further ones, each of which some provider takes from a link.
    A wrong `max_age` is refused, not ignored: the login that follows would look as if it had been recent.
    """
    params = single_params(query, AuthorizationResponseError, only=_LOGIN_PARAMS | also)
    others = {name: value for name, value in params.items() if name in also}
    max_age, prompt, hint, locales = (params.get(name) for name in ("max_age", "prompt", "login_hint", "ui_locales"))
    acr_values = params.get("acr_values", "")
    fit = (
        (max_age is None or (max_age.isascii() and max_age.isdigit() and len(max_age) <= _MAX_AGE_DIGITS))
        and (prompt is None or prompt in _PROMPTS)
        and (hint is None or (0 < len(hint) <= _MAX_HINT and hint.isprintable()))
        and (len(acr_values) <= _MAX_ACR and acr_values.isascii() and acr_values.isprintable())
        and all(0 < len(value) <= _MAX_HINT and value.isprintable() for value in others.values())
        and (locales is None or (len(locales) <= _MAX_LOCALES and _LOCALES.match(locales) is not None))
    )
    if not fit:
        raise AuthorizationResponseError("login_parameter")
    return LoginRequest(
        next=params.get("next"),
        max_age=None if max_age is None else int(max_age),
        acr_values=tuple(dict.fromkeys(acr_values.split())),
        prompt=prompt,
        login_hint=hint,
        ui_locales=locales,
        provider=params.get("provider"),
        issuer=params.get("iss"),
        target_link_uri=params.get("target_link_uri"),
        others=others,
        unsent=params.get("unsent") == "1",
        page=params.get("page") == "1",
        option=params.get("option"),
    )


def carried_params(query: bytes, also: AbstractSet[str] = frozenset()) -> dict[str, str]:
    """Return what `read_login_request` reads, as it came, without what names a provider."""
    return single_params(query, AuthorizationResponseError, only=(_LOGIN_PARAMS - {"provider", "iss"}) | also)


def read_initiated_login(body: bytes) -> dict[str, str]:
    """Return the parameters of a login that another site initiates by POST (OpenID Connect Core 4), and no others.

    Raises `AuthorizationResponseError`.
    """
    params = single_params(body, AuthorizationResponseError, only=_INITIATED)
    if "iss" not in params or any(len(value) > _MAX_URI or not value.isprintable() for value in params.values()):
        raise AuthorizationResponseError("login_parameter")
    return params


def login_demands(asked: LoginRequest, provider: Registration, *, reauthenticate: bool = False) -> LoginDemands:
    """Return the stricter of what was asked and what is configured. Raises `AuthorizationResponseError` when it cannot be had.

    `reauthenticate`: the browser's session was ended from elsewhere, so single sign-on is not enough.
    """
    if reauthenticate and asked.prompt == "none":
        raise AuthorizationResponseError("reauthentication_required")
    if not isinstance(provider, OidcProvider):
        # It says neither when nor how: better no login than one that looks as strong as was asked, or a page instead of silence.
        if asked.max_age is not None or asked.acr_values:
            raise AuthorizationResponseError("step_up_unsupported")
        if asked.prompt == "none":
            raise AuthorizationResponseError("silent_unsupported")
        params = _params(None, (), _prompt(asked, provider, reauthenticate=reauthenticate))
        return LoginDemands(reauthenticate=reauthenticate, params=params)
    floor_acr = tuple(provider.acr_values)
    ages = [age for age in (asked.max_age, provider.max_age) if age is not None]
    if floor_acr and not set(asked.acr_values) <= set(floor_acr):
        raise AuthorizationResponseError("login_parameter")
    acr_values = asked.acr_values or floor_acr
    prompt = _prompt(asked, provider, reauthenticate=reauthenticate, step_up=bool(ages) and provider.step_up_prompt)
    sent_ages = [*ages, _REAUTHENTICATION_MAX_AGE] if reauthenticate else ages
    return LoginDemands(
        max_age=min(ages, default=None),
        acr_values=acr_values,
        reauthenticate=reauthenticate,
        params=_params(min(sent_ages, default=None), acr_values, prompt),
    )


def _params(max_age: int | None, acr_values: tuple[str, ...], prompt: str | None) -> dict[str, str]:
    """Return parameters of an authorization request (OpenID Connect Core 3.1.2.1)."""
    given = {"max_age": max_age, "acr_values": " ".join(acr_values) or None, "prompt": prompt}
    return {name: str(value) for name, value in given.items() if value is not None}


def _prompt(asked: LoginRequest, provider: Registration, *, reauthenticate: bool, step_up: bool = False) -> str | None:
    """Return the `prompt` to send; None for the configured one. What is needed is added to what is asked or configured."""
    needed = provider.reauthentication_prompt if reauthenticate else "login" if step_up else None
    if needed is None or asked.prompt == "none":
        return asked.prompt
    others = (asked.prompt or provider.authorization_params.get("prompt", "")).split()
    return " ".join(dict.fromkeys((needed, *others)))


def return_to_of(asked: LoginRequest, base: BaseUrl) -> str:
    """Return the path in a browser that the login leads back to: a page of ours.

    The initiator of a login may name any address (OpenID Connect Core 4: no open redirector). Below a path, `next` is a
    path in a browser or one of the application's own; it leads to no page outside.
    """
    target = asked.target_link_uri
    local = target.removeprefix(base.url) if target and target.startswith(f"{base.url}/") else None
    return_to = local_return_to(base.local(asked.next) if asked.next else local)
    if asked.unsent:
        return_to = local_return_to(f"{return_to}{'&' if '?' in return_to else '?'}unsent=1", default=return_to)
    return base.of(return_to)
