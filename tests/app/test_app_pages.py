"""The pages for visitors, users and administrators, with forms that work without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import httpx
import pytest

from app.data.audit_search import AuditFilter
from app.data.tables import audit as table
from app.routes import account, admin
from app.session_data import AppSession
from app.settings.settings import Settings
from session_core.errors import LoginRefusedError
from session_core.testing import FakeClock
from tests.app.conftest import Running, Start
from tests.app.processes import ROOT

pytestmark = pytest.mark.anyio

JSON = {"accept": "application/json"}


async def test_home_for_a_visitor_loads_and_creates_nothing(running: Running) -> None:
    async with running.browser() as browser:
        response = await browser.get("/")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert "set-cookie" not in response.headers
        assert 'href="/auth/login?next=/"' in response.text
        assert (await running.plugin.sessions.stats()).total == 0


async def test_the_counter_works_with_a_plain_form(running: Running) -> None:
    async with running.browser() as browser:
        for expected in (1, 2):
            response = await browser.post("/session/visits")
            assert (response.status_code, response.headers["location"]) == (303, "/")
            assert f"<strong>{expected}</strong>" in (await browser.get("/")).text


async def test_the_theme_form_works_without_a_script_and_returns_to_the_page(running: Running) -> None:
    async with running.browser() as browser:
        assert "data-theme" not in (await browser.get("/")).text
        response = await browser.post("/session/theme", data={"theme": "dark", "back": "/account"})
        assert (response.status_code, response.headers["location"]) == (303, "/account")
        assert '<html lang="en" data-theme="dark">' in (await browser.get("/")).text
        await browser.post("/session/theme", data={"theme": "light"})
        assert '<html lang="en" data-theme="light">' in (await browser.get("/")).text


@pytest.mark.attack("56")
@pytest.mark.attack("asvs-3.7.2")
@pytest.mark.parametrize("back", ["/account/sessions", "/orders", "/orders/2026/my-order_7"])
async def test_the_theme_button_returns_to_the_current_page(running: Running, back: str) -> None:
    async with running.browser() as browser:
        response = await browser.post("/session/theme", data={"theme": "dark", "back": back})
        assert response.headers["location"].partition("?")[0] == back


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", "/auth/logout", "/\r\nx: y"])
async def test_a_form_does_not_redirect_to_another_site(running: Running, back: str) -> None:
    async with running.browser() as browser:
        response = await browser.post("/session/theme", data={"theme": "dark", "back": back})
        assert response.headers["location"] == "/"


async def test_user_input_is_escaped(running: Running) -> None:
    async with running.browser() as browser:
        response = await browser.post("/session/preferences", data={"language": "de", "note": "<script>alert(1)</script>"})
        assert response.status_code == 303
        page = (await browser.get("/")).text
        assert "<script" not in page
        assert "&lt;script&gt;" in page


async def test_an_invalid_form_value_gives_a_page_and_changes_nothing(running: Running) -> None:
    async with running.browser() as browser:
        response = await browser.post("/session/theme", data={"theme": "purple"})
        assert response.status_code == 400
        assert "<h1>The request was not understood</h1>" in response.text
        assert (await running.plugin.sessions.stats()).total == 0


@pytest.mark.parametrize("path", ["/account", "/account/sessions", "/admin"])
async def test_a_browser_is_sent_to_the_login_and_returns(running: Running, path: str) -> None:
    async with running.browser() as browser:
        response = await browser.get(path)
        assert response.status_code == 303
        assert response.headers["location"] == f"/auth/login?next={path.replace('/', '%2F')}"
    async with running.client() as program:
        assert (await program.get(path)).status_code == 401


async def test_admin_is_for_administrators(running: Running) -> None:
    async with running.browser() as browser:
        await running.log_in(browser)
        response = await browser.get("/admin")
        assert response.status_code == 403
        assert "You are not allowed to do this" in response.text
        await running.log_in(browser, "admin", roles=("admin",))
        assert (await browser.get("/admin")).status_code == 200


@pytest.mark.attack("asvs-7.5.2")
@pytest.mark.attack("asvs-7.5.3")
@pytest.mark.attack("asvs-7.4.3")
async def test_signing_out_devices_needs_a_recent_login(running: Running) -> None:
    async with running.browser() as laptop, running.browser() as phone:
        await running.log_in(laptop, minutes_ago=30)
        await running.log_in(phone)
        page = (await laptop.get("/account/sessions")).text
        assert "Confirm it is you" in page
        response = await laptop.post(
            "/account/sessions/end-others", headers={"referer": "http://localhost:8000/account/sessions"}
        )
        assert response.status_code == 303
        assert response.headers["location"].startswith("/auth/login?next=%2Faccount%2Fsessions&max_age=240")
        assert (await phone.get("/account")).status_code == 200

        done = await phone.post("/account/sessions/end-others")
        assert (done.status_code, done.headers["location"]) == (303, "/account/sessions")
        assert "The device is signed out." in (await phone.get(done.headers["location"])).text
        assert (await laptop.get("/api/me", headers=JSON)).status_code == 401


async def test_a_button_signs_one_device_out(running: Running) -> None:
    async with running.browser() as laptop, running.browser() as phone:
        await running.log_in(laptop)
        await running.log_in(phone)
        actions = re.findall(r'href="(/account/sessions/[^"]+/end)"', (await laptop.get("/account/sessions")).text)
        assert len(actions) == 1
        assert (await laptop.post(actions[0])).status_code == 303
        assert (await phone.get("/api/me", headers=JSON)).status_code == 401
        assert (await laptop.post(actions[0])).status_code == 404


async def test_a_page_lists_the_most_recent_devices_and_always_the_current_one(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rendering thousands of devices would block all other requests."""
    for module in (account, admin):
        monkeypatch.setattr(module, "MOST_SHOWN", 2)
    async with running.browser() as laptop, running.browser() as other, running.browser() as root:
        alice = await running.log_in(laptop)
        for _ in range(3):
            running.clock.advance(seconds=60)
            await running.log_in(other)
        page = (await laptop.get("/account/sessions")).text
        assert (page.count("/end"), page.count("this device")) == (2, 1)  # one other device, then all others
        assert "2 more, used longer ago, are not shown." in page
        assert "are not shown" not in (await other.get("/account")).text
        await running.log_in(root, "admin", roles=("admin",))
        page = (await root.get(f"/admin/users/{alice.user_key}")).text
        assert page.count("/end") == 2
        assert "2 more, used longer ago, are not shown." in page


