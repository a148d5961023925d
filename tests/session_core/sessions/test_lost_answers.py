"""A rotation with a lost response: the browser gets all ids that may be live, and its next request works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from litestar import Litestar, Request, post

from session_core import Session, StoreUnavailableError
from session_core.cookies import CookieSigner
from session_core.cookies.encoding import encode_component
from session_core.identity import op_session_key
from session_core.ids import UncertainId, is_session_id, new_session_id, session_key
from session_core.sessions.logout_marks import CERTAIN_MS, leave_mark
from session_core.sessions.store_order import Moment
from session_core.testing import FakeClock
from tests.support.lost_answers import Fault, LosingStore
from tests.support.sessions import ALICE, BOB, SECRET, AppSession, Recorder, client_of, cookie_of, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio

LOST: list[Fault] = ["applied", "not applied", "applied later"]
BEGIN_LOGIN = "/oidc-login"


@pytest.fixture
def store(clock: FakeClock) -> LosingStore:
    return LosingStore(clock=clock)


@post(BEGIN_LOGIN)
async def oidc_login(session: Session[AppSession]) -> None:
    """A login as the callback makes it, which reads the marks afterwards."""
    await session.login(ALICE, begun=Moment(7, 7))


@post("/twice")
async def twice(session: Session[AppSession], request: Request[Any, Any, Any]) -> None:
    session.data.note = "assigned"
    with pytest.raises(StoreUnavailableError):
        await session.regenerate()
    request.app.state.store.recover()
    await session.regenerate()


@pytest.fixture
async def app(store: LosingStore, clock: FakeClock) -> AsyncIterator[Litestar]:
    app = make_app(oidc_login, twice, store=store, clock=clock, max_sessions_per_user=1)
    app.state.store = store
    async with app.lifespan():
        yield app


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def text_of(client: httpx.AsyncClient) -> str:
    unsigned = CookieSigner([SECRET]).unsign(unquote(cookie_of(client) or ""))
    assert unsigned is not None
    return unsigned.value


async def exists(app: Litestar, text: str) -> bool:
    """Whether a browser with this cookie value has a session."""
    signed = encode_component(CookieSigner([SECRET]).sign(text)) or ""
    async with client_of(app, cookies={"session-8000": signed}) as other:
        return bool((await other.get("/read")).json()["exists"])


@pytest.mark.parametrize("before_return", [True, False], ids=["then applied", "then asked"])
@pytest.mark.parametrize("fault", LOST)
async def test_a_regeneration_with_a_lost_response(
    app: Litestar, client: httpx.AsyncClient, store: LosingStore, fault: Fault, *, before_return: bool
) -> None:
    await client.post("/visit")
    old = text_of(client)
    store.fail("rotate", fault)
    answer = await client.post("/regenerate")
    assert answer.status_code == 503
    assert answer.headers["cache-control"] == "private, no-store"
    given = UncertainId.parse(text_of(client))
    assert given is not None
    assert given.old == old
    # The store is still down: the outcome is unknown, and nothing changes.
    assert (await client.get("/read")).status_code == 503
    assert UncertainId.parse(text_of(client)) == given
    store.recover()
    if before_return:
        await store.apply_what_is_late()
    assert (await client.post("/visit")).json() == {"visits": 2}
    kept = text_of(client)
    assert is_session_id(kept)
    made = fault == "applied" or (fault == "applied later" and before_return)
    assert kept == (given.new[0] if made else old)
    await store.apply_what_is_late()
    assert (await client.post("/visit")).json() == {"visits": 3}
    # Only one id is live: an old id must be useless to an attacker who planted or saw it.
    others = {old, *given.ids} - {kept}
    assert [text for text in others if await exists(app, text)] == []
    assert (await plugin_in(app).sessions.stats()).total == 1


@pytest.mark.parametrize("before_return", [True, False], ids=["then applied", "then asked"])
@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("step", ["rotate", "create"])
async def test_a_login_with_a_lost_response(
    app: Litestar, client: httpx.AsyncClient, store: LosingStore, step: str, fault: Fault, *, before_return: bool
) -> None:
    """The anonymous cart is kept, and no session stays in the user's list that no browser can open."""
    if step == "rotate":
        await client.patch("/assign", json={"add": "shoes"})
    store.fail(step, fault)
    assert (await client.post("/login/alice")).status_code == 503
    store.recover()
    if before_return:
        await store.apply_what_is_late()
    made = fault == "applied" or (fault == "applied later" and before_return)
    seen = (await client.get("/read")).json()
    assert seen["subject"] == ("alice" if made else None)
    assert seen["data"]["cart"] == (["shoes"] if step == "rotate" else [])
    await store.apply_what_is_late()
    assert (await client.get("/read")).json()["data"] == seen["data"]
    assert (await client.post("/login/alice")).status_code == 201
    assert (await client.get("/read")).json()["subject"] == "alice"
    listed = await plugin_in(app).sessions.list_for(ALICE)
    assert [each.handle for each in listed] == [(await handle_on(plugin_in(app), text_of(client)).load()).handle]


