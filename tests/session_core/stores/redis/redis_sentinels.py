"""A primary, its replica and three Sentinels that watch them, on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.redis_servers import RedisServer, info, replication, running, until

SERVICE = "main"
_QUORUM = 2


class Sentinels:
    """`servers` are the primary and its replica, in their initial roles."""

    def __init__(self, servers: list[RedisServer], sentinels: list[RedisServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels) + f"/{SERVICE}"

    @property
    def primary(self) -> RedisServer:
        """The primary by the majority of Sentinels."""
        answers = [self._told_by(sentinel) for sentinel in self.sentinels]
        return max(self.servers, key=lambda server: answers.count(server.port))

    def expect_failover(self) -> None:
        """From now on a primary that has not answered for half a second is replaced."""
        self._set("down-after-milliseconds", 500)

    def written(self) -> int:
        """The primary's replication offset."""
        return replication(self.primary)[0]

    def replicated(self) -> int:
        """The offset acknowledged by the replica (once a second)."""
        return replication(self.primary)[1]

    def _set(self, option: str, value: int) -> None:
        for sentinel in self.sentinels:
            sentinel.admin("SENTINEL", "SET", SERVICE, option, value)

    def _told_by(self, sentinel: RedisServer) -> int:
        reply = sentinel.admin("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        assert isinstance(reply, list)
        return int(reply[1])


@contextmanager
def sentinels(program: Path) -> Iterator[Sentinels]:
    """Run them; no primary is replaced, however busy the machine is (see `expect_failover`)."""
    with ExitStack() as stack:
        primary = stack.enter_context(running(program))
        replica = stack.enter_context(running(program, "--replicaof", f"127.0.0.1 {primary.port}"))
        until(lambda: b"state=online" in info(primary, "replication"))
        watching = [stack.enter_context(running(program, "--sentinel")) for _ in range(3)]
        for sentinel in watching:
            sentinel.admin("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", primary.port, _QUORUM)
        found = Sentinels([primary, replica], watching)
        found._set("down-after-milliseconds", 60_000)
        found._set("failover-timeout", 2000)
        for sentinel in watching:
            until(lambda sentinel=sentinel: b"slaves=1,sentinels=3" in info(sentinel, "sentinel"))  # type: ignore[misc]
        yield found
