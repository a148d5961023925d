"""The handle a request holds: typed data, who is logged in, and the few verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast

import msgspec
from litestar.di import NamedDependency

from session_core.errors import SessionDataError, SessionGoneError
from session_core.record import Device, SessionRecord
from session_core.session_id import handle_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from session_core.identity import Identity
    from session_core.lifecycle import SessionLifecycle
    from session_core.writer import Snapshot

__all__ = ("CookieAction", "Session", "SessionHandle")

D = TypeVar("D", bound=msgspec.Struct)

CookieAction: TypeAlias = Literal["set", "delete"] | None


class SessionHandle(Generic[D]):
    """The session of one request.

    A visitor without a session has one all the same: `data` is fresh, `exists` is False, and nothing is stored or sent until
    something changes. What is assigned to `data` is saved before the response starts, merged by field with what
    others saved meanwhile; `update`, `login`, `regenerate` and `destroy` are durable when they return.
    """

    def __init__(
        self,
        lifecycle: SessionLifecycle[D],
        read_session_id: Callable[[], Awaitable[str | None]],
        read_device: Callable[[], Device] = Device,
    ) -> None:
        self._lifecycle = lifecycle
        self._read_session_id = read_session_id
        self._read_device = read_device
        self._snapshot: Snapshot | None = None
        self._data: D | None = None
        self._base: bytes = b""
        self.session_id: str | None = None
        """The secret id; for the middleware that writes the cookie, nobody else."""
        self.cookie_action: CookieAction = None
        """What the response must do to the cookie."""

    def __repr__(self) -> str:
        return f"<SessionHandle {self.handle or 'anonymous'}>"

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def loaded(self) -> bool:
        """Whether anybody asked for the session in this request."""
        return self._data is not None

    async def load(self) -> SessionHandle[D]:
        """Read the cookie and load the session, once per request. Raises `StoreUnavailableError`."""
        if self._data is None:
            session_id = await self._read_session_id()
            snapshot = await self._lifecycle.load(session_id) if session_id else None
            if snapshot is not None:
                self.session_id = session_id
            self._adopt(snapshot)
        return self

    async def reload(self) -> D:
        """Read the session again; assignments that were not saved are lost. Returns the new data."""
        snapshot = await self._lifecycle.load(self.session_id) if self.session_id else None
        if snapshot is None:
            self.session_id = None
        self._adopt(snapshot)
        return self.data

    @property
    def data(self) -> D:
        """The typed data: read it, assign to it."""
        if self._data is None:
            msg = "the session is not loaded yet; inject it, or await session_of(connection)"
            raise RuntimeError(msg)
        return self._data

    @data.setter
    def data(self, value: D) -> None:
        if not isinstance(value, self._lifecycle.codec.data_type):
            msg = f"session data must be a {self._lifecycle.codec.data_type.__name__}"
            raise SessionDataError(msg)
        self._data = value

    @property
    def exists(self) -> bool:
        """Whether the session is stored (False for a visitor about whom nothing is kept)."""
        return self._snapshot is not None

    @property
    def identity(self) -> Identity | None:
        """Who is logged in, or None."""
        return self._snapshot.record.identity if self._snapshot else None

    @property
    def handle(self) -> str | None:
        """A public name of this session for lists and logs; opens nothing."""
        return handle_of(self._snapshot.key) if self._snapshot else None

    @property
    def key(self) -> str | None:
        """The store's key of this session (a digest; opens nothing)."""
        return self._snapshot.key if self._snapshot else None

    @property
    def vault(self) -> bytes:
        """What the login layer keeps sealed in this session."""
        return self._snapshot.record.vault if self._snapshot else b""

    @property
    def created_at(self) -> int | None:
        """When the session began (a login begins it anew); Unix milliseconds."""
        return self._snapshot.record.created_at if self._snapshot else None

    @property
    def idle_expires_at(self) -> int | None:
        """When the session ends unless it is used; Unix milliseconds."""
        if self._snapshot is None:
            return None
        return self._lifecycle.expiry_after_use(self._snapshot)

    @property
    def absolute_expires_at(self) -> int | None:
        """When the session ends in any case; Unix milliseconds."""
        return self._snapshot.record.absolute_expires_at if self._snapshot else None

    # -- changing --------------------------------------------------------------------------------------------

    async def update(self, function: Callable[[D], D | None] | None = None, /, **fields: object) -> D:
        """Change the data atomically and durably; return the new data.

        `update(fn)` calls `fn` with the newest data; it changes it in place or returns new data, and is called again when another
        request's write came first, so it must do nothing else. `update(theme="dark")` sets fields. Assignments made
        before are saved with it.

        Raises `SessionDataError` for an unknown field or a value of the wrong type, `SessionGoneError` when the session has
        ended, `SessionConflictError` when an assignment made before meets another request's, `StoreUnavailableError`.
        """
        await self.load()
        codec = self._lifecycle.codec
        if unknown := fields.keys() - codec.field_names:
            msg = f"{codec.data_type.__name__} has no field {', '.join(sorted(unknown))}"
            raise SessionDataError(msg)

        def change(record: SessionRecord) -> SessionRecord:
            stored = bytes(self._merged(record).data)
            data = codec.decode(stored)
            result = function(data) if function else None
            if result is not None:
                if not isinstance(result, codec.data_type):
                    msg = f"the function must return None or a {codec.data_type.__name__}, and must not be async"
                    raise SessionDataError(msg)
                data = result
            if fields:
                data = msgspec.structs.replace(data, **fields)
            new = codec.apply(stored, codec.changes(stored, data))
            return _with_data(record, new)

        if self._snapshot is None:
            await self._begin(change)
        else:
            self._adopt(await self._lifecycle.write(self._snapshot, change))
        return self.data

    async def save(self) -> None:
        """Save what was assigned to `data`, or note that the session was used. The middleware calls it."""
        if self._data is None:
            return
        if self._snapshot is None:
            await self._begin(self._merged)
        elif self._changes():
            self._adopt(await self._lifecycle.write(self._snapshot, self._merged))
        else:
            await self._lifecycle.touch(self._snapshot)

    async def login(self, identity: Identity, *, vault: bytes = b"", started_at: int | None = None) -> None:
        """Log a user in: a new session id, whatever there was before (fixation), and the old id is dead.

        Data of an anonymous visitor or of the same user is kept. `vault` is kept for the login layer. See
        `SessionLifecycle.login` for `started_at`.
        """
        await self.load()
        session_id, snapshot = await self._lifecycle.login(
            self._snapshot,
            identity,
            change=self._merged,
            data=self._checked(),
            vault=vault,
            device=self._read_device(),
            started_at=started_at,
        )
        self._enter(session_id, snapshot)

    async def regenerate(self) -> None:
        """Give the session a new id at once, in one atomic step; the old id is dead. Nothing to do for a visitor."""
        await self.load()
        if self._snapshot is None:
            await self.save()
            return
        session_id, snapshot = await self._lifecycle.regenerate(self._snapshot, self._merged)
        self._enter(session_id, snapshot)

    async def destroy(self) -> None:
        """End the session in the store and delete the cookie. Safe without a session; the data is fresh afterwards."""
        await self.load()
        if self._snapshot is not None:
            await self._lifecycle.destroy(self._snapshot)
        self.session_id = None
        self.cookie_action = "delete"
        self._adopt(None)

    async def store_vault(self, vault: bytes) -> None:
        """Replace what the login layer keeps. Raises `SessionGoneError` when there is no session."""
        await self.load()
        if self._snapshot is None:
            raise SessionGoneError
        snapshot = await self._lifecycle.write(
            self._snapshot,
            lambda record: msgspec.structs.replace(self._merged(record), vault=vault),
        )
        self._adopt(snapshot)

    # -- inside ----------------------------------------------------------------------------------------------

    def _adopt(self, snapshot: Snapshot | None) -> None:
        codec = self._lifecycle.codec
        self._snapshot = snapshot
        if snapshot is None:
            self._data = codec.fresh()
            self._base = codec.encode(self._data)
        else:
            self._base = bytes(snapshot.record.data)
            self._data = codec.decode(self._base)

    def _enter(self, session_id: str, snapshot: Snapshot) -> None:
        self.session_id = session_id
        self.cookie_action = "set"
        self._adopt(snapshot)

    async def _begin(self, change: Callable[[SessionRecord], SessionRecord]) -> None:
        """Store a visitor's first data; nothing at all when it is still what a fresh session has."""
        blank = SessionRecord(created_at=0, absolute_expires_at=0, data=msgspec.Raw(self._base))
        data = bytes(change(blank).data)
        if data == self._base:
            return
        session_id, snapshot = await self._lifecycle.begin(data, device=self._read_device())
        self._enter(session_id, snapshot)

    def _changes(self) -> dict[str, bytes]:
        return self._lifecycle.codec.changes(self._base, cast("D", self._data))

    def _merged(self, record: SessionRecord) -> SessionRecord:
        """Apply the assignments of this request to the newest record."""
        changes = self._changes()
        if not changes:
            return record
        codec, newest = self._lifecycle.codec, bytes(record.data)
        if self._lifecycle.refuse_conflicts:
            return _with_data(record, codec.merge(self._base, newest, changes))
        return _with_data(record, codec.apply(newest, changes))

    def _checked(self) -> bytes:
        """The data of a visitor, valid for storing."""
        return self._lifecycle.codec.apply(self._base, self._changes())


def _with_data(record: SessionRecord, data: bytes) -> SessionRecord:
    return record if data == bytes(record.data) else msgspec.structs.replace(record, data=msgspec.Raw(data))


Session: TypeAlias = NamedDependency[SessionHandle[D]]
"""What a handler asks for: `async def handler(session: Session[AppSession])`. The parameter must be named `session`."""

AnySession: TypeAlias = SessionHandle[Any]