@pytest.mark.parametrize("path", ["/regenerate", "/login/alice", "/visit"])
async def test_a_step_known_to_have_failed_leaves_the_cookie_unchanged(
    client: httpx.AsyncClient, store: LosingStore, path: str
) -> None:
    if path != "/visit":
        await client.post("/visit")
    before = cookie_of(client)
    store.fail("create" if path == "/visit" else "rotate", "refused")
    answer = await client.post(path)
    assert answer.status_code == 503
    assert "set-cookie" not in answer.headers
    store.recover()
    assert (await client.get("/read")).json()["exists"] is (before is not None)


@pytest.mark.parametrize("fault", LOST)
async def test_a_first_write_with_a_lost_response(
    app: Litestar, client: httpx.AsyncClient, store: LosingStore, fault: Fault
) -> None:
    store.fail("create", fault)
    assert (await client.post("/visit")).status_code == 503
    store.recover()
    await store.apply_what_is_late()
    made = fault != "not applied"
    assert (await client.post("/visit")).json() == {"visits": 2 if made else 1}
    assert is_session_id(text_of(client))
    assert (await plugin_in(app).sessions.stats()).total == 1


@pytest.mark.parametrize("step", ["rotate", "create"])
async def test_a_response_that_can_be_recovered_is_no_outage(client: httpx.AsyncClient, store: LosingStore, step: str) -> None:
    """The connection was lost and restored: the session is read under its new id."""
    if step == "rotate":
        await client.post("/visit")
    store.fail(step, "applied")
    load, store.load = store.load, None  # type: ignore[method-assign, assignment]

    async def load_and_recover(key: str) -> Any:
        store.recover()
        return await load(key)

    store.load = load_and_recover  # type: ignore[method-assign]
    assert (await client.post("/login/alice")).status_code == 201
    assert (await client.get("/read")).json()["subject"] == "alice"


@pytest.mark.parametrize("fault", LOST)
async def test_a_handler_may_continue_after_a_lost_response(
    app: Litestar, client: httpx.AsyncClient, store: LosingStore, fault: Fault
) -> None:
    await client.post("/visit")
    old = text_of(client)
    store.fail("rotate", fault)
    assert (await client.post("/twice")).status_code == 201
    await store.apply_what_is_late()
    assert is_session_id(text_of(client))
    assert (await client.get("/read")).json()["data"]["note"] == "assigned"
    assert not await exists(app, old)
    assert (await plugin_in(app).sessions.stats()).total == 1


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("step", ["rotate", "create"])
async def test_a_login_whose_marks_could_not_be_read_is_checked_by_the_next_request(
    app: Litestar, client: httpx.AsyncClient, store: LosingStore, step: str, *, ended: bool
) -> None:
    """The store fails after the login is stored and before the provider's logout mark is read."""
    if step == "rotate":
        await client.patch("/assign", json={"add": "shoes"})
    store.fail("load", "not applied", after=(1 if step == "rotate" else 0) + 2)  # the session, and the marks from before
    assert (await client.post(BEGIN_LOGIN)).status_code == 503
    given = UncertainId.parse(text_of(client))
    assert given is not None
    assert given.begun == (7, 7)
    store.recover()
    if ended:
        await plugin_in(app).sessions.end_op_session(ALICE.issuer, ALICE.sid or "")
        # Its deletions do not count: a logout that deletes before the login is stored must be detected by its mark only.
    seen = (await client.get("/read")).json()
    assert seen["subject"] == (None if ended else "alice")
    assert [text for text in given.ids if await exists(app, text)] == ([] if ended else [text_of(client)])


