"""Demonstrates a failover: logs in, kills the primary that holds the session, keeps sending requests, and prints the results.

All requests go over HTTP, as a browser's do; the state of the servers is read from the cluster's page.
"""

# ruff: noqa: T201 - a command prints to its terminal

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx2

from auth_demo.visitor import SmokeFailure, expect, follow, log_in, new_client

__all__ = ("show_failover",)

_OK, _UNAUTHORIZED, _UNAVAILABLE = 200, 401, 503
_PACE_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 60.0
_VISITS: Final = 20
_JSON: Final = {"accept": "application/json"}
_LOST: Final = "{acknowledged} increments had been acknowledged; the primary died before it had passed them all on to its replica"


class _Asking:
    """One polled address. Every response must be correct, or a 503 without Set-Cookie."""

    def __init__(self, client: httpx2.AsyncClient, request: str, problem_of: Callable[[Any], str]) -> None:
        self._client, self._request, self._problem_of = client, request, problem_of
        self.answered = 0
        self.refused = 0
        self.slowest = 0.0
        self.first_refused: float | None = None
        self.last_asked = 0.0
        """When the newest answered request was sent."""

    async def ask(self) -> None:
        """Send one request. Raises `SmokeFailure` for a logout or a wrong response."""
        sent = time.monotonic()
        try:
            method, _, address = self._request.partition(" ")
            answer = await self._client.request(method, address, headers=_JSON)
        except httpx2.HTTPError as error:
            message = f"{self._request} failed: {type(error).__name__}"
            raise SmokeFailure(message) from error
        now = time.monotonic()
        self.slowest = max(self.slowest, now - sent)
        if answer.status_code == _UNAVAILABLE:
            expect("set-cookie" not in answer.headers, "an answer 503 touched the cookie")
            self.refused += 1
            self.first_refused = self.first_refused or now
            return
        expect(answer.status_code == _OK, f"{self._request} answered {answer.status_code}, neither 200 nor 503")
        problem = self._problem_of(answer.json())
        expect(not problem, f"{self._request} answered {answer.text}: {problem}")
        self.answered += 1
        self.last_asked = sent

    async def ask_forever(self) -> None:
        """Send requests at a steady pace."""
        while True:
            await self.ask()
            await asyncio.sleep(_PACE_SECONDS)


class _Counter:
    """The session's counter for a single writer: each acknowledged increment is one more than all before."""

    def __init__(self) -> None:
        self.value = 0
        self.acknowledged = 0

    def problem_of(self, answer: dict[str, Any]) -> str:
        """Return the problem if the increment is not on top of all acknowledged ones."""
        before, self.value = self.value, int(answer["visits"])
        self.acknowledged += 1
        return "" if self.value > before else _LOST.format(acknowledged=before)


