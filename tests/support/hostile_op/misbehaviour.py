"""The deviations of a provider in one login."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.hostile_op.http_server import Fault
from tests.support.hostile_op.signing import Forge, SigningKey


@dataclass(frozen=True, kw_only=True)
class Misbehaviour:
    """Differences from an honest login. In each mapping: a new value, or `GONE` to omit the member."""

    response: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the authorization response; a list repeats the parameter."""
    token_answer: Mapping[str, Any] = field(default_factory=dict)
    token_fault: Fault | None = None
    """Responds to the token request instead of tokens."""
    header: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Header and claims of the ID token."""
    key: SigningKey | None = None
    """Signs the ID token in place of the published key."""
    forge: Forge | None = None
    """Creates the ID token instead of a signature."""
    userinfo: Mapping[str, Any] = field(default_factory=dict)
    userinfo_fault: Fault | None = None
    signed_userinfo: Forge | None = None
    """Sends userinfo as a token created like this."""


HONEST = Misbehaviour()
