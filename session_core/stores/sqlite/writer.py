"""Group commit: all waiting steps become one transaction with one sync of the disk. Independent of sessions.

Statements run in the event loop, where each takes microseconds; a thread would contend for Python's lock at every statement. The
commit, which waits for the disk, runs in a thread; steps that arrive meanwhile form the next group.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from session_core.errors import StoreUnavailableError
from session_core.stores.sqlite.connection import is_busy, unavailable

if TYPE_CHECKING:
    from session_core.stores.sqlite.checkpoints import Checkpoints

__all__ = ("Writer",)

T = TypeVar("T")

_LATE: Final = "the session store did not start the step in time"
_LONGEST_PAUSE: Final = 0.005
_SECONDS_IN_LOOP: Final = 0.005
"""How long the steps of one group may keep the event loop."""


class _Step:
    """A step waiting for its transaction, or part of it."""

    __slots__ = ("alone", "answer", "deadline", "error", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any], deadline: float, answer: asyncio.Future[Any]) -> None:
        self.work = work
        self.deadline = deadline
        self.answer = answer
        self.alone = False
        """Whether it needs its own transaction, because its group failed."""
        self.result: Any = None
        self.error: Exception | None = None

    def is_over(self, now: float) -> bool:
        """Whether its deadline has passed or its caller was cancelled: it must not take effect."""
        return self.deadline <= now or self.answer.done()

    def tell(self, error: Exception | None = None) -> None:
        """Answer the caller if it still waits: with `error`, or with the result of the step."""
        error = error or self.error
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(self.result)
        else:
            self.answer.set_exception(unavailable(error) if isinstance(error, sqlite3.Error) else error)


class Writer:
    """Runs steps on one connection, which nothing else uses.

    The commit of a step begins before its deadline (`time.monotonic`) and before its caller is cancelled, or never.
    """

    def __init__(self, connection: sqlite3.Connection, checkpoints: Checkpoints) -> None:
        self._connection = connection
        self._checkpoints = checkpoints
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="session-writer")
        self._in_thread: Future[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[None] | None = None
        self._waiting: deque[_Step] = deque()

    def write(self, work: Callable[[sqlite3.Connection], T], deadline: float) -> asyncio.Future[T]:
        """Run `work` inside a transaction, perhaps several times until one of them is committed; return its result then.

        The future raises the errors of `work`, and `StoreUnavailableError`: then nothing was done and nothing will be.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Steps of an earlier event loop have no caller any more.
            self._loop, self._serving = loop, None
            self._waiting.clear()
        answer: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Step(work, deadline, answer))
        if self._serving is None:
            self._serving = loop.create_task(self._serve(), context=Context())
        return answer

    async def close(self) -> None:
        """Return when every step has been answered, and all is closed."""
        if self._serving is not None and self._loop is asyncio.get_running_loop():
            await asyncio.wait([self._serving])
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._thread.shutdown()
        self._checkpoints.close()
        self._connection.close()

    async def _serve(self) -> None:
        """Commit group after group until no step waits."""
        group: list[_Step] = []
        try:
            if self._in_thread is not None:
                wait([self._in_thread])  # left by an earlier, cancelled task
            self._roll_back()
            pause = 0.0
            while self._drop_late():
                if not self._begin():
                    # Another process writes. Retry often, because it may begin its next transaction at once.
                    pause = min(pause * 2 or _LONGEST_PAUSE / 16, _LONGEST_PAUSE)
                    await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
                    continue
                pause = 0.0
                group = []
                await self._transact(group)
                if self._checkpoints.are_due():
                    await self._call_in_thread(self._checkpoints.run, self._connection)
        except Exception as error:  # noqa: BLE001 - any error must reach the callers, or they would wait forever
            self._answer([*group, *self._waiting], error)
            self._waiting.clear()
        finally:
            self._serving = None

    def _drop_late(self) -> bool:
        """Fail the late steps and drop the cancelled ones; return whether any step is left."""
        now = time.monotonic()
        if any(step.is_over(now) for step in self._waiting):
            for step in self._waiting:
                if step.deadline <= now:
                    step.tell(StoreUnavailableError(_LATE, not_applied=True))
            self._waiting = deque(step for step in self._waiting if not step.answer.done())
        return bool(self._waiting)

    def _begin(self) -> bool:
        """Take the write lock; return False while another process has it."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return False
            raise
        return True

    async def _transact(self, group: list[_Step]) -> None:
        """Run and commit waiting steps in the open transaction; the rest wait for the next one."""
        if not self._run(group):
            self._roll_back()
            self._wait_again(group, alone=True)
        elif all(step.error for step in group):
            self._roll_back()
            self._answer(group)
        else:
            try:
                committed = await self._call_in_thread(self._commit, group)
            except sqlite3.Error as error:
                if len(group) == 1:
                    self._answer(group, error)
                else:
                    self._wait_again(group, alone=True)
            else:
                if committed:
                    self._answer(group)
                else:
                    self._wait_again(group)

    def _run(self, group: list[_Step]) -> bool:
        """Run steps and add them to `group`; return False if one of several failed after a change."""
        connection, waiting = self._connection, self._waiting
        until = time.monotonic() + _SECONDS_IN_LOOP
        while waiting and not (group and (waiting[0].alone or time.monotonic() > until)):
            step = waiting.popleft()
            group.append(step)
            step.error = None
            changes = connection.total_changes
            try:
                step.result = step.work(connection)
            except Exception as error:  # noqa: BLE001 - it is the caller's
                step.error = error
                if len(group) > 1 and not (connection.in_transaction and connection.total_changes == changes):
                    return False
            if step.alone:
                break
        return True

    def _commit(self, group: list[_Step]) -> bool:
        """Commit and return True, unless a step is late or cancelled: then roll everything back."""
        try:
            if not any(step.is_over(time.monotonic()) for step in group):
                self._connection.execute("COMMIT")
                return True
        finally:
            self._roll_back()
        return False

    def _wait_again(self, group: list[_Step], *, alone: bool = False) -> None:
        for step in reversed(group):
            step.alone |= alone
            self._waiting.appendleft(step)

    def _answer(self, group: list[_Step], error: Exception | None = None) -> None:
        for step in group:
            step.tell(error)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    async def _call_in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        self._in_thread = self._thread.submit(call, *arguments)
        return await asyncio.wrap_future(self._in_thread)
