"""Restores a cancellation that a library drops: `asyncio.wait_for` of Python 3.11 may return a result instead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("keeping_cancellation",)


@contextmanager
def keeping_cancellation() -> Iterator[None]:
    """Raise `CancelledError` at the end of the block if the task was cancelled in it and the block did not raise.

    Otherwise a loop of calls to a driver would continue after a cancellation, and no timeout would end it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    yield
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