@pytest.mark.attack("63")
@pytest.mark.attack("asvs-7.4.2")
@pytest.mark.attack("asvs-7.4.5")
async def test_disabling_a_user_ends_the_sessions(running: Running) -> None:
    async with running.browser() as admin, running.browser() as user:
        await running.log_in(admin, "admin", roles=("admin",))
        identity = await running.log_in(user, "bob")
        page = (await admin.get("/admin?q=bob")).text
        assert f"/admin/users/{identity.user_key}/disable" in page
        assert (await admin.post(f"/admin/users/{identity.user_key}/disable")).status_code == 303
        assert (await user.get("/api/me", headers=JSON)).status_code == 401
        assert "disabled" in (await admin.get("/admin")).text
        await running.log_in(user, "bob")
        assert (await user.get("/api/me", headers=JSON)).status_code == 403
        assert (await admin.post(f"/admin/users/{identity.user_key}/enable")).status_code == 303
        assert (await user.get("/api/me", headers=JSON)).status_code == 200


async def test_an_administrator_cannot_lock_themselves_out(running: Running) -> None:
    async with running.browser() as admin:
        identity = await running.log_in(admin, "admin", roles=("admin",))
        assert (await admin.post(f"/admin/users/{identity.user_key}/disable")).status_code == 403
        assert (await admin.get("/admin")).status_code == 200
        assert (await admin.post("/admin/users/unknown/disable")).status_code == 404


