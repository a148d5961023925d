"""A store for a block of a test, also closed when the test fails, so that its connections do not fail the next test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from session_core.stores.base import SessionStore

__all__ = ("opened_store",)

S = TypeVar("S", bound=SessionStore)


@asynccontextmanager
async def opened_store(store: S) -> AsyncIterator[S]:
    """Open a store and close it at the end of the block."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()
