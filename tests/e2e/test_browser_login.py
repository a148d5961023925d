"""A user in Chromium: log in, use the session, visit pages, log out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.auth_demo.demo_process import Demo
from tests.e2e.conftest import OpenPage

pytestmark = pytest.mark.e2e


def log_in(page: Page, user: str = "alice") -> None:
    page.goto("/")
    page.get_by_role("banner").get_by_role("link", name="Log in").click()
    page.get_by_role("button", name=re.compile(user)).click()
    expect(page.get_by_role("banner").get_by_role("button", name="Log out")).to_be_visible()


def log_out(page: Page) -> None:
    page.get_by_role("banner").get_by_role("button", name="Log out").click()
    expect(page.get_by_role("banner").get_by_role("link", name="Log in")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_log_in_use_the_session_log_out(open_page: OpenPage, demo: Demo, scripts: bool) -> None:
    page = open_page(java_script_enabled=scripts)
    page.goto("/")
    assert page.context.cookies() == []
    log_in(page)
    assert page.url == f"{demo.app_url}/"
    expect(page.get_by_role("heading", level=1)).to_have_text("Alice")

    for _ in range(3):
        page.get_by_role("button", name="Count a visit").click()
    expect(page.locator(".counter strong")).to_have_text("3")
    page.get_by_label("Greeting in").select_option("de")
    page.get_by_label("Note to self").fill("<b>milk</b>")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".kicker")).to_have_text("Guten Tag")
    expect(page.get_by_label("Note to self")).to_have_value("<b>milk</b>")
    expect(page.locator(".timeline")).to_contain_text("Logged in")

    before = next(cookie for cookie in page.context.cookies(demo.app_url) if cookie["name"] == demo.cookie)["value"]
    page.get_by_role("button", name="Give it a new id").click()
    after = next(cookie for cookie in page.context.cookies(demo.app_url) if cookie["name"] == demo.cookie)["value"]
    assert before != after
    expect(page.locator(".counter strong")).to_have_text("3")

    log_out(page)
    assert page.url.partition("?")[0] == f"{demo.app_url}/"
    expect(page.get_by_role("status")).to_have_text("You are logged out.")
    assert [cookie for cookie in page.context.cookies(demo.app_url) if cookie["name"] == demo.cookie] == []


@pytest.mark.attack("49")
@pytest.mark.attack("asvs-7.4.1")
def test_back_after_logout_shows_nothing(open_page: OpenPage) -> None:
    page = open_page()
    log_in(page)
    page.goto("/account")
    expect(page.locator("main")).to_contain_text("alice@example.org")
    log_out(page)
    for _ in range(6):
        page.go_back()
        page.wait_for_load_state()
        assert "alice@example.org" not in page.content()
        assert "Log out" not in page.content()


def test_a_login_returns_to_the_page_that_needed_it(open_page: OpenPage, demo: Demo) -> None:
    page = open_page()
    page.goto("/account/sessions")
    page.get_by_role("button", name=re.compile("bob")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Devices")
    assert page.url == f"{demo.app_url}/account/sessions"


def test_a_visitors_data_is_kept_after_the_login(open_page: OpenPage) -> None:
    page = open_page()
    page.goto("/")
    page.get_by_role("button", name="Count a visit without logging in").click()
    expect(page.locator(".counter strong")).to_have_text("1")
    log_in(page)
    expect(page.locator(".counter strong")).to_have_text("1")


def test_all_controls_work_with_the_keyboard_alone(open_page: OpenPage, demo: Demo) -> None:
    page = open_page()
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Log in")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{demo.issuer}/**")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.locator(":focus").count() and "alice" in page.locator(":focus").inner_text().lower():
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"{demo.app_url}/")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.locator(":focus").inner_text() == "Log out":
            outline = page.locator(":focus").evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline == "solid"
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("banner").get_by_role("link", name="Log in")).to_be_visible()


def test_one_device_signs_another_out(open_page: OpenPage) -> None:
    laptop, phone = open_page(), open_page(viewport={"width": 390, "height": 800})
    log_in(laptop, "bob")
    log_in(phone, "bob")
    laptop.goto("/account/sessions")
    laptop.get_by_role("link", name="Sign out everywhere else").click()
    laptop.get_by_role("button", name="Sign out all other devices").click()
    expect(laptop.get_by_role("status")).to_contain_text("signed out")
    expect(laptop.locator("main")).to_contain_text("This is the only one.")
    phone.goto("/")
    expect(phone.get_by_role("banner").get_by_role("link", name="Log in")).to_be_visible()


def test_a_user_disabled_by_an_administrator_is_logged_out_at_once(open_page: OpenPage) -> None:
    admin, user = open_page(), open_page()
    log_in(user, "bob")
    log_in(admin, "admin")
    admin.get_by_role("link", name="Admin").click()
    admin.get_by_role("link", name="Disable Bob").click()
    admin.get_by_role("link", name="Cancel").click()
    expect(admin.get_by_role("heading", level=1)).to_have_text("Bob")
    admin.get_by_role("link", name="Disable the account").click()
    admin.get_by_role("button", name="Disable the account").click()
    expect(admin.get_by_role("status")).to_have_text("The account is disabled, and signed out everywhere.")
    admin.get_by_role("link", name="Back to all users").click()
    row = admin.get_by_role("region", name="Users").get_by_role("row", name=re.compile("Bob"))
    expect(row).to_contain_text("disabled")
    user.goto("/")
    expect(user.get_by_role("banner").get_by_role("link", name="Log in")).to_be_visible()
    row.get_by_role("button", name="Enable Bob").click()
    expect(admin.get_by_role("link", name="Disable the account")).to_be_visible()
    admin.get_by_role("link", name="Back to all users").click()
    expect(row).not_to_contain_text("disabled")
    # The session was ended elsewhere: the provider must ask for the user, although its own session still exists.
    log_in(user, "bob")
    expect(user.get_by_role("banner").get_by_role("button", name="Log out")).to_be_visible()


def test_two_tabs_log_in_at_the_same_time(open_page: OpenPage, demo: Demo) -> None:
    first = open_page()
    second = first.context.new_page()
    for page in (first, second):
        page.goto("/auth/login?next=/account")
        page.wait_for_url(f"{demo.issuer}/**")
    for page in (first, second):
        page.get_by_role("button", name=re.compile("alice")).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Account")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_readable_in_both_themes_and_on_a_phone(open_page: OpenPage, tmp_path: Path, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    log_in(page, "admin")
    for size in ({"width": 1280, "height": 800}, {"width": 360, "height": 740}):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        for path in ("/", "/account", "/account/sessions", "/admin"):
            page.goto(path)
            shot = page.screenshot(path=tmp_path / f"{scheme}{path.replace('/', '-')}{size['width']}.png", full_page=True)
            assert len(shot) > 10_000
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], f"{path} is {width} wide on a screen of {size['width']}"
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"
            assert dark == (scheme == "dark")


def test_the_chosen_theme_overrides_the_browsers_preference(open_page: OpenPage) -> None:
    page = open_page(color_scheme="dark")
    page.goto("/")
    page.get_by_role("button", name="Use the light theme").click()
    expect(page.locator("body")).to_have_css("background-color", "rgb(247, 248, 250)")
    page.get_by_role("button", name="Use the dark theme").click()
    expect(page.locator("body")).to_have_css("background-color", "rgb(14, 17, 22)")
