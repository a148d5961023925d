"""A small application on the demo's session store, with separate sessions, on which the promises are tried.

It is served at the demo's own port, for requests of this process alone. Its cookie, its data and its users are not the reference
application's, so that no demonstration can touch the session of a user.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import msgspec
from litestar import Litestar, WebSocket, get, post, websocket
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, JSONBody

from auth_demo.guarantees.outage import Outages
from session_core import Clock, CookieConfig, Identity, Session, SessionConfig, SessionPlugin, Sessions
from session_core.guards import requires_login
from session_core.sessions.notes import encode_note, note_key, read_note
from session_core.stores.base import Entry

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

    from session_core.stores.guarded import GuardedStore

__all__ = ("COOKIE", "KEY_HEADER", "PREFIX", "WORK_SECONDS", "Gate", "Lab", "LabSession")

PREFIX: Final = "/demo/guarantees/lab"
KEY_HEADER: Final = "x-lab-key"
COOKIE: Final = "guarantees"
WORK_SECONDS: Final = 0.002
"""What a handler does between reading and writing, as a handler that asks a database does."""
_ISSUER: Final = "https://guarantees.example"
_GATE_SECONDS: Final = 30.0
_COUNTER_MS: Final = 60_000


class LabSession(msgspec.Struct):
    """The data of the sessions that are tried."""

    visits: int = 0
    note: str = ""
    colour: str = ""


class Gate:
    """Holds one request between reading its session and writing it."""

    def __init__(self) -> None:
        self.name = uuid4().hex
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def pass_through(self) -> None:
        """Called by the request."""
        self.reached.set()
        async with asyncio.timeout(_GATE_SECONDS):
            await self.opened.wait()


class LastWriteWins:
    """Counters on the same engine, kept as most session libraries keep data: read all, change it, write all."""

    def __init__(self, store: GuardedStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._writing = asyncio.Lock()

    async def begin(self) -> str:
        """Store a counter that is 0; return its key."""
        key = note_key("guarantees", uuid4().hex)
        await self._store.create(key, self._entry(0))
        return key

    async def read(self, key: str) -> int:
        """Return what is stored."""
        stored = await self._store.load(key)
        return (stored and read_note(stored.entry.data, int)) or 0

    async def write(self, key: str, value: int) -> None:
        """Store a value whatever is there now: what the contract's version check is there to prevent."""
        async with self._writing:
            stored = await self._store.load(key)
            if stored is not None:
                await self._store.replace(key, self._entry(value), version=stored.version)

    async def end(self, key: str) -> None:
        """Remove a counter."""
        await self._store.delete(key)

    def _entry(self, value: int) -> Entry:
        return Entry(data=encode_note(value), expires_at=self._clock.now() + _COUNTER_MS)


class Lab:
    """The application, its gates and its outages. `config` is the reference application's: engine and clock come from it."""

    def __init__(self, config: SessionConfig[Any]) -> None:
        self.key = secrets.token_urlsafe(32)
        self.plugin = SessionPlugin(
            SessionConfig(
                LabSession,
                store=config.store,
                accept_weak_store=config.accept_weak_store,
                secrets=[secrets.token_urlsafe(32)],
                public_url=config.public_url,
                cookie=CookieConfig(name=COOKIE, persistent=False),
                store_timeout=30.0,  # two hundred requests at once, on a machine that is busy
                sweep_interval=0,  # the reference application sweeps the same store
                clock=config.clock,
            )
        )
        self.outages = Outages(self.plugin.store, config.clock)
        self.last_write_wins = LastWriteWins(self.plugin.store, config.clock)
        self.gates: dict[str, Gate] = {}
        self.app = Litestar(
            [begin, login, data, plain, count, count_last_write_wins, write, regenerate, end, end_others, take_store, socket],
            path=PREFIX,
            plugins=[self.plugin],
            dependencies={"lab": Provide(lambda: self, sync_to_thread=False)},
            openapi_config=None,
            logging_config=None,
        )
        self._stopping = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the store."""
        started = asyncio.Event()
        self._living = asyncio.create_task(self._live(started))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait([self._living, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def stop(self) -> None:
        """Close the store."""
        self._stopping.set()
        if self._living is not None:
            await self._living

    async def _live(self, started: asyncio.Event) -> None:
        # In a separate task: a lifespan is left in the task that has entered it.
        async with self.app.lifespan():
            started.set()
            await self._stopping.wait()

    def around(self, inner: ASGIApp) -> ASGIApp:
        """Return an application that serves the lab to this process, and everything else as before."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await (self.app if self._is_ours(scope) else inner)(scope, receive, send)

        return serve

    def gate(self) -> Gate:
        """Return a gate that a request can name."""
        gate = Gate()
        self.gates[gate.name] = gate
        return gate

    def _is_ours(self, scope: Scope) -> bool:
        if scope["type"] not in {"http", "websocket"} or not scope["path"].startswith(f"{PREFIX}/"):
            return False
        key = next((value for name, value in scope["headers"] if name == KEY_HEADER.encode()), b"")
        return secrets.compare_digest(key, self.key.encode())


