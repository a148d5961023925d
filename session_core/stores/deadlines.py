"""Deadlines of store steps, and one timer that ends many calls in time.

A *step* is one call of a store, or several that belong together (a rotation and its repetitions). It takes effect before its
deadline or never, because its client gets 503. All steps of one request share one `RequestTime`, so that a request waits for a
stalled store only once, with any number of steps.

Instants are those of `time.monotonic`, in seconds.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from time import monotonic
from typing import Any, Final, Self

from session_core.errors import StoreUnavailableError

__all__ = (
    "START_SECONDS", "Deadlines", "RequestTime", "Step", "check_deadline", "lone_request", "open_request_time", "remaining",
    "step_deadline",
)  # fmt: skip

START_SECONDS: Final = 10.0
"""How long a store may take to open when no request waits for it: a server that starts, a first connection, new tables."""
_FREE: Final = 1 / 20
"""The part of the timeout within which a store counts as healthy: faster steps do not use up the request's time."""

_step: ContextVar[float | None] = ContextVar("session_core.stores.deadlines.step", default=None)
_request: ContextVar[RequestTime | None] = ContextVar("session_core.stores.deadlines.request", default=None)


def step_deadline() -> float | None:
    """Return the deadline of the store step that runs in this context; None without a limit.

    A store reads it at the start of a method's coroutine and compares it where the effect is decided. Code in another thread,
    queue or task must be given the number.
    """
    deadline = _step.get()
    if deadline is None and (request := _request.get()) is not None:
        return request.until or None
    return deadline


def remaining(default: float) -> float:
    """Return the seconds until the deadline of the running step, never negative; `default` without a deadline."""
    deadline = step_deadline()
    return default if deadline is None else max(deadline - monotonic(), 0.0)


def check_deadline(deadline: float | None = None, *, begun: bool = False) -> None:
    """Raise `StoreUnavailableError` after `deadline` (default: that of the running step).

    `begun`: a part of the step has already taken effect.
    """
    if deadline is None and (deadline := step_deadline()) is None:
        return
    if monotonic() >= deadline:
        msg = "the session store did not start the step in time"
        raise StoreUnavailableError(msg, not_applied=not begun)


class RequestTime:
    """The time that the store steps of one request may take together: one store timeout.

    Only time spent inside of steps counts, and only that of steps that are slower than a healthy store's. Steps that overlap
    count once. Once the response has started (`over`) each step has the whole timeout to itself.
    """

    # No slots and no `__init__`: every request creates one, and most only read `over`.
    over = False
    spent = 0.0
    """Seconds."""
    until = 0.0
    """The deadline of the single running step without a `Step`, enough for most requests; 0 for none."""
    _counted_until = 0.0
    _running: list[float] | None = None
    """When the running steps began, the oldest first."""

    def has_steps(self) -> bool:
        """Whether a `Step` is running."""
        return bool(self._running)

    def begin(self, now: float, timeout: float) -> float:
        """Count a step that begins now; return the seconds it may take."""
        running = self._running
        if running is None:
            running = self._running = []
        spent = self.spent
        if self.until or running:
            waited = now - max(self.until - timeout if self.until else running[0], self._counted_until)
            if waited > timeout * _FREE:
                spent += waited
        running.append(now)
        return max(timeout - spent, 0.0) if spent else timeout

    def end(self, began: float, timeout: float) -> None:
        """Count a finished step that began at `began`."""
        if self._running is not None:
            self._running.remove(began)
        self._count(began, timeout)

    def end_alone(self, timeout: float) -> None:
        """Count the finished step with the deadline `until`."""
        began, self.until = self.until - timeout, 0.0
        if monotonic() - began > timeout * _FREE:
            self._count(began, timeout)

    def _count(self, began: float, timeout: float) -> None:
        now = monotonic()
        if now - began > timeout * _FREE:
            self.spent += now - max(began, self._counted_until)
            self._counted_until = now


def open_request_time() -> RequestTime:
    """Make the steps of this context, and of tasks that it starts, share one store timeout until it is `over`."""
    request = RequestTime()
    _request.set(request)
    return request


