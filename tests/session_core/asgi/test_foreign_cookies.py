"""Two applications on two ports of one host with one cookie name: a browser sends the cookie of each to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from session_core import CookieConfig
from session_core.cookies import sign_cookie
from session_core.cookies.encoding import encode_component
from session_core.ids import new_session_id
from tests.support.sessions import SECRET, client_of, make_app

pytestmark = pytest.mark.anyio

OTHER_SECRET = "fedcba9876543210fedcba9876543210-other"
HOST = "http://localhost"


@asynccontextmanager
async def two_applications(cookie: CookieConfig | None = None) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of the two applications that share the cookies, as one browser does."""
    cookie = cookie or CookieConfig(name="sid")
    first = make_app(public_url=f"{HOST}:8101", cookie=cookie)
    second = make_app(public_url=f"{HOST}:8102", cookie=CookieConfig(name=cookie.name), secrets=(OTHER_SECRET,))
    async with (
        client_of(first, base_url=f"{HOST}:8101") as one,
        client_of(second, base_url=f"{HOST}:8102", cookies=one.cookies.jar) as two,
    ):
        yield one, two


async def subject(client: httpx.AsyncClient) -> str | None:
    found: str | None = (await client.get("/read")).json()["subject"]
    return found


async def test_a_logout_at_one_application_keeps_the_login_at_the_other() -> None:
    async with two_applications() as (one, two):
        await two.post("/login/dana")
        response = await one.post("/logout")
        assert response.status_code == 201
        assert response.headers.get_list("set-cookie") == []
        assert await subject(two) == "dana"


async def test_other_requests_to_one_application_keep_the_login_at_the_other() -> None:
    async with two_applications() as (one, two):
        await two.post("/login/dana")
        for asked in ("GET /read", "GET /fails", "GET /absent", "DELETE /sessions", "POST /regenerate"):
            method, path = asked.split()
            assert (await one.request(method, path)).headers.get_list("set-cookie") == []
        assert await subject(two) == "dana"


async def test_a_logout_keeps_foreign_cookies_also_when_former_cookies_are_named() -> None:
    """The former cookies are deleted only together with a valid cookie of this application."""
    async with two_applications(CookieConfig(name="sid", former_paths=["/app"])) as (one, _):
        for value in ("dana", "s%3Adana.c2lnbmF0dXJl", "%64ana", "x" * 5000):
            response = await one.post("/logout", headers={"cookie": f"sid={value}"})
            assert response.headers.get_list("set-cookie") == []
        own = encode_component(sign_cookie(new_session_id(), SECRET))
        response = await one.post("/logout", headers={"cookie": f"sid={own}"})
        assert [header.partition(";")[0] for header in response.headers.get_list("set-cookie")] == ["sid="] * 2


async def test_the_own_cookie_beside_a_foreign_one_is_deleted() -> None:
    async with two_applications() as (one, _):
        await one.post("/login/erin")
        own = one.cookies["sid"]
        for sent in (f"sid={own}; sid=dana", f"sid=dana; sid={own}"):
            response = await one.post("/logout", headers={"cookie": sent})
            assert "Max-Age=0" in response.headers["set-cookie"]


async def test_a_logout_with_more_cookies_than_are_verified_deletes_the_cookie() -> None:
    """One of those not verified may be the application's own. Its session stays alive, so the browser must not keep the id."""
    async with two_applications() as (one, _):
        response = await one.post("/logout", headers={"cookie": "; ".join(["sid=planted"] * 40)})
        assert "Max-Age=0" in response.headers["set-cookie"]


async def test_a_login_replaces_the_foreign_cookie_and_each_logout_deletes_only_its_own() -> None:
    async with two_applications() as (one, two):
        await two.post("/login/dana")
        await one.post("/login/erin")
        assert (await subject(one), await subject(two)) == ("erin", None)
        await two.post("/logout")
        assert await subject(one) == "erin"
        await one.post("/logout")
        assert "sid" not in one.cookies
