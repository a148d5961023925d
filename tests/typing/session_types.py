"""Checked by mypy and pyright, never run: the types of the public API."""

from __future__ import annotations

from typing import Literal, assert_type

import msgspec
from litestar import get

from session_core import Identity, Session, SessionConfig, SessionHandle, Sessions, SessionSummary
from session_core.guards import requires
from session_core.stores import SessionStore, open_store


class Shop(msgspec.Struct):
    theme: Literal["light", "dark"] = "light"
    cart: list[str] = []
    visits: int = 0


async def handler(session: Session[Shop], sessions: Sessions) -> None:
    assert_type(session.data, Shop)
    assert_type(session.data.theme, Literal["light", "dark"])
    assert_type(session.identity, Identity | None)
    assert_type(await session.update(visits=1), Shop)
    assert_type(await session.update(lambda data: Shop(visits=data.visits + 1)), Shop)
    assert_type(await session.reload(), Shop)
    assert_type(session.created_at, int | None)
    if session.identity:
        assert_type(await sessions.list_for(session.identity), list[SessionSummary])
        assert_type(await sessions.revoke("handle", identity=session.identity), bool)


def bump(data: Shop) -> None:
    data.visits += 1


async def with_function(session: SessionHandle[Shop]) -> int:
    return (await session.update(bump)).visits


def predicate(session: SessionHandle[Shop]) -> bool:
    return "book" in session.data.cart


@get("/", guards=[requires(Shop, predicate), requires(Shop, lambda s: "pen" in s.data.cart)])
async def guarded() -> None: ...


assert_type(SessionConfig(Shop), SessionConfig[Shop])
assert_type(open_store("memory://"), SessionStore)
