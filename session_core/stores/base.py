"""The store contract: opaque bytes by session key, with a version, an expiry and two indexes.

A store is independent of cookies, identities and the content of a session. The docstrings of `SessionStore` ARE the contract;
`session_core.testing.SessionStoreContract` is the same contract as tests.

Shared rules:

- Every time is Unix milliseconds. A record whose `expires_at` is not after the clock's now does not exist, for every
  method, whether or not it has been swept.
- Absent, expired and ended are all `None`, `False`, empty or `SessionGoneError`. Any other exception is an outage, and a
  store raises `StoreUnavailableError` for it.
- A step takes effect before its `step_deadline` or never: its client gets 503 and may try again. A store compares the deadline
  where the effect is decided (before the deciding statement or the COMMIT, in a script on the server, after the last lock) and
  raises `StoreUnavailableError`, with `not_applied` if it is sure. `check_deadline` does that.
- Each method is one atomic step: another process sees all of it or nothing, and a process killed in the middle leaves a
  state that equals one of the two.
- No user delays another one by more than milliseconds, with any number of sessions. So `find` and `delete_by` of very many
  sessions may take several steps; sessions above a lowered limit may end before the step of the login.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from session_core.errors import StoreUnavailableError

__all__ = ("Entry", "SessionIndex", "SessionStore", "StoreCapabilities", "StoredSession", "keeps_time", "opened")


T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


def opened(client: T | None) -> T:
    """Return the client of an open store. Raises `StoreUnavailableError` for that of a closed one."""
    if client is None:
        msg = "the session store is closed"
        raise StoreUnavailableError(msg)
    return client


def keeps_time(method: F) -> F:
    """Mark a `load`, `replace` or `rotate` that ends within its store's `keeps_within` seconds and needs no timer."""
    method.keeps_time = True  # type: ignore[attr-defined]
    return method


class SessionIndex(msgspec.Struct, frozen=True):
    """Selects the sessions of one user, or of one session at the OP (exactly one is given).

    Both are opaque keys made by `session_core.identity`.
    """

    user: str | None = None
    op_session: str | None = None

    def __post_init__(self) -> None:
        """Refuse an index that would mean 'all sessions' or 'both'."""
        if (self.user is None) == (self.op_session is None):
            msg = "exactly one of user and op_session is needed"
            raise ValueError(msg)

    @property
    def column(self) -> tuple[str, str]:
        """The column of the SQL tables, and its value."""
        return ("user_key", self.user) if self.user is not None else ("op_session_key", self.op_session or "")

    def selects(self, user: str | None, op_session: str | None) -> bool:
        """Whether a session with these index keys is one of them."""
        return self.user == user if self.user is not None else self.op_session == op_session


class Entry(msgspec.Struct, frozen=True, gc=False):
    """The data written for one session.

    `rank` orders the sessions of a user: those with the lowest rank end first above a limit
    (milliseconds of the login).
    """

    data: bytes
    expires_at: int
    user: str | None = None
    op_session: str | None = None
    rank: int = 0


class StoredSession(msgspec.Struct, frozen=True, gc=False):
    """The data read for one session."""

    key: str
    version: int
    entry: Entry


_LOST: Final = {
    "no_compare_and_swap": "of two processes that write one session at the same instant one write may be lost, and both may "
    "be given the same claim",
    "eventually_consistent": "a session that has ended may be accepted by other processes for a minute or more",
    "not_shared": "another process does not see the sessions",
    "not_durable": "sessions may be gone after a restart",
    "no_index": "to list or to end a user's sessions reads all sessions",
    "not_listable": "operators cannot list or count the sessions",
    "never_removed": "expired records stay in storage",
    "late_writes": "a write that is under way when its request is answered 503 may still be made a moment later",
}