@pytest.mark.attack("asvs-7.5.3")
async def test_an_administrator_with_an_old_login_cannot_change_anything(running: Running) -> None:
    async with running.browser() as admin, running.browser() as user:
        await running.log_in(admin, "admin", roles=("admin",), minutes_ago=6)
        identity = await running.log_in(user, "bob")
        response = await admin.post(f"/admin/users/{identity.user_key}/sign-out")
        assert response.headers["location"].startswith("/auth/login?")
        assert (await user.get("/api/me", headers=JSON)).status_code == 200


class _Outline(HTMLParser):
    """Collects what a page loads and which scripts it could run."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.labels: set[str] = set()
        self.inputs: set[str] = set()
        self.headings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        scripted = tag == "script" and "src" not in values
        if scripted or tag in {"style", "iframe"} or "style" in values or any(name.startswith("on") for name in values):
            self.inline.append(tag)
        if tag in {"link", "img", "script"}:
            self.loads.append(values.get("href") or values.get("src") or "")
        if tag == "label":
            self.labels.add(values.get("for") or "")
        if tag in {"input", "select", "textarea"} and values.get("type") != "hidden":
            self.inputs.add(values.get("id") or "without id")
        self.headings += tag == "h1"


@pytest.mark.parametrize("path", ["/", "/account", "/account/sessions", "/admin", "/nowhere"])
async def test_pages_load_only_own_resources_and_need_no_script(running: Running, path: str) -> None:
    async with running.browser() as browser:
        await running.log_in(browser, "admin", roles=("admin",), data=AppSession(note="x"))
        outline = _Outline()
        outline.feed((await browser.get(path)).text)
        assert outline.inline == []
        assert outline.loads
        assert all(address.startswith("/static/") for address in outline.loads)
        assert outline.inputs <= outline.labels
        assert outline.headings == 1
        for address in outline.loads:
            asset = await browser.get(address)
            assert asset.status_code == 200
            assert "set-cookie" not in asset.headers
            assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.attack("59")
@pytest.mark.attack("asvs-14.2.5")
async def test_no_path_below_a_page_is_served_as_a_file(client: httpx.AsyncClient) -> None:
    for path in ("/account/x.css", "/account.css", "/api/me/x.js", "/static/../session_data.py", "/static/%2e%2e/asgi.py"):
        assert (await client.get(path)).status_code == 404


async def test_all_roles_count_and_more_than_a_thousand_are_refused(running: Running) -> None:
    roles = tuple(f"role-{number:04d}" for number in range(1000))
    async with running.browser() as browser:
        await running.log_in(browser, roles=roles)
        assert (await browser.get("/api/me")).json()["roles"] == list(roles)
        with pytest.raises(LoginRefusedError, match="too_many_roles"):
            await running.log_in(browser, roles=(*roles, "one-more"))


LINE = re.compile(
    r'<li(?: class="\w*")?><span>([^<]*)</span> <span class="muted">([^<]*)</span> <time class="moment" datetime="([^"]+)">'
)


def activity(page: str) -> list[tuple[str, str]]:
    return [(text, place) for text, place, _ in LINE.findall(page)]


async def test_security_activity_lists_each_event_once_and_names_the_ended_device(running: Running) -> None:
    agents = {"laptop": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0", "phone": "Mozilla/5.0 (iPhone) Safari/605.1"}
    async with running.browser() as laptop, running.browser() as admin:
        alice = await running.log_in(laptop)
        await running.log_in(admin, "admin", roles=("admin",))
        for name, agent in agents.items():
            for event in ("session.created", "login.succeeded"):
                running.services.audit.add(event, user_key=alice.user_key, session=f"handle-of-{name}")
            await running.services.audit.flush()
            async with running.services.database.begin() as connection:
                await connection.execute(table.update().where(table.c.session == f"handle-of-{name}").values(user_agent=agent))
        running.services.audit.add("session.revoked", user_key=alice.user_key, session="handle-of-phone", reason="revoked")
        running.services.audit.add("session.destroyed", user_key=alice.user_key, session="handle-of-laptop")
        running.services.audit.add("logout.local", user_key=alice.user_key, session="handle-of-laptop")
        page = (await laptop.get("/account")).text
        assert '<h2 id="activity">Security activity</h2>' in page
        assert [text for text, _ in activity(page)][:4] == [
            "Logged out",
            "Signed out from elsewhere: Safari on iPhone",
            "Logged in",
            "Logged in",
        ]
        shown = (await admin.get(f"/admin/users/{alice.user_key}")).text
        assert "Signed out from elsewhere: Safari on iPhone" in shown


async def test_security_activity_counts_repeated_refusals_in_one_line(running: Running, clock: FakeClock) -> None:
    async with running.browser() as laptop:
        key = (await running.log_in(laptop)).user_key
        running.services.audit.add("login.succeeded", user_key=key, session="first")
        for _ in range(40):
            clock.advance(seconds=1)
            running.services.audit.add("access.denied", user_key=key, reason="forbidden")
        running.services.audit.add("access.denied", user_key=key, reason="step_up_required")
        clock.advance(minutes=5)
        for session in ("second", "third"):
            running.services.audit.add("login.succeeded", user_key=key, session=session)
        page = (await laptop.get("/account")).text
        lines = activity(page)
        # Each login has its own line and time: only refusals can be repeated by a client in any number.
        assert [text for text, _ in lines] == [
            *["Logged in"] * 2,
            *("A page was refused", "A page was refused (40 times)", "Logged in", "A session began"),
        ]
        assert "5 min ago" in page.partition("(40 times)")[2].partition("</li>")[0]
        export = running.services.audit_search.page(AuditFilter(user_key=key), limit=100)
        assert [entry.event for entry in (await export).entries].count("access.denied") == 41


async def test_a_count_of_refusals_that_is_not_complete_says_so(running: Running) -> None:
    async with running.browser() as laptop:
        key = (await running.log_in(laptop)).user_key
        for _ in range(310):
            running.services.audit.add("access.denied", user_key=key, reason="forbidden")
        assert [text for text, _ in activity((await laptop.get("/account")).text)] == ["A page was refused (at least 300 times)"]
        assert [text for text, _ in activity((await laptop.get("/")).text)] == ["A page was refused (at least 12 times)"]


async def test_times_are_shown_in_full_beside_the_relative_time(running: Running) -> None:
    async with running.browser() as browser:
        await running.log_in(browser, "admin", roles=("admin",))
        for path in ("/", "/account", "/account/sessions", "/admin", "/admin/audit"):
            page = (await browser.get(path)).text
            times = re.findall(r"<time.*?</time>", page)
            assert times, path
            assert all(re.search(r'<span class="exact">\d+ [A-Z][a-z]{2} \d{4}, \d\d:\d\d UTC</span>', time) for time in times), (
                path
            )


@pytest.mark.parametrize("given", [None, "https://id.example.org/me?tab=security"])
async def test_the_account_page_links_to_the_account_at_the_provider(start: Start, given: str | None) -> None:
    async with start(oidc_account_url=given) as running, running.browser() as browser:
        await running.log_in(browser)
        page = (await browser.get("/account")).text
        if given is None:
            assert "Manage your account" not in page
        else:
            assert f'<a class="button slim" href="{given}" rel="noreferrer">Manage your account at id.example.org</a>' in page


@pytest.mark.parametrize("url", ["javascript:alert(1)", "ftp://id.example.org", "//id.example.org", "https://", "me"])
def test_an_account_url_that_is_no_url_is_refused(make_settings: Callable[..., Settings], url: str) -> None:
    with pytest.raises(ValueError, match="oidc_account_url"):
        make_settings(oidc_account_url=url)


PHYSICAL = re.compile(r"[\w-]*\b(?:left|right)\b[\w-]*")


def test_style_sheets_use_logical_directions() -> None:
    sheets = [*ROOT.glob("app/static/*.css")]
    sheets += ROOT.glob("auth_demo/**/static/*.css")  # demo:line
    assert sheets
    for sheet in sheets:
        assert PHYSICAL.findall(sheet.read_text(encoding="utf-8")) == [], sheet