def lone_request() -> RequestTime | None:
    """Return the request if it has a whole timeout left and no running step; None if a step needs its own `Step`."""
    if _step.get() is not None or (request := _request.get()) is None:
        return None
    return None if request.over or request.spent or request.until or request.has_steps() else request


class Step:
    """A store step of at most `timeout` seconds that begins now and lasts until `end`, which the same task calls.

    A nested step has the deadline of the outer one.
    """

    __slots__ = ("_began", "_request", "_timeout", "_token", "deadline", "is_whole")

    def __init__(self, timeout: float = 0.0, *, until: float | None = None) -> None:
        """`until` overrides everything else: the deadline of work for several requests, or for none."""
        self._began = now = monotonic()
        self._timeout = timeout
        self._request: RequestTime | None = None
        self.is_whole = True
        """Whether it has all of `timeout`."""
        self.deadline = now + timeout if until is None else until
        if until is None:
            outer = _step.get()
            if outer is not None:
                if outer < self.deadline:
                    self.deadline, self.is_whole = outer, False
            elif (request := _request.get()) is not None and not request.over:
                self._request = request
                left = request.begin(now, timeout)
                if left < timeout:
                    self.deadline, self.is_whole = now + left, False
        self._token: Token[float | None] | None = _step.set(self.deadline)

    def end(self) -> None:
        """End the step. Idempotent."""
        if (token := self._token) is not None:
            self._token = None
            _step.reset(token)
            if self._request is not None:
                self._request.end(self._began, self._timeout)

    def __enter__(self) -> Self:
        """Do nothing: the step has already begun."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()


class Deadlines:
    """Ends calls at their deadlines, with one timer for all calls whose deadlines are in the order of their beginning.

    `asyncio.timeout` creates and cancels a timer for each call, which costs more than the rest of a call to a fast store.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0
        # By task, in the order of deadlines: the deadline, and the task's number of cancellations before.
        self._running: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._latest = 0.0
        self._expired: dict[asyncio.Task[Any], int] = {}

    def begin(self, deadline: float) -> asyncio.Task[Any] | None:
        """Watch the running task until `end`; None if it needs its own timer.

        That is inside another call (also during its cleanup), and if an earlier call has a later deadline.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        running = self._running
        if task is None or task in running or task in self._expired or (self._loop is not loop and not self._serves(loop)):
            return None
        if running and deadline < self._latest:
            return None
        running[task] = (deadline, task.cancelling())
        self._latest = deadline
        if self._timer is None or self._fires_at > deadline:
            self._set_timer(loop, deadline)
        return task

    def is_over(self, task: asyncio.Task[Any]) -> bool:
        """Whether a task was cancelled only by its deadline: another cancellation must not be dropped."""
        before = self._expired.pop(task, None)
        return before is not None and task.uncancel() <= before

    def end(self, task: asyncio.Task[Any]) -> None:
        """Stop watching a task."""
        self._running.pop(task, None)
        if self._expired and self._expired.pop(task, None) is not None:
            task.uncancel()  # it ended otherwise while it was being cancelled

    def _serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the timer belongs, or can be moved, to `loop`: a store may be used in one loop after another."""
        if self._loop is not loop:
            if (self._running or self._expired) and self._loop is not None and not self._loop.is_closed():
                return False
            self._loop, self._timer = loop, None
            self._running.clear()
            self._expired.clear()
        return True

    def _set_timer(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # The loop may have another clock (uvloop).
        self._timer = loop.call_later(max(deadline - monotonic(), 0.0), self._check, loop)
        self._fires_at = deadline

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return  # a stale timer of a loop in another thread must not cancel these tasks
        self._timer = None
        now = monotonic()
        while self._running:
            task, (deadline, cancelled_before) = next(iter(self._running.items()))
            if deadline > now:
                self._set_timer(loop, deadline)
                return
            del self._running[task]
            self._expired[task] = cancelled_before
            task.cancel()
