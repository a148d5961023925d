"""Step-up from the guard to the provider and back to the page; the proof is checked, and an unsent form is reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from litestar import get, post

from session_core import Identity, SessionHandle
from session_core.errors import LoginRefusedError
from session_core.guards import requires_acr, requires_recent_login
from tests.session_core.oidc.fake_op import PUBLIC_URL, World
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio

PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "same-origin"}
CHALLENGE = 'Bearer error="insufficient_user_authentication", error_description="A fresh login is required"'


@get("/recent", guards=[requires_recent_login(minutes=5)])
async def recent() -> str:
    return "recent"


@post("/recent", guards=[requires_recent_login(minutes=5)])
async def send_recent() -> str:
    return "done"


@get("/strong", guards=[requires_acr("phr", "phrh")])
async def strong() -> str:
    return "strong"


@get("/both", guards=[requires_recent_login(minutes=5), requires_acr("phr")])
async def both() -> str:
    return "both"


class StepUpWorld(World):
    def __init__(self, **options: Any) -> None:
        super().__init__(handlers=[recent, send_recent, strong, both], **options)

    @property
    def now(self) -> int:
        return self.clock.now() // 1000

    async def log_in_long_ago(self) -> None:
        self.op.auth_time = self.now
        await self.login()
        self.clock.advance(seconds=600)

    async def follow(self, response: httpx.Response) -> httpx.Response:
        """Follow the guard's response through the provider to the final page."""
        assert response.status_code == 303, response.text
        started = await self.browser.get(response.headers["location"], headers=PAGE)
        assert started.status_code == 303, started.text
        return await self.come_back(self.op.authorize(started.headers["location"]))


@pytest.fixture
def world() -> StepUpWorld:
    return StepUpWorld()


async def test_a_recent_login_is_requested_and_proved(world: StepUpWorld) -> None:
    await world.log_in_long_ago()
    response = await world.browser.get("/recent?tab=2", headers=PAGE)
    assert response.headers["location"] == "/auth/login?next=%2Frecent%3Ftab%3D2&max_age=240"
    started = await world.browser.get(response.headers["location"], headers=PAGE)
    assert parse_qs(urlsplit(started.headers["location"]).query)["max_age"] == ["240"]
    world.op.auth_time = world.now
    back = await world.come_back(world.op.authorize(started.headers["location"]))
    assert back.headers["location"] == "/recent?tab=2"
    assert (await world.browser.get(back.headers["location"], headers=PAGE)).text == "recent"


@pytest.mark.parametrize(("age", "reason"), [(301, "auth_time_too_old"), (None, "auth_time_missing")])
async def test_a_provider_that_did_not_prompt_the_user_is_rejected(world: StepUpWorld, age: int | None, reason: str) -> None:
    await world.log_in_long_ago()
    world.op.auth_time = None if age is None else world.now - age
    back = await world.follow(await world.browser.get("/recent", headers=PAGE))
    assert (back.status_code, world.reasons()) == (400, [reason])
    # The existing login is unchanged and still not recent.
    assert await world.subject() == "alice"
    assert (await world.browser.get("/recent", headers=PAGE)).status_code == 303


@pytest.mark.parametrize("age", [0, 240, 299])
async def test_a_login_that_passes_the_check_passes_the_guard(world: StepUpWorld, age: int) -> None:
    """Slightly different clocks must not cause a redirect loop between the two."""
    await world.log_in_long_ago()
    world.op.auth_time = world.now - age
    back = await world.follow(await world.browser.get("/recent", headers=PAGE))
    assert back.headers["location"] == "/recent"
    assert (await world.browser.get("/recent", headers=PAGE)).text == "recent"


async def test_a_strong_login_is_requested_and_proved(world: StepUpWorld) -> None:
    await world.login()
    response = await world.browser.get("/strong", headers=PAGE)
    assert response.headers["location"] == "/auth/login?next=%2Fstrong&acr_values=phr%20phrh"
    world.op.claims = {"acr": "phrh"}
    assert (await world.follow(response)).headers["location"] == "/strong"
    assert (await world.browser.get("/strong", headers=PAGE)).text == "strong"


@pytest.mark.parametrize("claims", [{}, {"acr": "pwd"}, {"acr": "phr phrh"}])
async def test_a_provider_that_did_not_reach_the_class_is_rejected(world: StepUpWorld, claims: dict[str, str]) -> None:
    await world.login()
    world.op.claims = claims
    back = await world.follow(await world.browser.get("/strong", headers=PAGE))
    assert (back.status_code, world.reasons(), await world.subject()) == (400, ["acr_not_met"], "alice")


async def test_recent_and_strong_together_need_two_logins(world: StepUpWorld) -> None:
    await world.log_in_long_ago()
    world.op.auth_time = world.now
    assert (await world.follow(await world.browser.get("/both", headers=PAGE))).headers["location"] == "/both"
    world.op.claims = {"acr": "phr"}
    assert (await world.follow(await world.browser.get("/both", headers=PAGE))).headers["location"] == "/both"
    assert (await world.browser.get("/both", headers=PAGE)).text == "both"


