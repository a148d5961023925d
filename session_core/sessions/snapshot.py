"""A decoded record, the version it was read at, and its encoding."""

from __future__ import annotations

from typing import Final

import msgspec

from session_core.sessions.record import SessionRecord, decode_record, encode_record
from session_core.stores.base import Entry, StoredSession

__all__ = ("STALE", "Snapshot", "entry_of", "lineage_of", "snapshot_of")

STALE: Final = -1
"""The version of a record that is older than the store's."""


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """A session as read or written, the base of a later change.

    `version` is negative when the record is older than the store's: a write then reads first.
    """

    key: str
    version: int
    expires_at: int
    record: SessionRecord
    entry: Entry | None = None
    """The stored entry, whose index keys a write reuses for the same identity."""


def snapshot_of(stored: StoredSession) -> Snapshot:
    """Decode what a store returned. Raises `UndecodableError`."""
    entry = stored.entry
    return Snapshot(stored.key, stored.version, entry.expires_at, decode_record(entry.data), entry)


def entry_of(record: SessionRecord, expires_at: int, *, before: Snapshot | None = None) -> Entry:
    """Encode a record for a store, with its index keys. `before`: the session that the record was made from."""
    data, rank, identity = encode_record(record), record.logged_in_at or record.created_at, record.identity
    if before is not None and (known := before.entry) is not None and identity is before.record.identity:
        return Entry(data, expires_at, known.user, known.op_session, rank)
    if identity is None:
        return Entry(data, expires_at, None, None, rank)
    return Entry(data, expires_at, identity.user_key, identity.op_session_key, rank)


def lineage_of(snapshot: Snapshot) -> object:
    """Return what identifies a session across regenerations: its login, or its beginning.

    An impersonation that begins or ends counts as a login: what is open belongs to another user then.
    """
    record = snapshot.record
    user = record.identity.user_key if record.identity is not None else None
    acting_as = record.acting_as
    acting = None if acting_as is None else (acting_as.since, acting_as.identity.user_key)
    return record.created_at, record.logged_in_at, user, acting
