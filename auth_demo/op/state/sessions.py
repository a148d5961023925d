"""The provider's own browser sessions: who is signed in here, and at which clients."""

from typing import Final

from auth_demo.op.state.expiring import Clock, ExpiringMap
from auth_demo.op.state.records import OpSession
from auth_demo.op.state.secret import digest, new_public_id, new_secret

__all__ = ("SESSION_COOKIE", "OpSessions")

SESSION_COOKIE: Final = "op_session"
"""Not ``session``: cookies ignore ports, and the reference application owns that name."""

_CAPACITY: Final = 10_000


class OpSessions:
    """Sessions by cookie digest; a session ends by logout, by another sign-in or after its lifetime."""

    def __init__(self, clock: Clock, lifetime: int) -> None:
        self._clock = clock
        self._by_cookie = ExpiringMap[OpSession](clock, lifetime=lifetime, capacity=_CAPACITY)

    def begin(self, sub: str, *, acr: str, amr: tuple[str, ...], previous: OpSession | None) -> tuple[str, OpSession]:
        """Sign `sub` in and return the new cookie value with the session.

        The cookie value is always new (session fixation). The same user's previous session goes on under its
        `sid`, so that clients signed in earlier still get the logout token.
        """
        cookie = new_secret()
        now = int(self._clock())
        if previous is not None and previous.sub == sub:
            self._by_cookie.pop(previous.cookie_digest)
            session = previous
            session.auth_time, session.acr, session.amr = now, acr, amr
            session.cookie_digest = digest(cookie)
        else:
            session = OpSession(sid=new_public_id(), sub=sub, auth_time=now, acr=acr, amr=amr, cookie_digest=digest(cookie))
        self._by_cookie.put(session.cookie_digest, session)
        return cookie, session

    def find(self, cookie: str | None) -> OpSession | None:
        """Return the live session of a cookie value; an unknown value has no session and is never adopted."""
        return self._by_cookie.get(digest(cookie)) if cookie else None

    def find_sid(self, sid: str) -> OpSession | None:
        """Return the live session with the public identifier `sid`."""
        return next((session for session in self._by_cookie.values() if session.sid == sid), None)

    def of_subject(self, sub: str) -> list[OpSession]:
        """Return the live sessions of one user, oldest first."""
        return [session for session in self._by_cookie.values() if session.sub == sub]

    def end(self, session: OpSession) -> None:
        """Forget `session`; requests that hold it see `ended`."""
        session.ended = True
        self._by_cookie.pop(session.cookie_digest)
