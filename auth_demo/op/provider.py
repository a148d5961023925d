"""The running provider as one object, for the web handlers, the demo and tests."""

from collections.abc import Sequence
from typing import Final

import httpx2

from auth_demo.op.backchannel import Delivery, LogoutNotifier
from auth_demo.op.protocol.claims import IdTokens
from auth_demo.op.protocol.oauth_grants import create_oauth_server
from auth_demo.op.settings import Account, OpSettings, RegisteredClient
from auth_demo.op.state.expiring import Clock
from auth_demo.op.state.grants import GrantStore
from auth_demo.op.state.keys import SigningKeys
from auth_demo.op.state.rate_limit import FailureLimit
from auth_demo.op.state.records import OpSession
from auth_demo.op.state.sessions import OpSessions
from auth_demo.op.web.csrf import FormTokens

__all__ = ("EmbeddedOp",)

_FAILURES_PER_ACCOUNT: Final = 5
_FAILURES_PER_ADDRESS: Final = 30


class EmbeddedOp:
    """An embedded OpenID provider; all its state is in memory."""

    def __init__(self, settings: OpSettings, clock: Clock, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self.clock = clock
        self.keys = SigningKeys()
        self.sessions = OpSessions(clock, settings.lifetimes.op_session)
        self.grants = GrantStore(clock, settings.lifetimes)
        self.id_tokens = IdTokens(settings, self.keys, clock)
        self.oauth = create_oauth_server(settings, self.grants, self.id_tokens)
        self.forms = FormTokens()
        self.notifier = LogoutNotifier(settings, self.keys, clock, transport)
        self.account_failures = FailureLimit(clock, limit=_FAILURES_PER_ACCOUNT)
        self.address_failures = FailureLimit(clock, limit=_FAILURES_PER_ADDRESS)

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The seeded users."""
        return self.settings.accounts

    @property
    def clients(self) -> tuple[RegisteredClient, ...]:
        """The registered relying parties."""
        return self.settings.clients

    def account(self, username: str) -> Account | None:
        """Return the account called `username`, or ``None``."""
        return next((account for account in self.accounts if account.username == username), None)

    def rotate_keys(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on and return its kid; `keep_old` keeps the retired ones in the JWKS."""
        return self.keys.rotate(keep_old=keep_old)

    def sessions_of(self, username: str) -> list[OpSession]:
        """Return the live provider sessions of `username`; `KeyError` when there is no such user."""
        return self.sessions.of_subject(self._require(username).sub)

    async def end_sessions_of(self, username: str) -> list[Delivery]:
        """End every provider session of `username` and wait for the deliveries to all clients.

        Returns one `Delivery` per client and session. Raises `KeyError` when there is no such user.
        """
        tasks = [task for session in self.sessions_of(username) for task in self.notifier.start(self.end(session))]
        return [await task for task in tasks]

    def end(self, session: OpSession) -> OpSession:
        """End `session` and its tokens at once, before any notification; returns it for the notifier."""
        self.sessions.end(session)
        self.grants.revoke_session(session.sid)
        return session

    async def sign_out(self, sessions: Sequence[OpSession]) -> None:
        """End `sessions` and notify their clients, within the time of the settings."""
        tasks = [task for session in sessions for task in self.notifier.start(self.end(session))]
        await self.notifier.wait(tasks, seconds=self.settings.logout_wait_seconds)

    async def close(self) -> None:
        """Stop background work, at shutdown."""
        await self.notifier.close()

    def _require(self, username: str) -> Account:
        account = self.account(username)
        if account is None:
            raise KeyError(username)
        return account
