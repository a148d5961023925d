"""Tools for tests of applications and of third-party stores.

`FakeClock` needs nothing else. `log_in` and its like need Litestar, `SessionStoreContract` pytest and anyio (whose plugin runs
the tests): they are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_core.extras import extra
from session_core.testing.clock import FakeClock

if TYPE_CHECKING:
    from session_core.testing.login import log_in, log_in_sync, logged_in_cookie
    from session_core.testing.store_contract import SessionStoreContract

__all__ = ("FakeClock", "SessionStoreContract", "log_in", "log_in_sync", "logged_in_cookie")


def __getattr__(name: str) -> object:
    if name in {"log_in", "log_in_sync", "logged_in_cookie"}:
        with extra("litestar", "litestar", wanted=f"{__name__}.{name}"):
            from session_core.testing import login  # noqa: PLC0415 - needs Litestar

        found: object = getattr(login, name)
        return found
    if name == "SessionStoreContract":
        from session_core.testing.store_contract import SessionStoreContract  # noqa: PLC0415 - needs pytest

        return SessionStoreContract
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
