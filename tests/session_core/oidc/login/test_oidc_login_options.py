"""Lifetimes and other options of a single login, chosen by a link of an own page or by `on_login`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from session_core import ConfigurationError, Timeouts
from session_core.oidc import LoginOptions
from tests.session_core.oidc.fake_op import GET_PAGE, World

pytestmark = pytest.mark.anyio

REMEMBER = LoginOptions(timeouts=Timeouts(idle=30 * 86400, absolute=90 * 86400), persistent=True)
KIOSK = LoginOptions(timeouts=Timeouts(idle=120, absolute=600), persistent=False)
OPTIONS = {"remember": REMEMBER, "kiosk": KIOSK}


async def lifetime(world: World) -> int:
    """Seconds until the absolute end of the session."""
    state = await world.browser.get("/auth/session")
    return int(state.json()["absolute_expires_in"])


async def test_a_page_chooses_options_by_name() -> None:
    world = World(login_options=OPTIONS)
    cookie = (await world.login(option="remember")).headers["set-cookie"]
    assert f"Max-Age={90 * 86400}" in cookie
    assert await lifetime(world) == 90 * 86400
    world.clock.advance(seconds=29 * 86400)
    assert await world.subject() == "alice"


async def test_a_kiosk_session_ends_soon_and_its_cookie_with_the_browser() -> None:
    world = World(login_options=OPTIONS)
    response = await world.login(option="kiosk")
    (cookie,) = (each for each in response.headers.get_list("set-cookie") if each.startswith("session-8000="))
    assert "Max-Age" not in cookie
    world.clock.advance(seconds=121)
    assert await world.subject() is None


async def test_without_a_choice_the_configured_lifetimes_apply() -> None:
    world = World(login_options=OPTIONS)
    await world.login()
    assert await lifetime(world) == 86400


async def test_a_choice_survives_the_provider_page_and_a_login_at_a_named_provider() -> None:
    world = World(provider={"id": "one"}, login_options=OPTIONS)
    answer = await world.browser.get("/auth/login/one?option=kiosk", headers=GET_PAGE)
    await world.come_back(world.op.authorize(answer.headers["location"]))
    assert await lifetime(world) == 600


@pytest.mark.parametrize("query", ["option=forever", "option=", "option=kiosk&option=remember"])
async def test_unknown_names_are_refused(query: str) -> None:
    world = World(login_options=OPTIONS)
    answer = await world.browser.get(f"/auth/login?{query}", headers=GET_PAGE)
    assert (answer.status_code, "set-cookie" in answer.headers) == (400, False)


@pytest.mark.attack("79")
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_link_on_another_site_cannot_choose_options(site: str) -> None:
    world = World(login_options=OPTIONS)
    answer = await world.browser.get("/auth/login?option=remember", headers={**GET_PAGE, "sec-fetch-site": site})
    await world.come_back(world.op.authorize(answer.headers["location"]))
    assert await lifetime(world) == 86400


@pytest.mark.attack("79")
@pytest.mark.parametrize("option", ["kiosk", "remember"])
async def test_a_step_up_keeps_the_options_of_the_login(option: str) -> None:
    """A step-up must neither lengthen a kiosk session nor drop "remember me"."""
    world = World(login_options=OPTIONS)
    await world.login(option=option)
    world.clock.advance(seconds=60)
    world.op.auth_time = world.clock.now() // 1000
    response = await world.login(max_age="30")
    chosen = OPTIONS[option].timeouts
    assert chosen is not None
    assert await lifetime(world) == chosen.absolute
    (cookie,) = (each for each in response.headers.get_list("set-cookie") if each.startswith("session-8000="))
    assert ("Max-Age" in cookie) == (option == "remember")


async def test_another_user_of_the_same_browser_inherits_no_choice() -> None:
    world = World(login_options=OPTIONS)
    await world.login(option="remember")
    world.op.subject = "bob"
    await world.login()
    assert await world.subject() == "bob"
    assert await lifetime(world) == 86400


async def test_on_login_overrides_the_link() -> None:
    async def enter(identity: Any, claims: Mapping[str, Any], session: Any) -> LoginOptions:
        del claims, session

        def greet(data: Any) -> None:
            data.note = f"hello {identity.subject}"

        return LoginOptions(change=greet, timeouts=Timeouts(idle=60, absolute=300))

    world = World(login_options=OPTIONS, on_login=enter)
    response = await world.login(option="remember")
    assert await lifetime(world) == 300
    assert "Max-Age=300" in response.headers["set-cookie"]  # persistent, as the link chose and the hook did not change
    assert (await world.browser.get("/read")).json()["data"]["note"] == "hello alice"


@pytest.mark.parametrize("options", [{"two words": KIOSK}, {"": KIOSK}, {"kiosk": LoginOptions(change=lambda _: None)}])
def test_invalid_options_are_refused(options: dict[str, LoginOptions]) -> None:
    with pytest.raises(ConfigurationError, match="login_options"):
        World(login_options=options)