class StoreCapabilities(msgspec.Struct, frozen=True):
    """The promises of a store; missing ones are logged at start, and features that need them are refused."""

    atomic: bool
    """Compare-and-swap, rotation and claims are atomic over all processes that share the store. If not, the session limit is
    refused, and so is a login with OpenID Connect unless `SessionConfig.accept_weak_store` is set."""
    indexed: bool
    """`find` and `delete_by` cost O(sessions found)."""
    shared: bool
    """Several processes see the same sessions."""
    durable: bool
    """Sessions survive a restart of the application."""
    native_expiry: bool
    """Expired records leave by themselves, without `delete_expired`."""
    consistent: bool = True
    """A write is visible to every process at once. Without it an ended session may be accepted elsewhere for a while, and the
    plugin refuses the store unless `SessionConfig.accept_weak_store` is set."""
    listable: bool = True
    """`scan` gives all sessions, and `delete_expired` finds what it must remove."""
    keeps_deadlines: bool = True
    """A write that reaches the engine after the deadline of its step is refused by the engine or aborted by the next reader.
    Without it the deciding write of a step may be made later if it was in progress at the deadline."""

    def lost_promises(self) -> dict[str, str]:
        """Return the missing promises by reason slug, for the log at start."""
        kept = {
            "no_compare_and_swap": self.atomic,
            "eventually_consistent": self.consistent,
            "not_shared": self.shared,
            "not_durable": self.durable,
            "no_index": self.indexed,
            "not_listable": self.listable,
            "never_removed": self.native_expiry or self.listable,
            "late_writes": self.keeps_deadlines,
        }
        return {reason: _LOST[reason] for reason, is_kept in kept.items() if not is_kept}


class SessionStore(Protocol):
    """A place that keeps sessions. Keys and index values are ASCII without separators; data is opaque."""

    @property
    def capabilities(self) -> StoreCapabilities:
        """What this store can promise."""
        ...

    async def open(self) -> None:
        """Connect and create what is missing. Called once, before any other method, in the serving event loop."""
        ...

    async def close(self) -> None:
        """Release connections and files. May be called twice, or without `open`."""
        ...

    async def ping(self) -> None:
        """Return when the store can read and write; raise `StoreUnavailableError` when not."""
        ...

    # Every request calls `load` and `replace`: each is an `async def`, or a function that returns a coroutine.
    def load(self, key: str) -> Coroutine[Any, Any, StoredSession | None]:
        """Return the record, or None when there is none (absent, expired, deleted, rotated away)."""
        ...

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """Store a new record at version 1.

        With `limit` > 0 and `entry.user`, the user's live sessions of the lowest rank are deleted in the same step, so that
        at most `limit` remain, this one included: never one more, however many processes do this at once. A store that is not
        atomic raises `ConfigurationError` instead.

        Returns the keys deleted for the limit. Raises `SessionConflictError` when the key is taken (nothing is overwritten).
        """
        ...

    def replace(self, key: str, entry: Entry, *, version: int) -> Coroutine[Any, Any, int]:
        """Overwrite the record if its version is `version`; return the new version (`version` + 1).

        Data, expiry and index entries change together. Raises `SessionConflictError` when the version differs and
        `SessionGoneError` when there is no record: a write never brings a session back.
        """
        ...

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """Replace the record at `old_key` (of `version`) by one at `new_key` at version 1, in ONE step.

        At every instant, also when the process is killed, exactly one of the two keys is live. Until `successor_until` the store
        keeps `new_key` as the successor of `old_key`, for `delete` only. `limit` and the result are those of `create`; the record
        that moves does not count twice.

        Raises `SessionConflictError` or `SessionGoneError` as `replace` does, and `SessionConflictError` when `new_key` is taken.
        """
        ...

    async def touch(self, key: str, expires_at: int) -> bool:
        """Move the expiry of a live record to `expires_at` if that is later; version and data stay.

        Returns whether the record is live. Never shortens a life and never revives a record.
        """
        ...

    async def delete(self, key: str) -> tuple[str, ...]:
        """End the session: delete the record and its remembered successors.

        A logout wins over a concurrent regeneration, whichever reaches the store first. Idempotent. Returns the
        keys of the live records that this call deleted.
        """
        ...

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """Return the live records of an index, in no particular order. Removes stale index entries."""
        ...

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """Delete all records of an index that are live now except the key `keep`, also those that are rotated meanwhile.

        Returns the keys that this call deleted.
        """
        ...

    async def delete_expired(self, limit: int = 1000) -> int:
        """Remove up to `limit` expired records, successors and claims from storage; return how many were removed.

        Safe to run in many processes at once. A store with native expiry returns 0.
        """
        ...

    def scan(self) -> AsyncIterator[StoredSession]:
        """Iterate over all live records, for operators. Not a snapshot: records may come and go meanwhile.

        A store that is not listable raises `ConfigurationError`.
        """
        ...

    async def claim(self, name: str, expires_at: int) -> bool:
        """Return True for exactly one caller per `name` until `expires_at`, over all processes.

        For single use: a login transaction, the `jti` of a logout token. Names are
        ASCII digests, never secrets.
        """
        ...

    async def claimed_until(self, name: str) -> int | None:
        """Return the `expires_at` of the live claim on `name`, or None when there is none."""
        ...
