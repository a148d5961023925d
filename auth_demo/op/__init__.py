"""The embedded OpenID provider of the demo; it must never import `session_core` or `app`."""

from auth_demo.op.app import create_op, op_of
from auth_demo.op.backchannel import Delivery
from auth_demo.op.loopback import UnsafeProviderError, is_loopback, refuse_unsafe
from auth_demo.op.provider import EmbeddedOp
from auth_demo.op.settings import (
    DEMO_ACCOUNTS,
    DEMO_PASSWORD,
    Account,
    ClientAuthMethod,
    Lifetimes,
    OpSettings,
    RegisteredClient,
)

__all__ = (
    "DEMO_ACCOUNTS",
    "DEMO_PASSWORD",
    "Account",
    "ClientAuthMethod",
    "Delivery",
    "EmbeddedOp",
    "Lifetimes",
    "OpSettings",
    "RegisteredClient",
    "UnsafeProviderError",
    "create_op",
    "is_loopback",
    "op_of",
    "refuse_unsafe",
)
