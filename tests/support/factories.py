"""Factories of typed values: a test names the fields that it depends on, and the factory chooses the others."""

from __future__ import annotations

import msgspec
from polyfactory.factories import DataclassFactory
from polyfactory.factories.msgspec_factory import MsgspecFactory
from polyfactory.field_meta import FieldMeta

from session_core.oidc import OidcProvider
from session_core.oidc.tokens.vault import TokenSet
from session_core.sessions.record import ActingAs, SessionRecord

__all__ = ("ProviderFactory", "RecordFactory", "TokenSetFactory")


class ProviderFactory(DataclassFactory[OidcProvider]):
    """The provider and the client of `tests/session_core/oidc/fake_op.py`, with default options."""

    __use_defaults__ = True
    issuer = "https://op.example"
    client_id = "app"
    client_secret = "s3cret:with%odd+chars"

    @classmethod
    def should_use_default_value(cls, field_meta: FieldMeta) -> bool:
        return field_meta.name not in vars(cls) and super().should_use_default_value(field_meta)


class ActingAsFactory(MsgspecFactory[ActingAs]):
    data = msgspec.Raw(b"\x80")


class RecordFactory(MsgspecFactory[SessionRecord]):
    """Any record of this version, with empty session data."""

    __random_seed__ = 1
    data = msgspec.Raw(b"\x80")
    newer = None

    @classmethod
    def acting_as(cls) -> ActingAs | None:
        ActingAsFactory.seed_random(cls.__random__.getrandbits(32))
        return cls.__random__.choice([None, ActingAsFactory.build()])


class TokenSetFactory(MsgspecFactory[TokenSet]):
    """Any tokens of this version."""

    __random_seed__ = 1
    newer = None
