"""`/demo/guarantees`: tries the promises when a button is pressed. Put into the application by `demo`, and by nothing else.

A demonstration runs in the laboratory. Only the outage switch is about the visitor's own session, and about no other. The
application's session data needs a field `visits`; nothing else of the application is known here but `/api/session` and
`/health/live`.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, Final, cast

import httpx2
import msgspec
from litestar import Litestar, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Response

from auth_demo.guarantees.catalogue import CLUSTER_CODE, GUARANTEES
from auth_demo.guarantees.demonstrations import RUNS, Outcome, Row
from auth_demo.guarantees.lab import Lab
from auth_demo.guarantees.outage import OUTAGE_SECONDS, Outages
from auth_demo.pages import PageRequest, PageResponse, asset_response, html_response, session_of_form
from session_core import SessionHandle, SessionPlugin, session_of
from session_core.errors import StoreUnavailableError
from session_core.ids import session_key

__all__ = ("PATH", "add_guarantees_page")

PATH: Final = "/demo/guarantees"
_RUNS_PER_MINUTE: Final = 60
_RUN_SECONDS: Final = 90.0
_OK: Final = 200


class _Page:
    """What the handlers share."""

    def __init__(self, app: Litestar) -> None:
        self.plugin = app.plugins.get(SessionPlugin)
        self.outages = Outages(self.plugin.store, self.plugin.config.clock)
        self.lab = Lab(self.plugin.config)
        # Not by name: a browser may find `localhost` at ::1 first, the client of this page need not.
        self.base = f"http://127.0.0.1:{self.plugin.config.base.port}"
        self.has_cluster = "cluster_page" in app.state
        self._turn = asyncio.Lock()

    async def run(self, name: str) -> Outcome:
        """Run a demonstration, one at a time: they measure."""
        async with asyncio.timeout(_RUN_SECONDS), self._turn:
            began = perf_counter()
            try:
                outcome = await RUNS[name](self.lab, self.base)
            except (StoreUnavailableError, RuntimeError, httpx2.HTTPError) as error:
                outcome = Outcome(held=False, rows=[Row("It could not be run", str(error) or type(error).__name__)])
            return msgspec.structs.replace(outcome, milliseconds=round((perf_counter() - began) * 1000))

    def key_of(self, request: PageRequest, session: SessionHandle[Any] | None) -> str | None:
        """Return the key of the visitor's session, also while it cannot be loaded."""
        if session is not None:
            return session.key
        presented = self.plugin.application.services.cookies.read(request.scope["headers"]).session_id
        return session_key(presented) if isinstance(presented, str) else None

    async def ask_as(self, request: PageRequest) -> list[Row]:
        """Ask the application with the visitor's cookie; return what came back."""
        cookie = request.headers.get("cookie", "")
        async with httpx2.AsyncClient(base_url=self.base, timeout=30, trust_env=False) as http:
            own = await http.get("/api/session", headers={"cookie": cookie})
            public = await http.get("/health/live")
        return [
            Row("Your session, by /api/session", str(own.status_code)),
            Row("This answer touches your cookie", "yes" if "set-cookie" in own.headers else "no"),
            Row("A page without a session", str(public.status_code)),
        ]

    async def render(self, request: PageRequest, *, shown: str = "", outcome: Outcome | None = None) -> PageResponse:
        """Return the page, with the outcome of one demonstration."""
        try:
            session = await session_of(request)
        except StoreUnavailableError:
            session = None
        key = self.key_of(request, session)
        is_out = key is not None and self.outages.is_out(key)
        switched = key is not None and self.outages.was_out(key)
        return html_response(
            "guarantees.html",
            path=PATH,
            session=session,
            guarantees=GUARANTEES,
            shown=shown,
            outcome=outcome,
            engine=_engine_of(self.plugin.config.store),
            has_cluster=self.has_cluster,
            cluster_code=CLUSTER_CODE,
            is_out=is_out,
            outage_seconds=OUTAGE_SECONDS,
            asked=await self.ask_as(request) if switched else [],
        )


def add_guarantees_page(app: Litestar) -> None:
    """Put the page into an application that has sessions; after the page of the cluster, where there is one."""
    shown = app.state["guarantees_page"] = _Page(app)
    for handler in (page, run, take_store, give_store, asset):
        app.register(handler)
    app.on_startup.append(shown.lab.start)
    app.on_shutdown.append(shown.lab.stop)
    app.asgi_handler = shown.lab.around(app.asgi_handler)
    app.state["demo_pages"] = [(PATH, "See each promise tried")]


@get(PATH, include_in_schema=False, opt={"session": True})
async def page(request: PageRequest) -> PageResponse:
    """Show everything; also while the store is out."""
    return await _page_of(request).render(request)


@post(f"{PATH}/run/{{name:str}}", status_code=_OK, include_in_schema=False, opt={"session": True})
async def run(request: PageRequest, name: FromPath[str]) -> PageResponse:
    """Run a demonstration and show what was measured."""
    if name not in RUNS:
        raise NotFoundException
    shown = _page_of(request)
    await _limit(request)
    outcome = await shown.run(name)
    # A script asks for the page as well, which `wants_page` would tell from a person.
    if request.accept.best_match(["application/json", "text/html"]) == "text/html":
        return await shown.render(request, shown=name, outcome=outcome)
    return Response(msgspec.to_builtins(outcome), headers={"cache-control": "no-store"})


@post(f"{PATH}/store/take", include_in_schema=False, opt={"session": True})
async def take_store(request: PageRequest) -> Redirect:
    """Take the store away from the visitor's own session for some seconds; a visitor who has none begins one by a visit."""

    def bump(data: Any) -> None:  # noqa: ANN401 - the application's struct
        data.visits += 1

    await _limit(request)
    session = await session_of_form(request)
    if session.key is None:
        await session.update(bump)
    if session.key is not None:
        _page_of(request).outages.begin(session.key)
    return Redirect(f"{PATH}#outage", status_code=303)


@post(f"{PATH}/store/give", include_in_schema=False, opt={"session": True})
async def give_store(request: PageRequest) -> Redirect:
    """Give it back at once."""
    shown = _page_of(request)
    key = shown.key_of(request, None)
    if key is not None:
        shown.outages.end(key)
    return Redirect(f"{PATH}#outage", status_code=303)


@get([f"{PATH}/guarantees.css", f"{PATH}/guarantees.js"], include_in_schema=False)
async def asset(request: PageRequest) -> PageResponse:
    """Return a packaged file."""
    return asset_response(request)


async def _limit(request: PageRequest) -> None:
    """Raise `TooManyRequestsError` for a client that presses too often."""
    plugin = _page_of(request).plugin
    await plugin.limits.take("demonstration", plugin.client_address(request), limit=_RUNS_PER_MINUTE)


def _page_of(request: PageRequest) -> _Page:
    return cast("_Page", request.app.state["guarantees_page"])


def _engine_of(store: object) -> str:
    """Return the kind of engine, without what its URL says of hosts and passwords."""
    return store.partition(":")[0].partition("+")[0] if isinstance(store, str) else type(store).__name__
