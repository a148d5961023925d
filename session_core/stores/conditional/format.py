"""Names and content of the documents of an engine with conditional writes; independent of engines.

    s:key    a session, or where it was rotated to     c:name   a claim
    u:user   the keys of a user's sessions             o:value  those of a session at the OP
    t:id     the decision on a transaction             p:id     a piece of a document too large for the engine

Each is a `Held` document: the current value and, during a transaction, the intent to change it.
"""

from __future__ import annotations

from typing import Final

from session_core.stores.base import Entry, SessionIndex
from session_core.stores.document.format import Corrupt, Document, decode, encode, nonce

__all__ = (
    "FOREVER",
    "Claim",
    "Corrupt",
    "Decision",
    "Document",
    "Held",
    "Intent",
    "KeyList",
    "SessionDocument",
    "decode",
    "encode",
    "list_name",
    "list_names",
    "nonce",
)

FOREVER: Final = 1 << 52
"""Later than any time in milliseconds."""


class SessionDocument(Document, frozen=True, array_like=True):
    """One session or, with `moved_to`, the successor of a rotated one. `until` is the expiry of either."""

    version: int
    data: bytes
    user: str | None
    op_session: str | None
    rank: int
    listed_until: int
    """When the lists with its key expire; a longer life must extend them."""
    moved_to: str | None = None


class KeyList(Document, frozen=True, array_like=True):
    """The keys of all live sessions of a user or of an OP session, and perhaps of some that have ended."""

    keys: list[str]
    prune_at: int
    """The number of keys at which those of ended sessions are removed next."""


class Claim(Document, frozen=True, array_like=True):
    """A claimed name."""


class Decision(Document, frozen=True, array_like=True):
    """The outcome of a transaction. It is kept for as long as a document may hold an intent of it."""

    committed: bool


class Intent(Document, frozen=True, array_like=True):
    """The value of the document if the transaction is committed; None removes it."""

    transaction: str
    due: int
    """When readers may abort it, before the transaction's caller gives up (Unix milliseconds by the real clock)."""
    value: bytes | None
    alone: bool = False
    """Whether the transaction changes this document only; then replacing the intent by `value` commits it."""


class Held(Document, frozen=True, array_like=True):
    """The document of a name. `until` is that of `value`."""

    nonce: int
    """Random per write, so that no two writes have the same bytes."""
    value: bytes | None
    intent: Intent | None = None


def list_name(index: SessionIndex) -> str:
    """Return the name of an index value's list."""
    return f"u:{index.user}" if index.user is not None else f"o:{index.op_session}"


def list_names(entry: Entry | SessionDocument) -> list[str]:
    """Return the names of the lists that a session is on."""
    names = [f"u:{entry.user}"] if entry.user is not None else []
    return [*names, f"o:{entry.op_session}"] if entry.op_session is not None else names
