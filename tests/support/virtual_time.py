"""Virtual time: when the event loop is idle, the clock jumps to the next timer. Tests of timeouts then depend on no machine."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

__all__ = ("virtual_time",)

_OVERSHOOT: Final = 1e-6
"""Seconds by which a timer fires late, as on every real event loop."""
_UNITS: Final = {"monotonic": 1, "perf_counter": 1, "time": 1, "time_ns": 1_000_000_000}
"""The clocks of `time`, and what each adds in a second."""


@pytest.fixture
async def virtual_time(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Run a test in virtual time. The test must not use threads or other processes, because the clock does not wait for them."""
    selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    select, passed = selector.select, 0.0

    def select_at_once(timeout: float | None = None) -> Any:
        nonlocal passed
        found = select(timeout if timeout is None else 0)
        if timeout and not found:
            passed += timeout + _OVERSHOOT
        return found

    def clock(name: str) -> Callable[[], Any]:
        began, unit = getattr(time, name)(), _UNITS[name]
        return lambda: began + type(began)(passed * unit)

    with monkeypatch.context() as patch:
        patch.setattr(selector, "select", select_at_once)
        ours = [module for name, module in sys.modules.items() if name.partition(".")[0] in {"session_core", "tests"}]
        for name in _UNITS:
            real, virtual = getattr(time, name), clock(name)
            for module in (time, *ours):
                if vars(module).get(name) is real:
                    patch.setattr(module, name, virtual)
        yield
