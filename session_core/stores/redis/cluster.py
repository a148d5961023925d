"""Sends commands to the nodes of a cluster by slot, through slot migrations and failovers. Independent of sessions.

Each primary has one shared connection. A command that is redirected is sent to the new node; while no node serves a slot (a
failover takes a second or two) commands are retried until `timeout` seconds after they were sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from itertools import count
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from hiredis import ReplyError
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from session_core.errors import StoreUnavailableError
from session_core.stores.redis.connection import (
    ConnectionLostError,
    Endpoint,
    Reply,
    report_outage,
    result_of,
    unavailable,
    word_of,
)
from session_core.stores.redis.link import SCAN_COUNT, Command, Word, deadline_within, exchange, gather_all

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from session_core.stores.redis.scripts import Script
    from session_core.stores.redis.url import Address, RedisTarget

__all__ = ("ClusterLink",)

_PAUSE_SECONDS: Final = 0.05
_ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"
_MAX_REDIRECTS: Final = 5
"""Immediate redirects in a row; after that the nodes disagree, and the next retry waits."""
_WAIT: Final = frozenset({"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN"})
"""Errors of commands that were not run and may be retried later."""


class _DetourError(Exception):
    """Asks for another attempt, `at_once` or after a pause. The command was not run, or must be repeated to decide."""

    def __init__(self, reason: str, *, at_once: bool = False, ask: Address | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at_once = at_once
        self.ask = ask
        """The target of this attempt only (ASK): the slot is moving there."""


class ClusterLink:
    """The primaries of a cluster. See `RedisLink` for what the methods promise."""

    clustered = True
    keeps_within = inf

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._endpoints: dict[Address, Endpoint] = {}
        self._owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._nodes: dict[Address, None] = {}
        self._looking: asyncio.Task[None] | None = None
        self._opened = False

    async def open(self) -> None:
        """Read the slot map. Raises `StoreUnavailableError` when no node answers."""
        await self.close()
        self._opened = True
        await self._look_around()
        if not any(self._owners):
            report_outage("no node of the cluster answers")

    async def close(self) -> None:
        """Disconnect from all nodes."""
        self._opened = False
        looking, self._looking = self._looking, None
        if looking is not None and not looking.get_loop().is_closed():
            looking.cancel()
            await asyncio.wait([looking])
        endpoints, self._endpoints = self._endpoints, {}
        for endpoint in endpoints.values():
            await endpoint.close()

    async def call(self, *args: Word) -> Reply:
        """Send a command to the owner of its key, the second word."""
        name = args[1]
        return await self._exchange(key_slot(name) if isinstance(name, bytes) else 0, self._command(args))

    async def get(self, name: bytes) -> bytes | None:
        """See `RedisLink.get`."""
        value: bytes | None = await self._exchange(key_slot(name), self._command((b"GET", name)))
        return value

    async def run(self, script: Script, keys: Sequence[bytes], *args: Word, by: float | None = None) -> Reply:
        """Run a script where its keys are."""
        command = self._command(args, keys, script)
        if by is not None and by < command.deadline:
            command.deadline = by
        return await self._exchange(key_slot(keys[0]), command)

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Read those of each hash tag with one command."""
        tagged: dict[bytes, list[bytes]] = {}
        for name in names:
            tagged.setdefault(name.partition(b"}")[0], []).append(name)
        replies = await gather_all(self.call(b"MGET", *together) for together in tagged.values())
        values = {
            name: value
            for together, reply in zip(tagged.values(), replies, strict=True)
            for name, value in zip(together, reply, strict=True)
        }
        return [values[name] for name in names]

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """Go through one primary after the other."""
        for slot in self._one_slot_each():
            cursor = b"0"
            while True:
                command = self._command((b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT))
                cursor, names = await self._exchange(slot, command)
                yield names
                if cursor == b"0":
                    break

    async def try_write(self, prefix: bytes) -> None:
        """Write a key to every primary; fails if a slot has no owner."""
        await self._look_around()
        if not all(self._owners):
            report_outage("some slots have no owner")
        missing, number, calls = set(self._owners), 0, []
        while missing:
            name = b"%bping%d" % (prefix, number)
            owner = self._owners[key_slot(name)]
            if owner in missing:
                missing.remove(owner)
                calls.append(self.call(b"SET", name, b"", b"PX", 1000))
            number += 1
        await gather_all(calls)

    async def apart(self) -> AbstractConnection:
        """Choose a random primary, to spread processes and to avoid one that has just failed."""
        await self._look_around()
        primaries = {owner for owner in self._owners if owner is not None}
        if not primaries:
            report_outage("no node of the cluster answers")
        return self._target.connection(random.choice(tuple(primaries)))  # noqa: S311 - no secret

    def _command(self, args: Sequence[Word], keys: Sequence[bytes] = (), script: Script | None = None) -> Command:
        return Command(args, deadline_within(self._target.timeout), keys, script)

    async def _exchange(self, slot: int, command: Command) -> Reply:
        deadline = command.deadline
        ask: Address | None = None
        for attempt in count(1):
            address = ask or self._owners[slot]
            try:
                return await self._attempt(slot, address, command, asking=ask is not None)
            except _DetourError as detour:
                ask, reason = detour.ask, detour.reason
                if detour.at_once and attempt % _MAX_REDIRECTS:
                    continue
            if monotonic() + _PAUSE_SECONDS >= deadline:
                self._look_later()
                report_outage(reason)
            await asyncio.sleep(_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline - monotonic()):
                    await self._look_around(avoid=address)
        raise AssertionError  # the loop has no end

    async def _attempt(self, slot: int, address: Address | None, command: Command, *, asking: bool) -> Reply:
        """Return the reply, or raise `_DetourError` to send the command again."""
        if not self._opened:
            report_outage("not open")
        reason = "no node answers for the slot"
        if address is None:
            raise _DetourError(reason)
        try:
            reply = await self._send(address, command, asking=asking)
        except ConnectionLostError as lost:
            command.replay = command.replay or lost.sent
            reason = "connection lost"
            raise _DetourError(reason) from None
        except StoreUnavailableError:
            raise _DetourError(reason) from None
        if not isinstance(reply, ReplyError):
            return reply
        word = word_of(reply)
        if word in {"MOVED", "ASK"}:
            host, _, port = str(reply).split(" ")[2].rpartition(":")
            there = (host or address[0], int(port))
            if word == "MOVED":
                self._owners[slot] = there
                self._look_later()
            raise _DetourError(word, at_once=True, ask=there if word == "ASK" else None)
        if word == "NOSCRIPT" and not command.full:
            command.full = True
            raise _DetourError(word, at_once=True, ask=address if asking else None)
        if word in _WAIT or "READONLY" in str(reply):
            raise _DetourError(word, ask=address if asking else None)
        raise unavailable(word, not_applied=word == "LATE" and not command.replay)

    async def _send(self, address: Address, command: Command, *, asking: bool) -> Reply:
        endpoint = self._endpoint(address)
        connection = endpoint.current() or await endpoint.connected()
        if asking:
            connection.send(_ASKING).add_done_callback(_forget)
            return await connection.send(command.packed(connection))
        return await exchange(connection, command)

    def _endpoint(self, address: Address) -> Endpoint:
        endpoint = self._endpoints.get(address)
        if endpoint is None:

            async def locate() -> AbstractConnection:
                return self._target.connection(address)

            endpoint = self._endpoints[address] = Endpoint(locate, self._target.timeout)
        return endpoint

    def _one_slot_each(self) -> list[int]:
        """Return one slot of each primary."""
        return list({owner: slot for slot, owner in enumerate(self._owners) if owner is not None}.values())

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(None))
            self._looking.add_done_callback(self._looked)

    async def _look_around(self, *, avoid: Address | None = None) -> None:
        """Read the slot map; concurrent callers share one request."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(avoid))
            self._looking.add_done_callback(self._looked)
        await result_of(self._looking)

    def _looked(self, task: asyncio.Task[None]) -> None:
        if self._looking is task:
            self._looking = None
        _forget(task)

    async def _look(self, avoid: Address | None) -> None:
        known = dict.fromkeys((*self._nodes, *self._target.addresses))
        # The node that has just failed comes last: it may be frozen and use up the whole timeout.
        for address in sorted(known, key=lambda node: node == avoid):
            try:
                reply = await self._send(address, self._command((b"CLUSTER", b"SLOTS")), asking=False)
            except (ConnectionLostError, StoreUnavailableError):
                continue
            if isinstance(reply, ReplyError):
                if "cluster support disabled" in str(reply):
                    report_outage("the server is no cluster: redis://")
                continue
            if reply:
                self._learn(reply, address)
                return

    def _learn(self, ranges: list[Reply], told_by: Address) -> None:
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        nodes: dict[Address, None] = {}
        for first, last, *members in ranges:
            addresses = [(told_by[0] if node[0] in {None, b"", b"?"} else node[0].decode(), int(node[1])) for node in members]
            owners[first : last + 1] = addresses[:1] * (last + 1 - first)
            nodes |= dict.fromkeys(addresses)
        self._owners, self._nodes = owners, nodes


def _forget(future: asyncio.Future[Reply]) -> None:
    """No caller waits for it, so its error is ignored."""
    if not future.cancelled():
        future.exception()
