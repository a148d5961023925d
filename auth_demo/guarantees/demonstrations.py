"""Tries each promise against the laboratory, over HTTP, and returns what was measured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import uuid4

import msgspec
from websockets.exceptions import ConnectionClosed

from auth_demo.guarantees.visitor import Answer, Visitor, visitors

if TYPE_CHECKING:
    from auth_demo.guarantees.lab import Gate, Lab

__all__ = ("RUNS", "Outcome", "Row")

INCREMENTS: Final = 200
_CONFLICT, _UNAUTHORIZED, _UNAVAILABLE = 409, 401, 503
_CLOSE_SECONDS: Final = 15.0


class Row(msgspec.Struct, frozen=True):
    """One thing that was measured."""

    label: str
    value: str
    of: int = 0
    """Where it is a share: of how many."""
    part: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """What a demonstration has shown."""

    held: bool
    rows: list[Row]
    milliseconds: int = 0


async def increments(lab: Lab, base: str) -> Outcome:
    """Count 200 times at once in a session, and 200 times at once with the last write winning."""
    async with visitors(lab, base, 1) as [visitor]:
        await _carried_out(visitor.post("/begin"))
        answers = await asyncio.gather(*(visitor.post("/visits") for _ in range(INCREMENTS)))
        acknowledged = sum(answer.good for answer in answers)
        kept = int((await _carried_out(visitor.get("/data"))).content["visits"])
        key = await lab.last_write_wins.begin()
        try:
            others = await asyncio.gather(*(visitor.post("/last-write-wins", key=key) for _ in range(INCREMENTS)))
            acknowledged_there = sum(answer.good for answer in others)
            kept_there = await lab.last_write_wins.read(key)
        finally:
            await lab.last_write_wins.end(key)
    rows = [
        Row("Kept by session_core", f"{kept} of {acknowledged} acknowledged", acknowledged, kept),
        Row(
            "Kept where the last write wins", f"{kept_there} of {acknowledged_there} acknowledged", acknowledged_there, kept_there
        ),
    ]
    return Outcome(held=acknowledged == kept == INCREMENTS, rows=rows)


async def tabs(lab: Lab, base: str) -> Outcome:
    """Write one field from two tabs that have both read the session, then two fields."""
    async with visitors(lab, base, 1) as [visitor]:
        await _carried_out(visitor.post("/begin"))
        first, second = await _two_tabs(lab, visitor, ("note", "from the first tab"), ("note", "from the second tab"))
        kept = (await visitor.get("/data")).content
        third, fourth = await _two_tabs(lab, visitor, ("note", "merged"), ("colour", "green"))
        merged = (await visitor.get("/data")).content
    rows = [
        Row("Both write the note", f"{first.status} for the first, {second.status} for the second"),
        Row("The note is now", str(kept["note"])),
        Row("One writes the note, the other the colour", f"{third.status} and {fourth.status}"),
        Row("Stored of both", f"{merged['note']}, {merged['colour']}"),
    ]
    refused = first.good and second.status == _CONFLICT and kept["note"] == "from the first tab"
    both = third.good and fourth.good and (merged["note"], merged["colour"]) == ("merged", "green")
    return Outcome(held=refused and both, rows=rows)


async def logout(lab: Lab, base: str) -> Outcome:
    """Log out while a slow request of the same session is between reading and writing."""
    async with visitors(lab, base, 2) as [visitor, copy]:
        await _carried_out(visitor.post("/login", user=uuid4().hex))
        before, copy.cookie = await visitor.get("/data"), (cookie := visitor.cookie)
        async with asyncio.TaskGroup() as tasks:
            slow = await _begin(tasks, lab, copy, ("note", "written after the logout"))
            left = await visitor.post("/end")
            slow.gate.opened.set()
        late = slow.answer.result()
        copy.cookie = cookie
        after = await copy.get("/data")
    rows = [
        Row("Logged in before", _yes(before.content["user"] is not None)),
        Row("The logout, while the slow request runs", str(left.status)),
        Row("The slow request, which then writes", str(late.status)),
        Row("The same cookie afterwards opens a session", _yes(after.content["exists"])),
    ]
    held = before.content["user"] is not None and left.good and late.status == _UNAUTHORIZED and not after.content["exists"]
    return Outcome(held=held, rows=rows)


async def regeneration(lab: Lab, base: str) -> Outcome:
    """Give a session a new id; try the old one, also in a request that began with it."""
    async with visitors(lab, base, 3) as [visitor, thief, slow_one]:
        await _carried_out(visitor.post("/begin"))
        await _carried_out(visitor.post("/visits"))
        thief.cookie = slow_one.cookie = visitor.cookie
        before = (await thief.get("/data")).content
        async with asyncio.TaskGroup() as tasks:
            slow = await _begin(tasks, lab, slow_one, ("note", "written under the old id"))
            changed = await visitor.post("/regenerate")
            slow.gate.opened.set()
        late, old, new = slow.answer.result(), (await thief.get("/data")).content, (await visitor.get("/data")).content
    rows = [
        Row("The first id opened the session before", _yes(before["exists"])),
        Row("The request for a new id", f"{changed.status}, {'with' if changed.touches_cookie else 'without'} a new cookie"),
        Row("The new id finds the data", f"{new['visits']} of {before['visits']} visits"),
        Row("The old id opens a session", _yes(old["exists"])),
        Row("A request that began with the old id", str(late.status)),
    ]
    moved = before["exists"] and changed.touches_cookie and new["exists"] and new["visits"] == before["visits"] == 1
    return Outcome(held=moved and not old["exists"] and late.status == _UNAUTHORIZED, rows=rows)


async def sign_out(lab: Lab, base: str) -> Outcome:
    """Open a WebSocket in one browser, and sign out everywhere else in another."""
    async with visitors(lab, base, 2) as [phone, laptop]:
        user = uuid4().hex
        for device in (phone, laptop):
            await _carried_out(device.post("/login", user=user))
        code, began = 0, perf_counter()
        async with phone.socket() as socket:
            began = perf_counter()
            ended = await laptop.post("/end-others")
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await socket.recv()
            except ConnectionClosed:
                code = socket.close_code or 0
            except TimeoutError:
                pass
        passed = perf_counter() - began
        gone, stays = await phone.get("/data"), await laptop.get("/data")
    rows = [
        Row("Sessions ended elsewhere", str(ended.content["ended"])),
        Row("The WebSocket", f"closed with {code} after {passed * 1000:.0f} ms" if code else "still open"),
        Row("The phone is logged in", _yes(gone.content["exists"])),
        Row("The laptop is logged in", _yes(stays.content["user"] == user)),
    ]
    held = ended.content["ended"] == 1 and bool(code) and not gone.content["exists"] and stays.content["user"] == user
    return Outcome(held=held, rows=rows)


async def outage(lab: Lab, base: str) -> Outcome:
    """Take the store away from one session, ask, and give it back."""
    async with visitors(lab, base, 1) as [visitor]:
        await _carried_out(visitor.post("/login", user=uuid4().hex))
        before, cookie = await visitor.get("/data"), visitor.cookie
        key = (await _carried_out(visitor.post("/take-store"))).content["key"]
        try:
            during = [await visitor.get("/data"), await visitor.post("/visits"), await visitor.post("/end")]
            public = await visitor.get("/plain")
        finally:
            lab.outages.end(key)
        kept, after = visitor.cookie == cookie, await visitor.get("/data")
    touched = sum(answer.touches_cookie for answer in during)
    rows = [
        Row("While the store is out: a read, a write, a logout", ", ".join(str(answer.status) for answer in during)),
        Row("Of these answers, touched the cookie", f"{touched} of {len(during)}"),
        Row("A page without a session", str(public.status)),
        Row("When it is back", f"{after.status}, {'still logged in' if after.content.get('user') else 'logged out'}"),
    ]
    answered = all(answer.status == _UNAVAILABLE for answer in during) and not touched and kept and public.good
    return Outcome(held=answered and after.content == before.content, rows=rows)


class _Slow(msgspec.Struct):
    """A request that has read its session and waits."""

    gate: Gate
    answer: asyncio.Task[Answer]


async def _begin(tasks: asyncio.TaskGroup, lab: Lab, visitor: Visitor, assigned: tuple[str, str]) -> _Slow:
    """Send a write, and return when it has read its session."""
    gate = lab.gate()
    field, value = assigned
    answer = tasks.create_task(visitor.post("/write", {"field": field, "value": value, "gate": gate.name}))
    reached = tasks.create_task(gate.reached.wait())
    await asyncio.wait([answer, reached], return_when=asyncio.FIRST_COMPLETED)
    if not gate.reached.is_set():
        reached.cancel()  # answered before it got there
    return _Slow(gate, answer)


async def _two_tabs(lab: Lab, visitor: Visitor, one: tuple[str, str], other: tuple[str, str]) -> tuple[Answer, Answer]:
    """Let two requests read the session before either of them writes; return the answers in the order of the writes."""
    async with asyncio.TaskGroup() as tasks:
        first, second = await _begin(tasks, lab, visitor, one), await _begin(tasks, lab, visitor, other)
        first.gate.opened.set()
        await asyncio.wait([first.answer])
        second.gate.opened.set()
    return first.answer.result(), second.answer.result()


async def _carried_out(answering: Awaitable[Answer]) -> Answer:
    """Return an answer without which nothing can be shown. Raises `RuntimeError` where it is no success."""
    answer = await answering
    if not answer.good:
        message = f"a request that prepares the demonstration was answered {answer.status}"
        raise RuntimeError(message)
    return answer


def _yes(value: object) -> str:
    return "yes" if value else "no"


Run: TypeAlias = "Callable[[Lab, str], Awaitable[Outcome]]"
RUNS: Final[dict[str, Run]] = {
    run.__name__.replace("_", "-"): run for run in (increments, tabs, logout, regeneration, sign_out, outage)
}
