"""Parses the parameters of a login link: an allow-list, bounded, each parameter once.

Any site can write such a link, so no parameter can weaken a login: `max_age` and `acr_values` are at least as strict as
configured, and are checked at the callback. `prompt` proves nothing and replaces the configured one: to make every user log in
again, configure `max_age=0`.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from session_core.errors import AuthorizationResponseError
from session_core.oidc.login.authorization_response import single_params
from session_core.oidc.login.return_to import local_return_to
from session_core.oidc.provider.openid import OidcProvider
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
"""Any value makes a provider send `auth_time`; `prompt=login` asks for the login. Not 0: some providers would then ask
endlessly."""
_PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
_LOCALES: Final = re.compile(r"[A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8})*(?: [A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8})*)*\Z")
_MAX_LOCALES: Final = 128
_INITIATED: Final = frozenset({"iss", "login_hint", "target_link_uri"})
_LOGIN_PARAMS: Final = _INITIATED | {
    *("next", "max_age", "acr_values", "prompt", "ui_locales", "provider", "unsent", "page", "option")
}


class LoginRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a request for a login. `next` and `target_link_uri` are not checked here.

    `others` are parameters that a provider accepts from links. `issuer` and `target_link_uri` belong to a login that a third
    party initiates (OpenID Connect Core 4). `unsent`: the login interrupts a form, whose page then says that it was not sent.
    `page`: the redirect may follow a form, so a page is sent instead. `option` names one of `OidcConfig.login_options`.
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
    """The requirements of a login, checked at the callback. `max_age` is in seconds.

    `reauthenticate`: the user must authenticate in this login, not by single sign-on. `params` are the request parameters that
    ask for all of this; they prove nothing.
    """

    max_age: int | None = None
    acr_values: tuple[str, ...] = ()
    reauthenticate: bool = False
    params: dict[str, str] = {}


def read_login_request(query: bytes, also: AbstractSet[str] = frozenset()) -> LoginRequest:
    """Return the parameters of `GET /auth/login`. Raises `AuthorizationResponseError` (`login_parameter`).

    `also` names further parameters that a provider accepts from links.
    An invalid `max_age` is refused, not ignored: otherwise the login would seem recent.
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
    """Return the unparsed parameters of `read_login_request`, without those that name a provider."""
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
    """Return the stricter of requested and configured values. Raises `AuthorizationResponseError` if they contradict each other.

    `reauthenticate`: the browser's session was revoked, so single sign-on is not enough.
    """
    if reauthenticate and asked.prompt == "none":
        raise AuthorizationResponseError("reauthentication_required")
    if not isinstance(provider, OidcProvider):
        # The provider reports neither time nor method: refuse, because the login would seem stronger than it is.
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
    """Return the `prompt` to send, None for the configured one: the requested or configured prompt plus what is required."""
    needed = provider.reauthentication_prompt if reauthenticate else "login" if step_up else None
    if needed is None or asked.prompt == "none":
        return asked.prompt
    others = (asked.prompt or provider.authorization_params.get("prompt", "")).split()
    return " ".join(dict.fromkeys((needed, *others)))


def return_to_of(asked: LoginRequest, base: BaseUrl) -> str:
    """Return the local path that the login leads back to, as browsers see it.

    The initiator of a login may name any URL (OpenID Connect Core 4: no open redirector). If the application is below a path,
    `next` may include that path or not; it never leads outside.
    """
    target = asked.target_link_uri
    local = target.removeprefix(base.url) if target and target.startswith(f"{base.url}/") else None
    return_to = local_return_to(base.local(asked.next) if asked.next else local)
    if asked.unsent:
        return_to = local_return_to(f"{return_to}{'&' if '?' in return_to else '?'}unsent=1", default=return_to)
    return base.of(return_to)
