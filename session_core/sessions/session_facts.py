"""What can be read of a request's session besides its data: who, since when, until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from session_core.ids import handle_of

if TYPE_CHECKING:
    from session_core.identity import Identity
    from session_core.sessions.lifecycle import SessionLifecycle
    from session_core.sessions.snapshot import Snapshot

__all__ = ("SessionFacts",)


class SessionFacts:
    """The session as it was read or last written; everything is empty for a visitor about whom nothing is kept."""

    _lifecycle: SessionLifecycle[Any]
    extends = True
    """Whether reading counts as use; False for what asks by itself, as a page that polls does."""
    snapshot: Snapshot | None = None
    """The session as it was read or last written, for the layers around the handler."""

    @property
    def exists(self) -> bool:
        """Whether the session is stored (False for a visitor about whom nothing is kept)."""
        return self.snapshot is not None

    def follow(self, snapshot: Snapshot) -> None:
        """Go on under the key that another request has given to the session; what the handler has assigned stays."""
        self.snapshot = snapshot

    @property
    def identity(self) -> Identity | None:
        """Who is logged in, or None."""
        return self.snapshot.record.identity if self.snapshot else None

    @property
    def handle(self) -> str | None:
        """A public name of this session for lists and logs; opens nothing."""
        return handle_of(self.snapshot.key) if self.snapshot else None

    @property
    def key(self) -> str | None:
        """The store's key of this session (a digest; opens nothing)."""
        return self.snapshot.key if self.snapshot else None

    @property
    def vault(self) -> bytes:
        """What the login layer keeps sealed in this session."""
        return self.snapshot.record.vault if self.snapshot else b""

    @property
    def created_at(self) -> int | None:
        """When the session began (a login begins it anew); Unix milliseconds."""
        return self.snapshot.record.created_at if self.snapshot else None

    @property
    def idle_expires_at(self) -> int | None:
        """When the session ends unless it is used; Unix milliseconds."""
        if self.snapshot is None:
            return None
        return self._lifecycle.expiry_after_use(self.snapshot) if self.extends else self.snapshot.expires_at

    @property
    def absolute_expires_at(self) -> int | None:
        """When the session ends in any case; Unix milliseconds."""
        return self.snapshot.record.absolute_expires_at if self.snapshot else None
