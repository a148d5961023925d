"""An administrator logs in as a user, in Chromium: the button, the banner on every page, closed routes, the end."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.auth_demo.demo_process import Demo
from tests.e2e.conftest import OpenPage

pytestmark = pytest.mark.e2e


def log_in(page: Page, user: str) -> None:
    page.goto("/auth/login")
    page.get_by_role("button", name=re.compile(user)).click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


@pytest.mark.attack("84")
@pytest.mark.attack("85")
def test_log_in_as_a_user_and_return_to_the_own_account(open_page: OpenPage, demo: Demo) -> None:
    user = open_page()
    log_in(user, "bob")
    page = open_page(java_script_enabled=False)
    log_in(page, "admin")
    page.goto("/admin?q=bob")
    page.get_by_role("link", name="Bob").first.click()
    page.get_by_role("button", name="Log in as Bob").click()
    banner = page.get_by_role("complementary", name="Logged in as another user")
    for path in ("/demo/guarantees", "/", "/account", "/account/sessions"):
        page.goto(path)
        expect(banner).to_contain_text(
            "You are logged in as another user" if "demo" in path else "You are logged in as Bob for another "
        )
        expect(banner.get_by_role("button", name="Return to your own account")).to_be_visible()
    expect(page.get_by_text("Only the user can sign these devices out")).to_be_visible()
    expect(page.get_by_text("A device that you sign out")).to_have_count(0)
    expect(page.get_by_role("link", name="Sign out")).to_have_count(0)
    expect(page.get_by_role("link", name="Admin")).to_have_count(0)
    # By fetch, because the browser would log an error for each refused page.
    assert page.request.get("/admin").status == 403
    assert page.request.post("/account/sessions/end-others").status == 403

    banner.get_by_role("button", name="Return to your own account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Bob")  # the user's page in the administration
    assert page.url.startswith(f"{demo.app_url}/admin/users/")
    expect(banner).to_have_count(0)

    user.goto("/account")  # the user was not logged out, and sees the entry
    expect(user.locator(".timeline")).to_contain_text("An administrator logged in as this user")
    expect(user.get_by_role("complementary")).to_have_count(0)
