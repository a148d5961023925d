"""Sends signed logout tokens to clients by HTTP POST when a session ends (OIDC Back-Channel Logout 1.0)."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx2

from auth_demo.op.settings import OpSettings, RegisteredClient
from auth_demo.op.state.expiring import Clock
from auth_demo.op.state.keys import SigningKeys
from auth_demo.op.state.records import OpSession
from auth_demo.op.state.secret import new_public_id

__all__ = ("LOGOUT_EVENT", "LOGOUT_TOKEN_TYPE", "Delivery", "LogoutNotifier")

LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TOKEN_TYPE: Final = "logout+jwt"  # noqa: S105 - a type, no secret
_ATTEMPTS: Final = 2
_ACCEPTED: Final = frozenset({200, 204})
_SERVER_ERROR: Final = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The result of one delivery: `delivered`, the last HTTP `status` (if any) and `attempts`."""

    client_id: str
    sid: str
    delivered: bool
    status: int | None
    attempts: int


class LogoutNotifier:
    """Delivers logout tokens in background tasks that it owns until they are done."""

    def __init__(
        self,
        settings: OpSettings,
        keys: SigningKeys,
        clock: Clock,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._transport = transport
        self._running: set[asyncio.Task[Delivery]] = set()

    def logout_token(self, client_id: str, *, sub: str, sid: str) -> str:
        """Return a signed logout token (Back-Channel Logout 2.4); it never holds a nonce."""
        now = int(self._clock())
        claims = {
            "iss": self._settings.issuer,
            "aud": client_id,
            "iat": now,
            "exp": now + self._settings.lifetimes.logout_token,
            "jti": new_public_id(),
            "sub": sub,
            "sid": sid,
            "events": {LOGOUT_EVENT: {}},
        }
        return self._keys.sign(claims, typ=LOGOUT_TOKEN_TYPE)

    def start(self, session: OpSession) -> list[asyncio.Task[Delivery]]:
        """Start deliveries to every client of `session`; needs a running event loop and returns at once."""
        tasks: list[asyncio.Task[Delivery]] = []
        for client in self._settings.clients:
            if client.client_id in session.client_ids and client.backchannel_logout_uri:
                task = asyncio.create_task(self._deliver(client, client.backchannel_logout_uri, session))
                # The loop has only weak references to tasks: without this set a delivery could be garbage-collected.
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                tasks.append(task)
        return tasks

    async def wait(self, tasks: Sequence[asyncio.Task[Delivery]], *, seconds: float) -> None:
        """Wait for `tasks`, at most `seconds`; those not done by then go on in the background."""
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def close(self) -> None:
        """Let running deliveries finish for a moment, then cancel them, at shutdown."""
        await self.wait(list(self._running), seconds=self._settings.logout_wait_seconds)
        late = [task for task in self._running if not task.done()]
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _deliver(self, client: RegisteredClient, uri: str, session: OpSession) -> Delivery:
        status: int | None = None
        delivered = False
        attempt = 0
        while attempt < _ATTEMPTS and not delivered:
            if attempt:
                await asyncio.sleep(self._settings.logout_retry_seconds)
            attempt += 1
            # A new jti each time: the client may have accepted the first token although its response was lost.
            status = await self._post(uri, self.logout_token(client.client_id, sub=session.sub, sid=session.sid))
            delivered = status in _ACCEPTED
            if status is not None and not delivered and status < _SERVER_ERROR:
                break
        _log.log(
            logging.INFO if delivered else logging.WARNING,
            "back-channel logout to %s: delivered=%s status=%s attempts=%s",
            client.client_id,
            delivered,
            status,
            attempt,
        )
        return Delivery(client_id=client.client_id, sid=session.sid, delivered=delivered, status=status, attempts=attempt)

    async def _post(self, uri: str, token: str) -> int | None:
        """Return the answer's status, or ``None`` without one; the body is never read."""
        limit = self._settings.logout_attempt_seconds
        try:
            # No redirects and no proxy from the environment: the token goes to the registered address only.
            async with (
                asyncio.timeout(limit),
                httpx2.AsyncClient(transport=self._transport, timeout=limit, follow_redirects=False, trust_env=False) as client,
                client.stream("POST", uri, data={"logout_token": token}) as response,
            ):
                return response.status_code
        except (httpx2.HTTPError, TimeoutError, OSError):
            return None
