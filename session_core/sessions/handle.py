"""The session handle of a request: typed data, identity, and the operations on the session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from session_core.errors import (
    ImpersonationForbiddenError,
    InvalidTokenError,
    ResponseStartedError,
    SessionDataError,
    SessionGoneError,
)
from session_core.ids import UncertainId, handle_of, session_key
from session_core.sessions.draft import Draft, updated
from session_core.sessions.lifecycle import NewId, NewLogin, SessionLifecycle
from session_core.sessions.record import Device, SessionRecord, UndecodableError

if TYPE_CHECKING:
    from session_core.identity import Identity
    from session_core.sessions.snapshot import Snapshot
    from session_core.sessions.store_order import Moment
    from session_core.sessions.timeouts import Timeouts
    from session_core.sessions.writer import Change

__all__ = ("CookieAction", "SessionHandle", "SessionSource")

D = TypeVar("D", bound=msgspec.Struct)

_DAY: Final = 86_400_000

CookieAction: TypeAlias = Literal["set", "delete"] | None


class SessionSource(Protocol):
    """The request of a session: its session id and its device."""

    on_websocket: bool
    """Whether it is a WebSocket, which can never set the cookie."""

    presents_token: bool
    """Whether it presents a bearer token, which opens a session or is refused."""

    def is_bare(self) -> bool:
        """Whether it has no cookie at all; cheaper than reading the id."""
        ...

    def read_session_id(self) -> Awaitable[str | None] | str | UncertainId | tuple[str | UncertainId, ...] | None:
        """Return the verified id of the request, or a few of them; called once, when the session is loaded."""
        ...

    def read_device(self) -> Device:
        """Return the device of a session that begins now."""
        ...

    def answer_by_token(self) -> None:
        """Give the client a bearer token in place of a cookie. Raises `AmbiguousCredentialsError`, `ConfigurationError`."""
        ...

    def token_of(self, text: str) -> str | None:
        """Return the bearer token of what the response gives to the client; None where that is a cookie."""
        ...


class _GivesNewId:
    """Gives a call its `NewId`; `failed` is called with that and with what the call raises."""

    __slots__ = ("_failed", "_new_id")

    def __init__(self, failed: Callable[[NewId, BaseException], None]) -> None:
        self._failed = failed
        self._new_id = NewId()

    def __enter__(self) -> NewId:
        return self._new_id

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._failed(self._new_id, error)


class SessionHandle(Generic[D]):
    """The session of one request.

    A visitor without a session has a handle too: `data` has its defaults, `exists` is False, and nothing is stored or sent until
    something changes. Assignments to `data` are saved before the response starts, merged by field with concurrent writes;
    `update`, `login`, `regenerate` and `destroy` are durable when they return and replace the `data` object: do not keep a
    reference to the old one.
    """

    session_id: str | None = None
    """The secret id; only for the middleware that writes the cookie."""
    uncertain: UncertainId | None = None
    """The content of the cookie while the session's id is uncertain."""
    cookie_action: CookieAction = None
    """How the response must change the cookie."""
    presents_several = False
    """Whether the browser sends several valid cookies, of which all but one should be deleted."""
    loaded = False
    """Whether this request has loaded the session."""
    response_started = False
    """Set by the middleware when the cookie can no longer be changed."""
    served = True
    """Whether the session middleware runs; False while only code outside of it uses the session."""
    extends = True
    """Whether reading counts as use; False for automatic requests, such as polling."""
    snapshot: Snapshot | None = None
    """The session as it was read or last written; None for a visitor without a stored session."""
    identity_changed: Callable[[], Awaitable[None]] | None = None
    """Called after a login and after a logout; set by the layer that provides `request.user`."""
    save_first: Callable[[], Awaitable[None]] | None = None
    """Called before the response starts, to save what is not in `data`; set by the layer that provides `request.session`."""
    _draft: Draft[D] | None = None
    _fresh: D | None = None
    """The data of a visitor, without a draft until the first write."""
    _confirmed_at = 0
    """When the session was last read or written, Unix milliseconds."""
    _loading: list[asyncio.Future[None]] | None = None
    _beginning: asyncio.Lock | None = None
    _takes_over = False
    _unreadable: tuple[str, ...] = ()
    """The ids of the request, if no session was found under them."""

    def __init__(self, lifecycle: SessionLifecycle[D], source: SessionSource) -> None:
        self._lifecycle: SessionLifecycle[D] = lifecycle
        self.source = source
        """The request of the session; used by the layers around the handler."""

    def __repr__(self) -> str:
        return f"<SessionHandle {self.handle or 'anonymous'}>"

    # -- who, since when, until when -----------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether the session is stored (False for a visitor without one)."""
        return self.snapshot is not None

    def follow(self, snapshot: Snapshot) -> None:
        """Continue under the key that another request has given to the session; keep the handler's assignments."""
        self.snapshot = snapshot

    @property
    def identity(self) -> Identity | None:
        """Who is logged in, or None; while an administrator acts as another user, that user."""
        return self.snapshot.record.acts_for if self.snapshot else None

    @property
    def actor(self) -> Identity | None:
        """The administrator who acts as `identity`; None where users act for themselves."""
        if self.snapshot is None or self.snapshot.record.acting_as is None:
            return None
        return self.snapshot.record.identity

    @property
    def handle(self) -> str | None:
        """The public name of this session for lists and logs; not a secret."""
        return handle_of(self.snapshot.key) if self.snapshot else None

    @property
    def key(self) -> str | None:
        """The store's key of this session (a digest, not a secret)."""
        return self.snapshot.key if self.snapshot else None

    @property
    def vault(self) -> bytes:
        """The sealed data of the login layer; empty while an administrator acts as another user."""
        return self.snapshot.record.vault if self.snapshot and self.snapshot.record.acting_as is None else b""

    @property
    def created_at(self) -> int | None:
        """When the session began (a login restarts it); Unix milliseconds."""
        return self.snapshot.record.created_at if self.snapshot else None

    @property
    def idle_expires_at(self) -> int | None:
        """When the session expires unless it is used; Unix milliseconds."""
        if self.snapshot is None:
            return None
        return self._lifecycle.expiry_after_use(self.snapshot) if self.extends else self.snapshot.expires_at

    @property
    def absolute_expires_at(self) -> int | None:
        """When the session expires even if it is used; Unix milliseconds."""
        return self.snapshot.record.absolute_expires_at if self.snapshot else None

    # -- reading ---------------------------------------------------------------------------------------------

    def begin_as_visitor(self) -> bool:
        """Begin without a session if the request has no cookie; return False if the session has to be loaded."""
        if not self.loaded:
            self.loaded = self.source.is_bare()
        return self.loaded

    async def load(self) -> SessionHandle[D]:
        """Read the cookie and load the session, once per request. Raises `StoreUnavailableError`.

        Raises `InvalidTokenError` where the request presents a bearer token that opens no session.
        """
        while self._loading is not None:  # another task of this request is loading it
            arrived = asyncio.get_running_loop().create_future()
            self._loading.append(arrived)
            await arrived
        if self.loaded:
            return self
        waiting: list[asyncio.Future[None]] = []
        self._loading = waiting
        try:
            found = self.source.read_session_id()
            if isinstance(found, str):
                await self._take((found,), found, await self._lifecycle.load(found))
            else:
                await self._load_unusual(found)
            if self.snapshot is None and self.source.presents_token:
                self.loaded = False
                raise InvalidTokenError
            if (snapshot := self.snapshot) is not None and (
                snapshot.expires_at - self._confirmed_at < self._lifecycle.extend_at_once
            ):
                await self.extend()
        finally:
            self._loading = None
            for arrived in waiting:
                if not arrived.done():
                    arrived.set_result(None)
        return self

    async def reload(self) -> D:
        """Read the session again; assignments that were not saved are lost. Returns the new data."""
        if self.session_id is None:
            self._adopt(None)
        else:
            session_id = self.session_id
            unreadable = self._adopt_found(await self._lifecycle.load(session_id))
            if self.snapshot is None:
                self.session_id = None
                if unreadable is not None:
                    await self._lifecycle.report_undecodable(session_id, unreadable)
        return self.data

    @property
    def data(self) -> D:
        """The typed data: read it, assign to it."""
        draft = self._draft
        return self._fresh_data() if draft is None else draft.data

    @data.setter
    def data(self, value: D) -> None:
        if not isinstance(value, self._lifecycle.codec.data_type):
            msg = f"session data must be a {self._lifecycle.codec.data_type.__name__}"
            raise SessionDataError(msg)
        self._loaded_draft().data = value

    def fresh_data(self) -> D:
        """Return the data of a new session."""
        return self._lifecycle.codec.fresh()

    @property
    def changed(self) -> bool:
        """Whether something was assigned that is not saved yet."""
        return self.has_unsaved_changes()

    # Methods, because every response calls them, and a property takes CPython 3.11 twice as long.

    def has_to_save(self) -> bool:
        """Whether the response needs a store call before it starts: to save, to extend, or to confirm."""
        draft, snapshot = self._draft, self.snapshot
        if snapshot is not None:
            lifecycle = self._lifecycle
            now = lifecycle.clock.now()
            if now - self._confirmed_at > lifecycle.confirm_after:
                return True
            # The first condition is that of `touch_due`, without a call on every read.
            near = now >= snapshot.expires_at - lifecycle.touch_before or snapshot.record.idle
            if near and self.extends and lifecycle.touch_due(snapshot):
                return True
        return self.has_unsaved_changes() if draft is None else draft.is_changed()

    def has_to_confirm(self) -> bool:
        """Whether the session was read so long ago that it may have ended since."""
        if self.snapshot is None:
            return False
        lifecycle = self._lifecycle
        return lifecycle.clock.now() - self._confirmed_at > lifecycle.confirm_after

    async def confirm(self) -> None:
        """Check that the session still exists. Raises `SessionGoneError` if it has ended, and `StoreUnavailableError`."""
        snapshot = self.snapshot
        if snapshot is not None:
            newest = await self._lifecycle.confirm(snapshot)
            self._confirmed_at = self._lifecycle.clock.now()
            if newest is not snapshot:
                self.follow(newest)

    async def extend(self) -> None:
        """Extend the idle timeout if due. An outage of the store is ignored."""
        snapshot = self.snapshot
        if snapshot is not None and self.extends:
            extended = await self._lifecycle.touch(snapshot)
            if self.snapshot is snapshot:  # nothing was written meanwhile
                self.snapshot = extended

    def has_unsaved_changes(self) -> bool:
        """Whether there are unsaved assignments. Raises `SessionDataError` where it cannot be stored."""
        draft = self._draft
        if draft is None:
            return self._fresh is not None and self._lifecycle.codec.differs_from_fresh(self._fresh)
        return draft.is_changed()

    # -- changing --------------------------------------------------------------------------------------------

    async def update(self, function: Callable[[D], D | None] | None = None, /, **fields: object) -> D:
        """Change the data atomically and durably; return the new data.

        `update(fn)` calls `fn` with the newest data; it changes the data in place or returns new data. It is called again when
        another request wrote first, so it must have no other effects. `update(theme="dark")` sets fields. Earlier assignments are
        saved with it.

        Raises `SessionDataError` for an unknown field or a value of the wrong type, `SessionGoneError` when the session has
        ended, `SessionConflictError` when an earlier assignment conflicts with another request's, `StoreUnavailableError`. After
        a `SessionDataError`, assignments that cannot be stored are undone.
        """
        if not self.loaded:
            await self.load()
        codec = self._lifecycle.codec
        if fields and (unknown := fields.keys() - codec.field_names):
            msg = f"{codec.data_type.__name__} has no field {', '.join(sorted(unknown))}"
            raise SessionDataError(msg)

        draft = self._draft or self._loaded_draft()
        change = partial(draft.updated, function, fields)
        try:
            if (snapshot := self.snapshot or await self._begun_by_others(change)) is not None:
                self._adopt(await self._lifecycle.write(snapshot, change), draft.made)
        except SessionDataError:
            self._roll_back(draft)
            raise
        return self.data

    async def save(self) -> None:
        """Save the assignments to `data`, or extend the idle timeout. Called by the middleware.

        After a `SessionDataError` the assignments are undone.
        """
        if self._draft is None and self._fresh is None:
            return
        draft = self._loaded_draft()
        try:
            if draft.is_changed():
                if (snapshot := self.snapshot or await self._begun_by_others(draft.merged)) is not None:
                    self._adopt(await self._lifecycle.write(snapshot, draft.merged))
            else:
                await self.extend()
        except SessionDataError:
            self._roll_back(draft)
            raise

    async def login(
        self,
        identity: Identity,
        *,
        first: Callable[[D], D | None] | None = None,
        vault: bytes = b"",
        begun: Moment | None = None,
        timeouts: Timeouts | None = None,
        persistent: bool | None = None,
    ) -> None:
        """Log a user in under a new session id (against fixation); the old id is no longer valid.

        Data of an anonymous visitor or of the same user is kept. `first` changes it in the same write, like the function of
        `update`: if it raises, the login does not happen and nothing changes. `vault` is stored for the login layer. See
        `NewLogin` for `begun`. `timeouts` are this login's own (a kiosk, "remember me"), of which the touch interval stays the
        configured one; `persistent` says whether its cookie outlives the browser, whatever `CookieConfig` says.

        Raises `SessionLimitError` if the user has as many sessions as allowed and `on_limit` is "refuse".
        """
        await self.load()
        self._refuse_without_cookie()
        await self._settle()
        draft, codec = self._loaded_draft(), self._lifecycle.codec
        with self._new_id(draft) as new_id:
            session_id, snapshot = await self._lifecycle.login(
                self.snapshot,
                NewLogin(identity, self.source.read_device(), vault, begun, timeouts, persistent, only_in_place=self._takes_over),
                change=draft.merged,
                data=draft.encoded(),
                first=lambda kept: kept if first is None else updated(codec, kept, first)[0],
                unreadable=self._unreadable,
                new_id=new_id,
            )
        await self._enter_as_another(session_id, snapshot)

    async def regenerate(self) -> None:
        """Give the session a new id in one atomic step; the old id is no longer valid. Does nothing for a visitor."""
        await self.load()
        if self.snapshot is None:
            await self.save()
            return
        self._refuse_without_cookie()
        await self._settle()
        draft = self._loaded_draft()
        with self._new_id(draft) as new_id:
            session_id, snapshot = await self._lifecycle.regenerate(self.snapshot, draft.merged, new_id=new_id)
        self._enter(session_id, snapshot)

    async def impersonate(self, identity: Identity, *, first: Callable[[D], D | None] | None = None) -> None:
        """Let the administrator who is logged in act as another user: the same session under a new id, with fresh data.

        `identity` and `data` are those of the user from now on, `actor` is the administrator. It ends by `end_impersonation`,
        with the administrator's session, and after `Impersonation.seconds`. `first` changes the data it begins with.

        Raises `LoginRequiredError`, `StepUpRequiredError` where the administrator has not logged in recently,
        `ImpersonationForbiddenError` where one is under way, `ForbiddenError` where `Impersonation.allow` refuses, and
        `ConfigurationError` where `SessionConfig` has no `impersonation`.
        """
        await self.load()
        self._refuse_without_cookie()
        await self._settle()
        draft, codec = self._loaded_draft(), self._lifecycle.codec
        with self._new_id(draft) as new_id:
            session_id, snapshot = await self._lifecycle.impersonate(
                self.snapshot,
                identity,
                change=draft.merged,
                first=lambda blank: blank if first is None else updated(codec, blank, first)[0],
                new_id=new_id,
            )
        await self._enter_as_another(session_id, snapshot)

    async def end_impersonation(self) -> None:
        """Restore the administrator's own session under a new id; does nothing without an impersonation.

        Data that was written meanwhile is dropped. Raises `SessionGoneError` when the session has ended.
        """
        await self.load()
        if self.snapshot is None or self.actor is None:
            return
        self._refuse_without_cookie()
        await self._settle()
        with self._new_id(self._loaded_draft()) as new_id:
            session_id, snapshot = await self._lifecycle.end_impersonation(self.snapshot, new_id=new_id)
        try:
            await self._enter_as_another(session_id, snapshot)
        except UndecodableError as error:
            raise SessionGoneError from error

    async def destroy(self) -> None:
        """End the session in the store and delete the cookie. Safe without a session; the data is fresh afterwards."""
        await self.load()
        await self._settle()
        if self.snapshot is not None:
            await self._lifecycle.destroy(self.snapshot)
        for session_id in self._unreadable:
            await self._lifecycle.end_unreadable(session_id)
        self._unreadable = ()
        self.session_id = None
        self.cookie_action = "delete"
        self._adopt(None)
        if self.identity_changed is not None:
            await self.identity_changed()

    def use_bearer(self) -> None:
        """Give this client a bearer token in place of a cookie: the response has the header `Session-Token`.

        For a login that a native client sends by itself; before `login`. A request that has a token gets a token anyway. Raises
        `AmbiguousCredentialsError` where the request has a session cookie, and `ConfigurationError` without
        `SessionConfig(bearer=True)`.
        """
        self.source.answer_by_token()

    @property
    def new_token(self) -> str | None:
        """The bearer token that this response gives to the client; None where there is no new one, or the client has a cookie."""
        held = self.cookie() if self.cookie_action == "set" else None
        return None if held is None else self.source.token_of(held[0])

    def take_over(self, snapshot: Snapshot) -> None:
        """Let the next `login` move this stored session to its new id, or fail.

        For the login layer. Of many requests that do so one logs in; the others get `SessionGoneError`.
        """
        fresh = self._lifecycle.codec.encode(self._lifecycle.codec.fresh())
        self._adopt(msgspec.structs.replace(snapshot, record=msgspec.structs.replace(snapshot.record, data=msgspec.Raw(fresh))))
        self._takes_over = True

    async def was_revoked(self) -> bool:
        """Whether this browser's session was revoked, as opposed to expired.

        Revoked by its user on another device, by an operator or by the limit of sessions. The next login should ask for
        credentials: the OP's single sign-on would undo "sign out" without a click. False if a user is logged in, and if the OP
        has ended its own session as well. Raises `StoreUnavailableError`.
        """
        await self.load()
        if self.identity is not None:
            return False
        presented = [session_key(session_id) for session_id in self._unreadable]
        return await self._lifecycle.was_revoked([self.key] if self.key is not None else presented)

    async def store_vault(self, vault: bytes) -> None:
        """Replace the sealed data of the login layer. Raises `SessionGoneError` without a session."""
        await self.load()
        if self.snapshot is None:
            raise SessionGoneError
        if self.actor is not None:
            raise ImpersonationForbiddenError
        draft = self._loaded_draft()
        try:
            snapshot = await self._lifecycle.write(
                self.snapshot,
                lambda record: msgspec.structs.replace(draft.merged(record), vault=vault),
            )
        except SessionDataError:
            self._roll_back(draft)
            raise
        self._adopt(snapshot)

    def belongs_to(self, lifecycle: SessionLifecycle[Any]) -> bool:
        """Whether this session belongs to `lifecycle`."""
        return self._lifecycle is lifecycle

    # -- inside ----------------------------------------------------------------------------------------------

    async def _load_unusual(self, found: Awaitable[str | None] | UncertainId | tuple[str | UncertainId, ...] | None) -> None:
        """Load what is not just one id."""
        if isinstance(found, tuple):
            presented = await self._choose(found)
        else:
            presented = found if found is None or isinstance(found, UncertainId) else await found
        if presented is None:
            self._adopt(None)
        elif isinstance(presented, str):
            await self._take((presented,), presented, await self._lifecycle.load(presented))
        else:
            session_id, snapshot = await self._lifecycle.settle(presented) or ("", None)
            await self._take(presented.ids, session_id, snapshot)
            if self.snapshot is not None:
                self.cookie_action = "set"

    async def _choose(self, presented: tuple[str | UncertainId, ...]) -> str | UncertainId | None:
        """Return the live id of several cookies; the response deletes the others."""
        chosen = await self._lifecycle.choose(presented)
        self.presents_several = True
        if chosen is not None:
            self.cookie_action = "set"
        else:  # a login replaces all of them
            ids = chain.from_iterable((each,) if isinstance(each, str) else each.ids for each in presented)
            self._unreadable = tuple(dict.fromkeys(ids))
        return chosen

    def _give_again(self, snapshot: Snapshot) -> None:
        """Set the cookie again at the first use of a day, if the browser could drop it before the session ends."""
        lifecycle, record = self._lifecycle, snapshot.record
        if record.absolute_expires_at - record.created_at <= lifecycle.browser_keeps:  # nearly always, and cheaper
            return
        seen = max(record.created_at, lifecycle.timeouts.with_idle(record.idle).last_seen(snapshot.expires_at))
        if record.absolute_expires_at - seen > lifecycle.browser_keeps and seen // _DAY != lifecycle.clock.now() // _DAY:
            self.cookie_action = "set"

    async def _take(self, presented: tuple[str, ...], session_id: str, snapshot: Snapshot | None) -> None:
        """Begin with the session found under the ids of the request."""
        unreadable = self._adopt_found(snapshot)
        if self.snapshot is not None:
            self.session_id = session_id
            if self.extends:
                self._give_again(self.snapshot)
            return
        self._unreadable = presented
        if unreadable is not None:
            await self._lifecycle.report_undecodable(session_id, unreadable)

    async def _settle(self) -> None:
        """Find out which id the session has after the store's answer to this request was lost."""
        if self.uncertain is None:
            return
        found = await self._lifecycle.settle(self.uncertain)
        self.uncertain = None
        if found is not None:
            self.session_id, snapshot = found
            self.follow(snapshot)

    def _new_id(self, draft: Draft[D]) -> _GivesNewId:
        """Return a context for a step that gives the session a new id."""
        return _GivesNewId(partial(self._failed_to_move, draft))

    def _failed_to_move(self, draft: Draft[D], new_id: NewId, error: BaseException) -> None:
        """Give the browser both ids if the result of the step is unknown."""
        if new_id.session_id is not None:
            begun = None if new_id.begun is None else (new_id.begun.count, new_id.begun.number)
            self.uncertain = (self.uncertain or UncertainId((), self.session_id)).after(new_id.session_id, begun)
            self.cookie_action = "set"
        if isinstance(error, SessionDataError):
            self._roll_back(draft)

    def cookie(self) -> tuple[str, int, bool | None] | None:
        """Return the cookie's content, its expiry (Unix milliseconds), whether it outlives the browser (None: as configured)."""
        if self.uncertain is not None:
            return self.uncertain.text(), self._lifecycle.timeouts.absolute_expiry(self._lifecycle.clock.now()), None
        if self.session_id is None or self.snapshot is None:
            return None
        record = self.snapshot.record
        return self.session_id, record.absolute_expires_at, record.persistent

    def _adopt_found(self, snapshot: Snapshot | None) -> UndecodableError | None:
        """Begin with the session that was read, or a fresh one; return the reason if the data cannot be decoded."""
        try:
            self._adopt(snapshot)
        except UndecodableError as error:
            self._adopt(None)
            return error
        return None

    def _loaded_draft(self) -> Draft[D]:
        """Return the draft; a visitor's is made on first use."""
        if self._draft is None:
            self._refuse_unloaded()
            self._draft, self._fresh = Draft(self._lifecycle.codec, None, self._fresh), None
        return self._draft

    def _fresh_data(self) -> D:
        """Return the data of a visitor, without a draft if fresh data is always the same."""
        if self._fresh is None:
            self._refuse_unloaded()
            codec = self._lifecycle.codec
            if codec.fresh_encoding is None:
                return self._loaded_draft().data
            self._fresh = codec.fresh()
        return self._fresh

    def _refuse_unloaded(self) -> None:
        if not self.loaded:
            msg = "the session is not loaded yet; inject it, or await session_of(connection)"
            raise RuntimeError(msg)

    def _adopt(self, snapshot: Snapshot | None, data: D | None = None) -> None:
        """Continue with a session, of which `data` is the data if already decoded."""
        if snapshot is None:
            self._draft = self._fresh = None
        else:
            self._draft, self._fresh = Draft(self._lifecycle.codec, bytes(snapshot.record.data), data), None
            self._confirmed_at = self._lifecycle.clock.now()
        self.snapshot = snapshot
        self.loaded = True

    def _roll_back(self, draft: Draft[D]) -> None:
        """Undo assignments that cannot be stored: the error was raised once, and the response must not fail again."""
        if draft is not self._draft:
            return
        try:
            draft.encoded()
        except SessionDataError:
            confirmed_at = self._confirmed_at
            self._adopt(self.snapshot)
            self._confirmed_at = confirmed_at

    def _enter(self, session_id: str, snapshot: Snapshot) -> None:
        self.session_id = session_id
        self.uncertain = None
        self._unreadable = ()
        self.cookie_action = "set"
        self._adopt(snapshot)

    async def _enter_as_another(self, session_id: str, snapshot: Snapshot) -> None:
        self._enter(session_id, snapshot)
        if self.identity_changed is not None:
            await self.identity_changed()

    async def _begun_by_others(self, change: Change) -> Snapshot | None:
        """Begin a session with a change; return the session if another task of this request has begun it meanwhile.

        Concurrent tasks of one request must begin only one session.
        """
        if self._beginning is None:
            self._beginning = asyncio.Lock()
        async with self._beginning:
            if self.snapshot is None:
                await self._begin(change)
                return None
            return self.snapshot

    async def _begin(self, change: Change) -> None:
        """Store a visitor's first data, unless it is equal to fresh data."""
        base = self._loaded_draft().base
        data = bytes(change(SessionRecord(created_at=0, absolute_expires_at=0, data=msgspec.Raw(base))).data)
        if data == base:
            return
        self._refuse_without_cookie()
        if self._unreadable and await self._lifecycle.has_moved(self._unreadable):
            # Another request of this browser has just got a new id: a session begun here would overwrite its cookie.
            raise SessionGoneError
        with self._new_id(self._loaded_draft()) as new_id:
            session_id, snapshot = await self._lifecycle.begin(data, device=self.source.read_device(), new_id=new_id)
        presented = [session_key(presented_id) for presented_id in self._unreadable]
        self._enter(session_id, snapshot)
        await self._lifecycle.inherit_revocation(presented, snapshot.key)

    def _refuse_without_cookie(self) -> None:
        if self.source.on_websocket:
            msg = (
                "a WebSocket cannot give the browser a new session id, because servers drop the headers of its accept: log in, "
                "regenerate or write the first data in an HTTP request before the page opens the WebSocket"
            )
            raise ResponseStartedError(msg)
        if self.response_started:
            msg = "the response has started: a new session id can no longer be set in a cookie"
            raise ResponseStartedError(msg)
