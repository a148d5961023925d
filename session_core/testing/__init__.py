"""Tools for tests of applications and of third-party stores.

`SessionStoreContract` needs pytest and anyio (whose plugin runs the tests): it is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_core.testing.clock import FakeClock
from session_core.testing.login import log_in, log_in_sync, logged_in_cookie

if TYPE_CHECKING:
    from session_core.testing.store_contract import SessionStoreContract

__all__ = ("FakeClock", "SessionStoreContract", "log_in", "log_in_sync", "logged_in_cookie")


def __getattr__(name: str) -> object:
    if name == "SessionStoreContract":
        from session_core.testing.store_contract import SessionStoreContract  # noqa: PLC0415 - needs pytest

        return SessionStoreContract
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
