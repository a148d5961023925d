"""Starts processes that share a store; each does one kind of work and prints the results.

Reads commands, one JSON array a line: URL, kind of work, argument, number of processes. Prints `<process id> begun` for each
process, `<process id> said <line>` for what it says, and `ended` with all exit statuses when the last has ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any

import msgspec

from session_core import Identity, SessionHandle, SystemClock, Timeouts
from session_core.errors import SessionConflictError, SessionLimitError
from session_core.events import Events
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.sessions.login_limits import LoginLimits
from session_core.sessions.record import DataCodec
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.stores.base import Entry, SessionStore
from session_core.stores.opening import open_store
from tests.support.presented import PresentedId

FOREVER = 2**52


class Data(msgspec.Struct):
    visits: int = 0


def say(line: str) -> None:
    # One write, so that lines of several processes do not mix.
    os.write(1, f"{os.getpid()} said {line}\n".encode())


async def increment(store: SessionStore, count: int) -> None:
    """Increment one counter by load and compare-and-swap; print the number of acknowledged increments."""
    with suppress(SessionConflictError):
        await store.create("counter", Entry(b"0", FOREVER))
    done = 0
    while done < count:
        stored = await store.load("counter")
        assert stored is not None
        try:
            await store.replace("counter", Entry(b"%d" % (int(stored.entry.data) + 1), FOREVER), version=stored.version)
        except SessionConflictError:
            continue
        done += 1
    say(str(done))


async def log_in(store: SessionStore, count: int) -> None:
    """Start sessions of one user, some by rotation; print the started sessions and those ended for them."""
    for number in range(count):
        key, entry = f"{os.getpid()}-{number}", Entry(b"", FOREVER, "user", None, number)
        if number % 2:
            await store.create(f"{key}-anonymous", Entry(b"", FOREVER))
            ended = await store.rotate(f"{key}-anonymous", key, entry, version=1, successor_until=FOREVER, limit=3)
        else:
            ended = await store.create(key, entry, limit=3)
        say(f"begun {key}")
        for gone in ended:
            say(f"ended {gone}")


async def log_in_or_be_refused(store: SessionStore, count: int) -> None:
    """Log one user in several times at once with a limit of three sessions; print each result."""
    clock = SystemClock()
    events = Events(clock, ())
    limits = LoginLimits(store, clock, events, 3, on_limit="refuse", patience=60)
    timeouts = Timeouts()
    lifecycle: SessionLifecycle[Any] = SessionLifecycle(
        store=store, codec=DataCodec(Data), timeouts=timeouts, clock=clock, events=events, limits=limits,
        marks=RevocationMarks(store, timeouts, clock),
    )  # fmt: skip

    async def once() -> None:
        handle: SessionHandle[Any] = SessionHandle(lifecycle, PresentedId())
        try:
            await handle.login(Identity(issuer="https://op.example", subject="alice"))
        except SessionLimitError as error:
            say(error.code)
        else:
            say("entered")

    await asyncio.gather(*(once() for _ in range(count)))


async def claim(store: SessionStore, count: int) -> None:
    """Claim names that others claim too; print the claims won."""
    for number in range(count):
        if await store.claim(str(number), FOREVER):
            say(str(number))


async def rotate(store: SessionStore, key: str) -> None:
    """Rotate a session until killed; print each new key before its use."""
    number = 0
    while True:
        new = f"{os.getpid()}-{number}"
        say(new)
        entry = Entry(b"", FOREVER, "user", "op", 0)
        await store.rotate(key, new, entry, version=1, successor_until=FOREVER, limit=2)
        key, number = new, number + 1


async def main(url: str, work: str, argument: str) -> None:
    store = open_store(url)
    await store.open()
    if work == "rotate":
        await rotate(store, argument)
    else:
        await {"increment": increment, "log_in": log_in, "log_in_or_be_refused": log_in_or_be_refused, "claim": claim}[work](
            store, int(argument)
        )
    await store.close()


def end_with_parent() -> None:
    """No process outlives the tests."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def begin(url: str, work: str, argument: str) -> int:
    """Start a process. Forking after the imports, drivers included, is fast; no thread runs yet."""
    child = os.fork()
    if child:
        return child
    status = 1
    end_with_parent()
    try:
        asyncio.run(main(url, work, argument))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    end_with_parent()
    for line in sys.stdin:
        url, work, argument, count = json.loads(line)
        open_store(url)
        children = [begin(url, work, argument) for _ in range(count)]
        for child in children:
            os.write(1, f"{child} begun\n".encode())
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        os.write(1, f"ended {statuses}\n".encode())
