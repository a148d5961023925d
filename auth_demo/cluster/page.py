"""The page that shows the demo's cluster; added to the application by `demo --cluster` only.

Server states come from the watch, so the page answers while the session store is out. It only needs a field `visits` in the
application's session data.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec
from litestar import Litestar, get, post
from litestar.params import FromQuery
from litestar.response import Redirect, Response
from redis.crc import key_slot

from auth_demo.cluster.watch import ClusterWatch, KillRefusedError
from auth_demo.pages import PageRequest, PageResponse, asset_response, html_response, session_of_form
from session_core import Identity, SessionHandle, session_of
from session_core.errors import StoreUnavailableError
from session_core.litestar.problem import wants_page
from session_core.stores.redis.layout import Layout

__all__ = ("PATH", "add_cluster_page")

PATH: Final = "/demo/cluster"
_OK, _CONFLICT, _UNAVAILABLE = 200, 409, 503
_MAX_TALLIES: Final = 1000
_LAYOUT: Final = Layout(b"sc:")
_NO_SESSION: Final = "there is no session yet that a server could hold: count a visit, or log in"
_OUT: Final = "503: the session store is not available right now. You are still logged in; press again shortly."


class Tally(msgspec.Struct):
    """The increments of one session that this page has acknowledged."""

    base: int
    """The counter before the first of them."""
    acknowledged: int = 0

    def lost(self, stored: int) -> int:
        """How many of them the store has lost. A refused increment may have been stored."""
        return max(0, self.base + self.acknowledged - stored)


class SessionPart(msgspec.Struct, kw_only=True):
    """The visitor's session on the page."""

    identity: Identity | None
    acting: bool
    """Whether an administrator acts as the user."""
    visits: int
    handle: str | None
    slot: int | None
    theme: str | None
    acknowledged: int
    lost: int


class _Page:
    """The state that the handlers share: the watch, and the acknowledged increments by session."""

    def __init__(self, watch: ClusterWatch) -> None:
        self.watch = watch
        self._tallies: dict[str, Tally] = {}

    async def session_part(self, request: PageRequest) -> SessionPart | None:
        """Return the session part, or None when the store is out."""
        try:
            session = await session_of(request)
        except StoreUnavailableError:
            return None
        visits = session.data.visits
        tally = self._tallies.get(session.handle or "") or Tally(visits)
        return SessionPart(
            identity=session.identity,
            acting=session.actor is not None,
            visits=visits,
            handle=session.handle,
            slot=_slot_of(session),
            theme=session.data.theme if getattr(session.data, "theme_chosen", False) else None,
            acknowledged=tally.acknowledged,
            lost=tally.lost(visits),
        )

    def acknowledge(self, session: SessionHandle[Any], visits: int) -> None:
        """Count a stored increment before its response is sent."""
        tally = self._tallies.setdefault(session.handle or "", Tally(visits - 1))
        tally.acknowledged += 1
        if len(self._tallies) > _MAX_TALLIES:
            del self._tallies[next(iter(self._tallies))]

    async def render(self, request: PageRequest, *, status: int = _OK, notice: str = "") -> PageResponse:
        """Return the whole page, also while the store is out."""
        part = await self.session_part(request)
        return html_response(
            "cluster.html", status=status, path=PATH, **self._picture(part.slot if part else None), part=part, notice=notice
        )

    def render_nodes(self, slot: int | None) -> PageResponse:
        """Return the part that needs no session."""
        return html_response("cluster_nodes.html", path=PATH, **self._picture(slot))

    def _picture(self, slot: int | None) -> dict[str, Any]:
        holder = None if slot is None else self.watch.holder(slot)
        log = list(reversed(self.watch.log))
        return {"nodes": self.watch.views, "outage": self.watch.outage, "log": log, "holder": holder}