class _Show:
    """One run."""

    def __init__(self, client: httpx2.AsyncClient, app_url: str) -> None:
        self._client = client
        self._url = app_url
        self._page = f"{app_url}/demo/cluster"
        self._counter = _Counter()
        self._writer = _Asking(client, f"POST {self._page}/increment", self._counter.problem_of)
        self._readers = [
            _Asking(client, f"GET {app_url}/api/me", lambda me: "" if me["subject"] == "alice" else "another user"),
            _Asking(client, f"GET {app_url}/api/session", lambda data: "" if data["authenticated"] else "logged out"),
        ]
        self._public = _Asking(client, f"GET {app_url}/health/live", lambda _: "")

    async def run(self) -> None:
        """Run the demonstration. Raises `SmokeFailure` at the first problem."""
        while self._counter.acknowledged < _VISITS:
            await self._writer.ask()
        _say(f"logged in as alice, counted {_VISITS} visits")
        asking = [asyncio.create_task(each.ask_forever()) for each in (self._writer, *self._readers, self._public)]
        living = asyncio.create_task(self._live_through())
        try:
            await asyncio.wait([living, *asking], return_when=asyncio.FIRST_COMPLETED)
            for task in (living, *asking):
                if task.done():
                    task.result()
        finally:
            # Cancelled between two requests or in one: the last increment may be stored without having been acknowledged.
            for task in (living, *asking):
                task.cancel()
            await asyncio.gather(living, *asking, return_exceptions=True)
        await self._count()
        await self._log_out()

    async def _live_through(self) -> None:
        """Kill the primary, and wait until all requests are answered again."""
        await _until(lambda: self._writer.answered > 2 * _VISITS, "the counter does not increase")
        killed = await self._client.post(f"{self._page}/kill", headers=_JSON)
        expect(killed.status_code == _OK, f"killing the primary was answered {killed.status_code}: {killed.text}")
        began = time.monotonic()
        _say(f"+0.00 s  primary of slot {killed.json()['slot']} on port {killed.json()['port']} killed (SIGKILL)")
        asking = (self._writer, *self._readers)
        outage: dict[str, Any] = {}
        refusals_told = False
        deadline = began + _PATIENCE_SECONDS
        while not outage.get("promoted"):
            expect(time.monotonic() < deadline, f"no replica was promoted within {_PATIENCE_SECONDS:.0f} s")
            await asyncio.sleep(_PACE_SECONDS)
            outage = (await self._status())["outage"]
            refused = [each.first_refused for each in asking if each.first_refused]
            if refused and not refusals_told:
                refusals_told = True
                _say(f"+{min(refused) - began:.2f} s  first answer 503, the cookie untouched")
        _say(f"+{outage['promoted_after']:.2f} s  replica on port {outage['promoted']} promoted")
        promoted = time.monotonic()
        await _until(lambda: all(each.last_asked > promoted for each in asking), "a request is still refused")
        _say(f"+{time.monotonic() - began:.2f} s  still logged in as alice, reading and counting again")
        before = self._counter.acknowledged
        await _until(lambda: self._counter.acknowledged >= before + _VISITS, "the counter does not increase")

    async def _count(self) -> None:
        """Compare the acknowledged increments with the stored counter."""
        asking = (self._writer, *self._readers)
        answered, refused = sum(each.answered for each in asking), sum(each.refused for each in asking)
        _say(f"{answered} requests answered as alice, {refused} answered 503, none 401, none anonymous, no cookie touched")
        slowest, public = max(each.slowest for each in asking), self._public
        _say(f"slowest answer {slowest:.2f} s; without a session {public.slowest:.2f} s, {public.refused} refused")
        expect(public.refused == 0, "a route without a session was refused")
        session = await _settled(lambda: self._client.get(f"{self._url}/api/session"))
        expect(session.status_code == _OK, f"GET /api/session answered {session.status_code}")
        stored, acknowledged = int(session.json()["visits"]), self._counter.acknowledged
        expect(stored >= acknowledged, f"{stored} increments are stored: {_LOST.format(acknowledged=acknowledged)}")
        undecided = stored - acknowledged
        # These include a request that was in flight at the end.
        expect(undecided <= self._writer.refused + 1, f"{undecided} increments more are stored than were made")
        _say(f"counter: {acknowledged} acknowledged, {stored} stored, none lost ({undecided} stored though not acknowledged)")

    async def _log_out(self) -> None:
        """Log out, restart the killed primary with its old data, and try the old cookie."""
        old = {"cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._client.cookies.jar)}
        await follow(self._client, f"{self._url}/auth/logout", method="POST")
        await self._expect_out("after the logout", old)
        _say("logged out; the old cookie opens nothing")
        port = (await self._status())["outage"]["killed"]
        await self._client.post(f"{self._page}/start", headers=_JSON)
        began = time.monotonic()
        while not any(
            node["port"] == port and node["role"] == "replica" and node["in_sync"] for node in (await self._status())["nodes"]
        ):
            expect(time.monotonic() < began + _PATIENCE_SECONDS, f"the server on port {port} did not come back as a replica")
            await self._expect_out("while the killed server comes back", old)
            await asyncio.sleep(_PACE_SECONDS)
        _say(f"server on port {port} started again, a replica after {time.monotonic() - began:.2f} s")
        await self._expect_out("after the killed server came back", old)
        _say("the old cookie still opens nothing")

    async def _expect_out(self, when: str, headers: dict[str, str]) -> None:
        async with new_client() as visitor:
            me = await _settled(lambda: visitor.get(f"{self._url}/api/me", headers={**_JSON, **headers}))
        expect(me.status_code == _UNAUTHORIZED, f"GET /api/me answered {me.status_code} {when}")

    async def _status(self) -> dict[str, Any]:
        answer = await self._client.get(f"{self._page}/status")
        expect(answer.status_code == _OK, f"GET /demo/cluster/status answered {answer.status_code}")
        status: dict[str, Any] = answer.json()
        return status


async def show_failover(app_url: str, issuer: str) -> None:
    """Demonstrate a failover and print each step. Raises `SmokeFailure` at the first problem."""
    async with new_client() as client:
        await log_in(client, app_url, issuer, "alice")
        await _Show(client, app_url).run()


async def _settled(ask: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
    """Return the first answer that is no 503; the last one if there are only these for a long time."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (answer := await ask()).status_code == _UNAVAILABLE and time.monotonic() < deadline:  # noqa: ASYNC110 - asks a server
        await asyncio.sleep(_PACE_SECONDS)
    return answer


async def _until(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        expect(time.monotonic() < deadline, problem)
        await asyncio.sleep(_PACE_SECONDS)


def _say(text: str) -> None:
    print(f"kill-primary: {text}", flush=True)
