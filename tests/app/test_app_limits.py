"""Above the limit, a client's logins, callbacks, logout tokens, forms and new sessions get 429, across all workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.conftest import Running, Start

pytestmark = pytest.mark.anyio

LOGIN = ("GET", "/auth/login", {})
CALLBACK = ("GET", "/auth/callback?state=invented&code=none", {})
LOGOUT_TOKEN = ("POST", "/auth/backchannel-logout", {"data": {"logout_token": "invented"}})
FORM = ("POST", "/session/theme", {"data": {"theme": "dark"}})


async def statuses(http: httpx.AsyncClient, request: tuple[str, str, dict[str, Any]], times: int) -> list[int]:
    method, path, options = request
    return [(await http.request(method, path, **options)).status_code for _ in range(times)]


@pytest.mark.attack("69")
@pytest.mark.parametrize("request_", [LOGIN, CALLBACK, LOGOUT_TOKEN], ids=["login", "callback", "logout token"])
async def test_a_flood_from_one_address_is_429(running: Running, request_: tuple[str, str, dict[str, Any]]) -> None:
    async with running.client() as http:
        assert 429 not in await statuses(http, request_, 60)
        method, path, options = request_
        refused = await http.request(method, path, **options)
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["cache-control"] == "no-store"
        assert refused.json()["code"] == "too_many_requests"
        assert 0 < int(refused.headers["retry-after"]) <= 60
        running.clock.advance(seconds=int(refused.headers["retry-after"]))
        assert 429 not in await statuses(http, request_, 2)


async def test_kinds_and_addresses_are_counted_separately(start: Start) -> None:
    async with (
        start(limit_logins=2, trusted_proxies="127.0.0.1") as running,
        running.client(**{"x-forwarded-for": "192.0.2.1"}) as one,
        running.client(**{"x-forwarded-for": "192.0.2.2"}) as other,
    ):
        assert await statuses(one, CALLBACK, 3) == [400, 400, 429]
        assert await statuses(one, LOGOUT_TOKEN, 3) == [400, 400, 429]
        assert await statuses(other, CALLBACK, 3) == [400, 400, 429]


async def test_a_client_cannot_choose_its_address(start: Start) -> None:
    async with start(limit_logins=2) as running, running.client() as http:
        for number, expected in enumerate([400, 400, 429]):
            answer = await http.get(CALLBACK[1], headers={"x-forwarded-for": f"192.0.2.{number}"})
            assert answer.status_code == expected


async def test_all_workers_count_together(start: Start, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with (
        start(session_store=store, limit_logins=6) as one,
        start(session_store=store, limit_logins=6) as other,
        one.client() as first,
        other.client() as second,
    ):
        answers = [(await http.get(CALLBACK[1])).status_code for http in (first, second) * 4]
    assert answers == [400] * 6 + [429] * 2


async def test_a_browser_gets_a_page(start: Start) -> None:
    async with start(limit_logins=1) as running, running.browser() as http:
        assert (await http.get(CALLBACK[1])).status_code == 400
        refused = await http.get(CALLBACK[1])
        assert refused.status_code == 429
        assert "retry-after" in refused.headers
        assert refused.headers["content-type"].startswith("text/html")


async def test_forms_are_limited_but_other_requests_and_logouts_are_not(start: Start) -> None:
    async with start(limit_forms=30) as running, running.browser() as http:
        assert await statuses(http, FORM, 31) == [303] * 30 + [429]
        assert await statuses(http, ("POST", "/api/session/visits", {}), 2) == [200, 200]
        assert await statuses(http, ("GET", "/", {}), 2) == [200, 200]
        assert await statuses(http, ("POST", "/auth/logout", {}), 2) == [303, 303]


async def test_a_client_creates_a_bounded_number_of_anonymous_sessions(start: Start) -> None:
    async with start(limit_anonymous=5) as running:
        answers = []
        for _ in range(7):
            async with running.client() as visitor:
                answers += await statuses(visitor, ("POST", "/api/session/visits", {}), 1)
        assert answers == [200] * 5 + [429] * 2
        async with running.client() as user:
            await running.log_in(user)  # a login still creates a session
            assert await statuses(user, ("POST", "/api/session/visits", {}), 1) == [200]
        running.clock.advance(hours=1)
        async with running.client() as visitor:
            assert await statuses(visitor, ("POST", "/api/session/visits", {}), 1) == [200]


async def test_zero_means_no_limit(start: Start) -> None:
    async with start(limit_logins=0, limit_forms=0, limit_anonymous=0) as running, running.browser() as http:
        assert set(await statuses(http, CALLBACK, 70)) == {400}
        assert set(await statuses(http, FORM, 70)) == {303}


async def test_exempt_networks_have_no_limit(start: Start) -> None:
    async with start(limit_logins=1, limit_exempt="127.0.0.0/8") as running, running.client() as http:
        assert set(await statuses(http, LOGOUT_TOKEN, 5)) == {400}