Injected = NamedDependency[Lab]


class Seen(LabSession, kw_only=True):
    """A session as a request finds it."""

    exists: bool
    user: str | None


class Assignment(msgspec.Struct):
    """A field that a request assigns, after its gate has opened where it names one."""

    field: str
    value: str
    gate: str = ""


@post("/begin", status_code=204)
async def begin(session: Session[LabSession]) -> None:
    """Begin a session without a login."""
    await session.update(note="begun")


@post("/login", status_code=204)
async def login(session: Session[LabSession], user: FromQuery[str]) -> None:
    """Log in a user of the lab; without a provider, which the login is not about here."""
    await session.login(Identity(issuer=_ISSUER, subject=user, auth_time=int(time.time())))


@get("/data")
async def data(session: Session[LabSession]) -> Seen:
    """Return what this cookie opens."""
    user = session.identity.subject if session.identity else None
    return Seen(**msgspec.structs.asdict(session.data), exists=session.exists, user=user)


@get("/plain", status_code=204)
async def plain() -> None:
    """Answer without a session."""


@post("/visits", status_code=200)
async def count(session: Session[LabSession]) -> dict[str, int]:
    """Read the session, work, count one more."""

    def bump(found: LabSession) -> None:
        found.visits += 1

    await asyncio.sleep(WORK_SECONDS)
    return {"visits": (await session.update(bump)).visits}


@post("/last-write-wins", status_code=200)
async def count_last_write_wins(lab: Injected, key: FromQuery[str]) -> dict[str, int]:
    """Read the counter, work, write one more."""
    visits = await lab.last_write_wins.read(key)
    await asyncio.sleep(WORK_SECONDS)
    await lab.last_write_wins.write(key, visits + 1)
    return {"visits": visits + 1}


@post("/write", status_code=204)
async def write(data: JSONBody[Assignment], session: Session[LabSession], lab: Injected) -> None:
    """Assign one field. The session has been read before; it is saved with the answer."""
    if data.gate:
        await lab.gates.pop(data.gate).pass_through()
    setattr(session.data, data.field, data.value)


@post("/regenerate", status_code=204)
async def regenerate(session: Session[LabSession]) -> None:
    """Give the session a new id."""
    await session.regenerate()


@post("/end", status_code=204)
async def end(session: Session[LabSession]) -> None:
    """Log out."""
    await session.destroy()


@post("/end-others", status_code=200)
async def end_others(session: Session[LabSession], sessions: Sessions) -> dict[str, int]:
    """Sign out everywhere else."""
    return {"ended": await sessions.revoke_all(session.identity, keep=session.key) if session.identity else 0}


@post("/take-store", status_code=200)
async def take_store(session: Session[LabSession], lab: Injected) -> dict[str, str | None]:
    """Take the store away from this session; return its key, with which the store can be given back."""
    if session.key is not None:
        lab.outages.begin(session.key)
    return {"key": session.key}


@websocket("/socket", guards=[requires_login])
async def socket(socket: WebSocket[Any, Any, Any], session: Session[LabSession]) -> None:  # noqa: ARG001 - its end closes the socket
    """Stay open for as long as the session lives."""
    await socket.accept()
    await socket.send_text("open")
    async for text in socket.iter_data("text"):
        await socket.send_text(text)