def add_cluster_page(app: Litestar, watch: ClusterWatch) -> None:
    """Add the page to an application with sessions, and count refused requests."""
    app.state["cluster_page"] = _Page(watch)
    for handler in (page, nodes, session, status, asset, increment, kill, start):
        app.register(handler)
    app.asgi_handler = watch.counting(app.asgi_handler)


@get(PATH, include_in_schema=False, opt={"session": True})
async def page(request: PageRequest) -> PageResponse:
    """Show everything."""
    return await _page_of(request).render(request)


@get(f"{PATH}/nodes", include_in_schema=False)
async def nodes(request: PageRequest, slot: FromQuery[int | None] = None) -> PageResponse:
    """Show the servers, the log, and the server that holds a slot."""
    return _page_of(request).render_nodes(slot)


@get(f"{PATH}/session", include_in_schema=False, opt={"session": True})
async def session(request: PageRequest) -> PageResponse:
    """Show the session; 503 while the store is out."""
    part = await _page_of(request).session_part(request)
    return html_response("cluster_session.html", status=_OK if part else _UNAVAILABLE, path=PATH, part=part)


@get(f"{PATH}/status", include_in_schema=False)
async def status(request: PageRequest) -> PageResponse:
    """Return servers, last failover and log as JSON, for programs."""
    watch = _page_of(request).watch
    content = {"nodes": watch.views, "outage": watch.outage, "log": list(watch.log)}
    return Response(msgspec.to_builtins(content), headers={"cache-control": "no-store"})


@get([f"{PATH}/cluster.css", f"{PATH}/cluster.js"], include_in_schema=False)
async def asset(request: PageRequest) -> PageResponse:
    """Return a packaged file."""
    return asset_response(request)


@post(f"{PATH}/increment", include_in_schema=False, opt={"session": True})
async def increment(request: PageRequest) -> PageResponse:
    """Count one more; acknowledged when it is stored."""

    def bump(data: Any) -> None:  # noqa: ANN401 - the application's struct
        data.visits += 1

    try:
        session = await session_of_form(request)
        visits = (await session.update(bump)).visits
    except StoreUnavailableError:
        if not wants_page(request):
            raise
        return await _page_of(request).render(request, status=_UNAVAILABLE, notice=_OUT)
    _page_of(request).acknowledge(session, visits)
    return _done(request, {"visits": visits})


@post(f"{PATH}/kill", include_in_schema=False, opt={"session": True})
async def kill(request: PageRequest) -> PageResponse:
    """Kill the primary that holds the visitor's own session: a process of this demo."""
    shown = _page_of(request)
    try:
        slot = _slot_of(await session_of_form(request))
        if slot is None:
            raise KillRefusedError(_NO_SESSION)  # noqa: TRY301 - answered as the watch's refusals are
        outage = shown.watch.kill_holder(slot)
    except StoreUnavailableError:
        if not wants_page(request):
            raise
        return await shown.render(request, status=_UNAVAILABLE, notice=_OUT)
    except KillRefusedError as refused:
        if wants_page(request):
            return await shown.render(request, status=_CONFLICT, notice=str(refused))
        details = {"type": "about:blank", "title": "Not killed", "status": _CONFLICT, "detail": str(refused)}
        return Response(details, status_code=_CONFLICT, media_type="application/problem+json")
    return _done(request, {"slot": slot, "port": outage.killed})


@post(f"{PATH}/start", include_in_schema=False)
async def start(request: PageRequest) -> PageResponse:
    """Start the servers that are down."""
    return _done(request, {"ports": _page_of(request).watch.start_again()})


def _page_of(request: PageRequest) -> _Page:
    return cast("_Page", request.app.state["cluster_page"])


def _slot_of(session: SessionHandle[Any]) -> int | None:
    return None if session.key is None else key_slot(_LAYOUT.record(session.key))


def _done(request: PageRequest, result: dict[str, Any]) -> PageResponse:
    """Redirect to the page after a form, or return the result to a program."""
    return Redirect(PATH, status_code=303) if wants_page(request) else Response(result, status_code=_OK)
