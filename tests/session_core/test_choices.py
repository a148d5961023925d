"""An option that takes one of a few words refuses every other word at start: a misspelt one must not mean the default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import msgspec
import pytest

from session_core import CookieConfig, SessionConfig
from session_core.errors import ConfigurationError
from session_core.oidc import OAuth2Provider, OidcProvider
from session_core.stores.memory import MemoryStore
from tests.session_core.oidc.plain_op import plain_provider


class Data(msgspec.Struct):
    """Data without fields."""


def session_config(**changes: Any) -> SessionConfig[Data]:
    return SessionConfig(Data, store=MemoryStore(), **changes)


def oidc_provider(**changes: Any) -> OidcProvider:
    return OidcProvider(issuer="https://login.example", client_id="web", client_secret="secret", **changes)


ANNOTATIONS = {
    session_config: {each.name: each.type for each in fields(SessionConfig)},
    CookieConfig: CookieConfig.__annotations__,
    oidc_provider: {each.name: each.type for each in fields(OidcProvider)},
    plain_provider: {each.name: each.type for each in fields(OAuth2Provider)},
}
CHOICES = [
    pytest.param(make, name, id=f"{make.__name__}-{name}")
    for make, annotations in ANNOTATIONS.items()
    for name, annotation in annotations.items()
    if str(annotation).startswith("Literal[")
]


def test_the_options_are_found() -> None:
    assert {"on_limit", "middleware_on", "same_site", "response_mode", "scope_separator"} <= {each.values[1] for each in CHOICES}


@pytest.mark.parametrize(("make", "name"), CHOICES)
def test_a_misspelt_choice_is_refused_by_name(make: Callable[..., object], name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} must be '.+' or '.+'"):
        make(**{name: "misspelt"})
