"""The exact limits of a login link's parameters, and which of two requirements applies."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from session_core.errors import AuthorizationResponseError
from session_core.oidc import OAuth2Provider
from session_core.oidc.login.request import (
    LoginDemands,
    LoginRequest,
    carried_params,
    login_demands,
    read_initiated_login,
    read_login_request,
    return_to_of,
)
from session_core.urls import base_url_of
from tests.session_core.oidc.fake_op import CLIENT_ID, CLIENT_SECRET, ISSUER
from tests.support.factories import ProviderFactory

ALSO = frozenset({"tenant"})


def read(**params: str) -> LoginRequest:
    return read_login_request(urlencode(params).encode(), ALSO)


@pytest.mark.parametrize(
    ("name", "longest", "unfit"),
    [
        ("max_age", "9" * 9, ["9" * 10, "", "-1", "1.5", "²", "٣", " 1"]),
        ("login_hint", "x" * 256, ["x" * 257, "", "\0", "a\nb"]),
        ("tenant", "x" * 256, ["x" * 257, "", "\0", "a\nb"]),
        ("acr_values", "x" * 512, ["x" * 513, "é", "a\tb", "\0"]),
        ("ui_locales", "abcdefgh-" * 14 + "ab", ["abcdefgh-" * 14 + "abc", "", "de\n", "de_CH", "-", "abcdefghi"]),
        ("prompt", "select_account", ["none login", "", "NONE", "create"]),
    ],
)
def test_each_parameter_is_accepted_up_to_its_limit(name: str, longest: str, unfit: list[str]) -> None:
    asked = read(**{name: longest})
    given: dict[str, Any] = {"max_age": int(longest) if name == "max_age" else 0, "acr_values": (longest,), "tenant": longest}
    found = asked.others[name] if name == "tenant" else getattr(asked, name)
    assert found == given.get(name, longest)
    for value in unfit:
        with pytest.raises(AuthorizationResponseError) as refused:
            read(**{name: value})
        assert refused.value.reason == "login_parameter"


def test_a_link_may_omit_parameters_and_unknown_ones_are_ignored() -> None:
    assert read() == LoginRequest()
    assert read(unsent="1", page="1", acr_values=" a  b a ") == LoginRequest(unsent=True, page=True, acr_values=("a", "b"))
    assert read(unsent="yes", page="0", max_age="0") == LoginRequest(max_age=0)
    assert read(unknown="x") == LoginRequest()
    assert read(tenant="t", login_hint="a") == LoginRequest(others={"tenant": "t"}, login_hint="a")


def test_parameters_kept_while_the_user_chooses_a_provider() -> None:
    query = urlencode({"provider": "x", "iss": "x", "next": "/y", "tenant": "t", "unknown": "x", "max_age": "never"}).encode()
    assert carried_params(query, ALSO) == {"next": "/y", "tenant": "t", "max_age": "never"}
    assert carried_params(query) == {"next": "/y", "max_age": "never"}


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, True),
        ({"target_link_uri": "x" * 2048}, True),
        ({"target_link_uri": "x" * 2049}, False),
        ({"login_hint": "\0"}, False),
    ],
)
def test_parameters_of_a_login_that_another_site_begins(changes: dict[str, str], passes: bool) -> None:
    body = urlencode({"iss": ISSUER, "prompt": "none", **changes}).encode()
    if passes:
        assert read_initiated_login(body) == {"iss": ISSUER, **changes}
        return
    with pytest.raises(AuthorizationResponseError):
        read_initiated_login(body)


@pytest.mark.parametrize(
    ("asked", "configured", "max_age", "acr_values"),
    [
        ({}, {}, None, ()),
        ({"max_age": 0}, {}, 0, ()),
        ({"max_age": 60}, {"max_age": 600}, 60, ()),
        ({"max_age": 6000}, {"max_age": 600}, 600, ()),
        ({"acr_values": ("a",)}, {}, None, ("a",)),
        ({}, {"acr_values": ("a", "b")}, None, ("a", "b")),
        ({"acr_values": ("b",)}, {"acr_values": ("a", "b")}, None, ("b",)),
        ({"acr_values": ("b", "a")}, {"acr_values": ("a", "b")}, None, ("b", "a")),
    ],
)
def test_the_stricter_requirement_applies(
    asked: dict[str, Any], configured: dict[str, Any], max_age: int | None, acr_values: tuple[str, ...]
) -> None:
    provider = ProviderFactory.build(**configured)
    demands = login_demands(LoginRequest(**asked), provider)
    assert (demands.max_age, demands.acr_values, demands.reauthenticate) == (max_age, acr_values, False)
    assert demands.params.get("max_age") == (None if max_age is None else str(max_age))
    assert demands.params.get("acr_values") == (" ".join(acr_values) or None)


@pytest.mark.parametrize("values", [("c",), ("a", "c"), ("a", "b", "c")])
def test_a_class_that_is_not_configured_is_refused(values: tuple[str, ...]) -> None:
    provider = ProviderFactory.build(acr_values=("a", "b"))
    with pytest.raises(AuthorizationResponseError):
        login_demands(LoginRequest(acr_values=values), provider)


@pytest.mark.parametrize("prompt", [None, "login", "consent", "select_account"])
@pytest.mark.parametrize("max_age", [None, 0, 60, 61])
def test_no_request_weakens_a_reauthentication(prompt: str | None, max_age: int | None) -> None:
    provider = ProviderFactory.build()
    demands = login_demands(LoginRequest(prompt=prompt, max_age=max_age), provider, reauthenticate=True)
    assert (demands.reauthenticate, demands.max_age) == (True, max_age)
    assert demands.params["prompt"].split() == list(dict.fromkeys(["login", prompt or "login"]))
    assert demands.params["max_age"] == ("0" if max_age == 0 else "60")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"params": {}}),
        ({"prompt": "consent"}, {"params": {"prompt": "consent"}}),
        ({"prompt": "select_account", "reauthenticate": True}, {"params": {"prompt": "login select_account"}}),
        ({"prompt": "none"}, "silent_unsupported"),
        ({"prompt": "none", "reauthenticate": True}, "reauthentication_required"),
        ({"max_age": 0}, "step_up_unsupported"),
        ({"max_age": 60, "prompt": "none"}, "step_up_unsupported"),
        ({"acr_values": ("phr",)}, "step_up_unsupported"),
    ],
)
def test_requirements_that_need_an_id_token_are_refused_for_plain_oauth2(
    asked: dict[str, Any], expected: dict[str, Any] | str
) -> None:
    provider = OAuth2Provider(
        issuer=ISSUER, client_id=CLIENT_ID, client_secret=CLIENT_SECRET,
        authorization_endpoint=f"{ISSUER}/authorize", token_endpoint=f"{ISSUER}/token", userinfo_endpoint=f"{ISSUER}/user",
    )  # fmt: skip
    asked = dict(asked)
    reauthenticate = asked.pop("reauthenticate", False)
    if isinstance(expected, str):
        with pytest.raises(AuthorizationResponseError) as refused:
            login_demands(LoginRequest(**asked), provider, reauthenticate=reauthenticate)
        assert refused.value.reason == expected
    else:
        demands = login_demands(LoginRequest(**asked), provider, reauthenticate=reauthenticate)
        assert demands == LoginDemands(reauthenticate=reauthenticate, **expected)


@pytest.mark.parametrize("step_up_prompt", [False, True])
@pytest.mark.parametrize("prompt", [None, "none", "login", "consent", "select_account"])
@pytest.mark.parametrize("max_age", [None, 0, 60])
def test_a_step_up_adds_the_login_prompt_if_configured(step_up_prompt: bool, prompt: str | None, max_age: int | None) -> None:
    """`max_age=0` counts as a `max_age`, and `prompt=none` is never combined: the provider would refuse it."""
    provider = ProviderFactory.build(step_up_prompt=step_up_prompt)
    sent = login_demands(LoginRequest(prompt=prompt, max_age=max_age), provider).params.get("prompt")
    if step_up_prompt and max_age is not None and prompt != "none":
        assert sent is not None
        assert sent.split() == list(dict.fromkeys(["login", prompt or "login"]))
    else:
        assert sent == prompt


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "/app/"),
        ({"next": "/x"}, "/app/x"),
        ({"next": "/app/x"}, "/app/x"),
        ({"next": "/x", "unsent": True}, "/app/x?unsent=1"),
        ({"next": "/x?a=1", "unsent": True}, "/app/x?a=1&unsent=1"),
        ({"next": "//evil.example"}, "/app/"),
        ({"target_link_uri": "https://site.example/app/y"}, "/app/y"),
        ({"target_link_uri": "https://site.example/apple"}, "/app/"),
        ({"target_link_uri": "https://site.example.evil.example/app/y"}, "/app/"),
        ({"target_link_uri": "https://site.example/app"}, "/app/"),
        ({"next": "/x", "target_link_uri": "https://site.example/app/y"}, "/app/x"),
        ({"next": "", "target_link_uri": "https://site.example/app/y"}, "/app/y"),
    ],
)
def test_a_login_returns_to_the_requested_local_page(asked: dict[str, Any], expected: str) -> None:
    assert return_to_of(LoginRequest(**asked), base_url_of("https://site.example/app")) == expected