class TestForms:
    async def test_the_page_of_the_form_reports_that_it_was_not_sent(self, world: StepUpWorld) -> None:
        await world.log_in_long_ago()
        headers = {**PAGE, "referer": f"{PUBLIC_URL}/read?tab=2"}
        response = await world.browser.post("/recent", data={"amount": "5"}, headers=headers)
        assert response.headers["location"] == "/auth/login?next=%2Fread%3Ftab%3D2&max_age=240&unsent=1"
        world.op.auth_time = world.now
        assert (await world.follow(response)).headers["location"] == "/read?tab=2&unsent=1"
        assert (await world.browser.post("/recent", headers=headers)).text == "done"

    @pytest.mark.parametrize(
        "referer", ["", "https://evil.example/read", f"{PUBLIC_URL}@evil.example/", "http://[", f"{PUBLIC_URL}//evil"]
    )
    async def test_a_form_without_a_valid_referrer_returns_to_the_default_page(self, world: StepUpWorld, referer: str) -> None:
        await world.log_in_long_ago()
        response = await world.browser.post("/recent", headers={**PAGE, "referer": referer})
        world.op.auth_time = world.now
        assert (await world.follow(response)).headers["location"] == "/?unsent=1"

    async def test_a_form_after_the_session_expired_is_reported_too(self, world: StepUpWorld) -> None:
        headers = {**PAGE, "referer": f"{PUBLIC_URL}/read?tab=2"}
        response = await world.browser.post("/recent", data={"amount": "5"}, headers=headers)
        assert response.headers["location"] == "/auth/login?next=%2Fread%3Ftab%3D2&unsent=1"
        assert (await world.follow(response)).headers["location"] == "/read?tab=2&unsent=1"

    async def test_a_url_that_would_become_too_long_is_kept_without_the_report(self, world: StepUpWorld) -> None:
        target = "/read?" + "a" * 1000
        response = await world.browser.get("/auth/login", params={"next": target, "unsent": "1"}, headers=PAGE)
        back = await world.come_back(world.op.authorize(response.headers["location"]))
        assert back.headers["location"].startswith("/read?aaa")


@pytest.mark.parametrize(
    ("asked", "led_to"),
    [
        ("/recent?filter[status]=open", "/recent?filter%5Bstatus%5D=open"),
        ("/recent?a=1|2&b={x}&c=^", "/recent?a=1%7C2&b=%7Bx%7D&c=%5E"),
        ("/recent?next=/other&page=2", "/recent?next=/other&page=2"),
        ("/recent?q=100%", "/recent?q=100%25"),
        ("/recent?q=" + "a" * 1900, "/recent?q=" + "a" * 1900),
    ],
)
async def test_parameters_written_by_the_guard_are_accepted_by_the_login(world: StepUpWorld, asked: str, led_to: str) -> None:
    path, _, query = asked.partition("?")
    response = await world.browser.get(httpx.URL("http://127.0.0.1:8000" + path).copy_with(query=query.encode()), headers=PAGE)
    assert (await world.follow(response)).headers["location"] == led_to


class TestPrograms:
    async def test_programs_get_the_required_step_up(self, world: StepUpWorld) -> None:
        await world.log_in_long_ago()
        response = await world.browser.post("/recent", headers={"accept": "application/json"})
        assert (response.status_code, response.json()["code"], response.json()["max_age"]) == (401, "step_up_required", 300)
        assert response.headers["www-authenticate"] == f'{CHALLENGE}, max_age="300"'
        response = await world.browser.get("/strong", headers={"accept": "application/json"})
        assert response.headers["www-authenticate"] == f'{CHALLENGE}, acr_values="phr phrh"'
        assert response.headers["cache-control"].endswith("no-store")

    async def test_a_missing_login_is_not_a_step_up(self, world: StepUpWorld) -> None:
        response = await world.browser.get("/recent", headers={"accept": "application/json"})
        assert (response.status_code, response.json()["code"]) == (401, "login_required")
        assert "www-authenticate" not in response.headers


@pytest.mark.parametrize("value", ['a"b', "a b", "a\\b", "", "é", "a\nb"])
def test_an_invalid_class_is_refused(value: str) -> None:
    with pytest.raises(Exception, match="single words"):
        requires_acr(value)


async def test_the_hook_refuses_with_its_own_reason() -> None:
    async def on_login(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[AppSession]) -> None:
        raise LoginRefusedError("not_invited")  # noqa: EM101 - a reason slug

    world = World(on_login=on_login)
    await world.plant()
    response = await world.login()
    assert response.status_code == 403
    await world.assert_rejected(response, "not_invited")


@pytest.mark.attack("63")
async def test_a_disabled_user_is_refused_on_the_next_request() -> None:
    disabled: set[str] = set()
    world = StepUpWorld()
    object.__setattr__(world.sessions.config, "is_active", lambda identity: identity.subject not in disabled)
    world.op.auth_time = world.now
    await world.login()
    assert (await world.browser.get("/recent")).text == "recent"
    disabled.add("alice")
    assert (await world.browser.get("/recent")).status_code == 403
