"""Reading the session for a visitor without a cookie: no store call, no decoding, no draft."""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec
import pytest
from litestar import get, post

from session_core import Session, SessionConfig, SessionDataError
from session_core.sessions import handle
from session_core.sessions.record import DataCodec
from session_core.stores import MemoryStore
from tests.support.sessions import SECRET, AppSession, client_of, cookie_of, make_app

pytestmark = pytest.mark.anyio


class UnaskedStore(MemoryStore):
    """A store that must not be called for a session."""

    async def load(self, key: str) -> NoReturn:
        raise AssertionError(key)


def _refuse(*arguments: Any, **options: Any) -> NoReturn:
    raise AssertionError(arguments, options)


@pytest.mark.parametrize("cookie", ["", "theme=dark; other=1"])
async def test_the_page_of_a_visitor_costs_no_store_call_no_decoding_and_no_draft(
    cookie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(store=UnaskedStore())
    monkeypatch.setattr(handle, "Draft", _refuse)
    monkeypatch.setattr(DataCodec, "decode", _refuse)
    async with client_of(app) as client:
        answer = await client.get("/read", headers={"cookie": cookie} if cookie else {})
    assert answer.status_code == 200
    assert answer.json() == {"data": msgspec.to_builtins(AppSession()), "subject": None, "exists": False}
    assert "set-cookie" not in answer.headers
    assert answer.headers["vary"] == "Cookie"


async def test_two_visitors_never_share_their_data() -> None:
    kept: list[AppSession] = []

    @get("/keep")
    async def keep(session: Session[AppSession]) -> int:
        kept.append(session.data)
        assert session.data is session.data
        return len(session.data.cart)

    async with client_of(make_app(keep)) as client:
        for _ in range(2):
            assert (await client.get("/keep")).json() == 0
            kept[-1].cart.append("after the response")
    assert kept[0] is not kept[1]


async def test_in_place_changes_of_a_visitor_are_saved() -> None:
    """Before, after and together with an explicit write, which creates the draft."""

    @post("/fill")
    async def fill(session: Session[AppSession]) -> None:
        data = session.data
        data.cart.append("one")
        await session.update(visits=1)
        session.data.cart.append("two")

    async with client_of(make_app(fill)) as client:
        answer = await client.patch("/assign", json={"add": "first"})
        assert answer.json()["cart"] == ["first"]
        assert (await client.get("/read")).json()["data"]["cart"] == ["first"]
        client.cookies.clear()
        assert (await client.post("/fill")).status_code == 201
        assert cookie_of(client) is not None
        assert (await client.get("/read")).json()["data"] | {} == msgspec.to_builtins(AppSession(cart=["one", "two"], visits=1))


async def test_a_visitors_invalid_value_is_refused_and_undone() -> None:
    @post("/wrong")
    async def wrong(session: Session[AppSession]) -> str:
        session.data.visits = object()  # type: ignore[assignment] # the mistake
        with pytest.raises(SessionDataError, match="visits"):
            await session.save()
        return str(session.data.visits)

    async with client_of(make_app(wrong)) as client:
        answer = await client.post("/wrong")
        assert (answer.status_code, answer.text) == (201, "0")
        assert cookie_of(client) is None


async def test_random_default_data_is_compared_with_itself() -> None:
    """A page that only reads it stores no session."""
    numbers = iter(range(100))

    def numbered() -> AppSession:
        return AppSession(visits=next(numbers))

    config = SessionConfig(AppSession, secrets=[SECRET], sweep_interval=0, default_factory=numbered)
    async with client_of(make_app(config=config)) as client:
        first, second = [(await client.get("/read")).json()["data"]["visits"] for _ in range(2)]
        assert first != second
        assert cookie_of(client) is None
