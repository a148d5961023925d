"""Polls the demo's cluster, kills a primary on request, and keeps a log. Needs no session and no store."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec
from redis import RedisError

from auth_demo.cluster.view import NodeReport, NodeView, picture_of, report_of

if TYPE_CHECKING:
    import redis.asyncio
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from auth_demo.cluster.cluster import DemoCluster
    from auth_demo.cluster.node import ClusterNode

__all__ = ("ClusterWatch", "KillRefusedError", "LogLine", "Outage")

_LOOK_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 1.0
_LINES: Final = 40
_UNAVAILABLE: Final = 503


class KillRefusedError(Exception):
    """This primary cannot be killed now; the message has the reason."""


class LogLine(msgspec.Struct, frozen=True):
    """One line of the log. `at` is the local time of day."""

    at: str
    text: str
    tone: Literal["", "good", "bad"] = ""


class Outage(msgspec.Struct, kw_only=True):
    """The effects of the last kill. Durations are seconds since then."""

    slot: int
    killed: int
    """The port of the primary that was killed."""
    began: float
    promoted: int | None = None
    """The port of the server that holds the slot now. None until the watch has seen it: maybe a moment after the application."""
    promoted_after: float | None = None
    answers_503: int = 0
    """Requests to the application that were refused since."""
    cookies_503: int = 0
    """How many of these had a Set-Cookie header; must be 0."""


class ClusterWatch:
    """The state of the cluster: the latest report of each server, at most a tenth of a second old while it answers."""

    def __init__(self, cluster: DemoCluster) -> None:
        self._cluster = cluster
        self._reports: dict[int, NodeReport | None] = {node.port: None for node in cluster.nodes}
        self._connections: dict[int, redis.asyncio.Connection] = {}
        self._starting: dict[int, float] = {}
        self._missing: set[int] = set()
        self.views: tuple[NodeView, ...] = ()
        self.outage: Outage | None = None
        self.log: deque[LogLine] = deque(maxlen=_LINES)
        """The newest last."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch inside the block."""
        await asyncio.gather(*map(self._look, self._cluster.nodes))
        self._note("three primaries and their replicas are up", "good")
        # A task for each server, so that a silent one does not delay the others.
        looking = asyncio.gather(*map(self._poll_forever, self._cluster.nodes))
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            for connection in self._connections.values():
                await connection.disconnect(nowait=True)

    def holder(self, slot: int) -> NodeView | None:
        """Return the primary that answers for a slot, or None while there is none."""
        return next((view for view in self.views if view.role == "primary" and view.holds(slot)), None)

    def kill_holder(self, slot: int) -> Outage:
        """Kill the primary of a slot, and start counting. Raises `KillRefusedError` if no replica could take over."""
        holder = self.holder(slot)
        if holder is None:
            message = f"no node serves slot {slot} now: a failover is under way"
            raise KillRefusedError(message)
        if not holder.in_sync:
            message = f"no replica could take over from port {holder.port} now: start the killed server again first"
            raise KillRefusedError(message)
        self._node(holder.port).kill()
        self.outage = Outage(slot=slot, killed=holder.port, began=time.monotonic())
        self._note(f"killed the primary on port {holder.port} (slots {holder.ranges}) with SIGKILL", "bad")
        self._missing.add(holder.port)
        self._reports[holder.port] = None  # otherwise, restarted at once, it would be shown with its last report
        self._draw()
        return self.outage

    def start_again(self) -> list[int]:
        """Start every server that is down; return their ports."""
        dead = [node for node in self._cluster.nodes if not node.alive]
        for node in dead:
            self._cluster.start_again(node)
            self._starting[node.port] = time.monotonic()
            self._missing.discard(node.port)
            self._note(f"starting the server on port {node.port} again")
        return [node.port for node in dead]

    def counting(self, app: ASGIApp) -> ASGIApp:
        """Return the application, with its refusals counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] == _UNAVAILABLE and self.outage:
                    self.outage.answers_503 += 1
                    self.outage.cookies_503 += any(name.lower() == b"set-cookie" for name, _ in message["headers"])
                await send(message)

            await app(scope, receive, send_counted)

        return cast("ASGIApp", counted)

    async def _poll_forever(self, node: ClusterNode) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look(node)
            self._tell()

    async def _look(self, node: ClusterNode) -> None:
        self._reports[node.port] = await self._ask(node)
        self._draw()

    def _draw(self) -> None:
        # A server killed since its last report is down, whatever it reported.
        self.views = picture_of(self._reports, down={node.port for node in self._cluster.nodes if not node.alive})

    async def _ask(self, node: ClusterNode) -> NodeReport | None:
        connection = self._connections.get(node.port)
        if not node.alive:
            return None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if connection is None:
                    connection = self._connections[node.port] = node.connection()
                await connection.send_command("CLUSTER", "NODES")
                nodes: Any = await connection.read_response()
                await connection.send_command("ROLE")
                role: Any = await connection.read_response()
                return report_of(nodes, role)
        except (RedisError, OSError, TimeoutError):
            # Being killed, or not up yet. A new connection: on this one the next reply may belong to an earlier command.
            lost = self._connections.pop(node.port, None)
            if lost is not None:
                await lost.disconnect(nowait=True)
            return None

    def _tell(self) -> None:
        """Log the changes since the last view."""
        self._tell_promotion()
        for view in self.views:
            if view.role == "down" and view.port not in self._missing:
                self._missing.add(view.port)
                self._note(f"the server on port {view.port} has ended by itself", "bad")
            if view.port in self._starting and view.role in {"primary", "replica"} and view.in_sync:
                took = time.monotonic() - self._starting.pop(view.port)
                whose = f"replica of {view.follows}" if view.follows else "primary"
                self._note(f"the server on port {view.port} is back as {whose}, {took:.2f} s after its start", "good")

    def _tell_promotion(self) -> None:
        outage = self.outage
        if outage is None or outage.promoted is not None:
            return
        holder = self.holder(outage.slot)
        if holder is None:
            return
        outage.promoted, outage.promoted_after = holder.port, time.monotonic() - outage.began
        what = "is primary again" if holder.port == outage.killed else "was promoted"
        ranges = f"slots {holder.ranges}, {outage.promoted_after:.2f} s after the kill"
        self._note(f"the server on port {holder.port} {what}: {ranges}", "good")

    def _node(self, port: int) -> ClusterNode:
        return next(node for node in self._cluster.nodes if node.port == port)

    def _note(self, text: str, tone: Literal["", "good", "bad"] = "") -> None:
        self.log.append(LogLine(f"{datetime.now().astimezone():%H:%M:%S}", text, tone))