async def test_a_mark_alone_ends_an_unchecked_login(app: Litestar, client: httpx.AsyncClient, store: LosingStore) -> None:
    plugin = plugin_in(app)
    store.fail("load", "not applied", after=2)
    assert (await client.post(BEGIN_LOGIN)).status_code == 503
    store.recover()
    await leave_mark(store, op_session_key(ALICE.issuer, ALICE.sid or ""), plugin.config.clock.now())
    assert (await client.get("/read")).json()["subject"] is None
    assert await plugin.sessions.list_for(ALICE) == []


async def test_a_login_that_can_no_longer_be_checked_is_ended(
    app: Litestar, client: httpx.AsyncClient, store: LosingStore, clock: FakeClock
) -> None:
    """Marks expire; afterwards no entry shows whether the login was ended."""
    store.fail("load", "not applied", after=2)
    assert (await client.post(BEGIN_LOGIN)).status_code == 503
    store.recover()
    clock.advance(seconds=CERTAIN_MS / 1000)
    assert (await client.get("/read")).json()["subject"] is None
    assert await plugin_in(app).sessions.list_for(ALICE) == []


async def test_the_ids_of_several_lost_responses_fit_into_one_cookie() -> None:
    old, *new = (new_session_id() for _ in range(6))
    given = UncertainId((), old)
    for session_id in new:
        given = given.after(session_id, (1 << 62, 4102448400000))
    assert given.ids == (new[4], new[3], new[2], old)
    assert UncertainId.parse(given.text()) == given
    assert "hidden" in repr(given)
    assert new[4] not in repr(given)


@pytest.mark.parametrize(
    "text",
    ["", "~", "~~", "{0}", "{0}~", "{0}~~x", "{0}~~1", "{0}~~1.2.3", "~{0}~", "{0}~~{0}", "{0}~{0}~{0}~{0}~{0}~1.2", "x~~"],
)
async def test_other_values_are_no_ids_even_when_signed(app: Litestar, text: str) -> None:
    recorder = Recorder()
    plugin_in(app).events._listeners = (recorder,)
    handle = handle_on(plugin_in(app))
    await handle.update(visits=1)
    text = text.format(handle.session_id)
    if text == handle.session_id:
        assert UncertainId.parse(text) is None
        return
    assert not await exists(app, text)
    assert recorder.names[-1] == "cookie.rejected"


async def test_a_login_in_a_second_tab_does_not_end_the_session_of_the_first(app: Litestar, client: httpx.AsyncClient) -> None:
    """Both sent the id from before the login; the store records its successor only for a logout."""
    plugin = plugin_in(app)
    first = handle_on(plugin)
    await first.update(note="before")
    old = first.session_id
    second = await handle_on(plugin, old).load()
    await first.login(ALICE)
    late = handle_on(plugin, old)
    await late.login(BOB)
    await second.login(BOB)
    assert (await handle_on(plugin, first.session_id).load()).identity == ALICE
    assert (await handle_on(plugin, second.session_id).load()).data.note == ""
    # A logout with that id is meant for the session under any id.
    leaving = await handle_on(plugin, old).load()
    await leaving.destroy()
    assert (await handle_on(plugin, first.session_id).load()).identity is None


async def test_a_login_replaces_a_session_stored_by_another_version(app: Litestar, store: LosingStore) -> None:
    """Its id was presented, so the login must invalidate it in the same step."""
    plugin = plugin_in(app)
    before = handle_on(plugin)
    await before.update(note="before")
    key, old = before.key or "", before.session_id
    stored = store.inner._records[key]
    store.inner._records[key] = type(stored)(key, stored.version, type(stored.entry)(b"\xc1", stored.entry.expires_at))
    handle = await handle_on(plugin, old).load()
    assert not handle.exists
    store.fail("rotate", "applied")
    with pytest.raises(StoreUnavailableError):
        await handle.login(ALICE)
    store.recover()
    assert store.calls[-2:] == ["rotate", "load"]
    assert await store.load(key) is None
    assert [each.handle for each in await plugin.sessions.list_for(ALICE)] != []
    assert handle.uncertain is not None
    assert (await handle_on(plugin, handle.uncertain).load()).identity == ALICE
    assert session_key(old) == key
