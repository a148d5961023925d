"""The administration pages: a user's sessions, the audit trail (pages, filters, export), the chart."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime

import httpx
import pytest

from session_core import Identity
from session_core.errors import StoreUnavailableError
from tests.app.conftest import ISSUER, Running, Start

pytestmark = pytest.mark.anyio


async def administrator(running: Running, http: httpx.AsyncClient) -> Identity:
    return await running.log_in(http, "root", roles=("admin",))


async def test_sessions_of_a_user_are_listed_and_ended_one_by_one(running: Running) -> None:
    async with running.browser() as admin, running.client() as phone, running.client() as laptop:
        await administrator(running, admin)
        alice = await running.log_in(phone)
        await running.log_in(laptop)
        address = f"/admin/users/{alice.user_key}"
        page = await admin.get(address)
        ends = re.findall(rf'href="({address}/sessions/[^"]+/end)"', page.text)
        assert len(ends) == 2
        assert (await admin.post(ends[0])).headers["location"] == address
        assert (await admin.post(ends[0])).status_code == 404
        left = [(await http.get("/api/me")).status_code for http in (phone, laptop)]
        assert sorted(left) == [200, 401]
        await running.services.audit.flush()
        (entry,) = [each for each in await running.services.audit.latest() if each.event == "session.revoked"]
        assert (entry.user_key, entry.reason) == (alice.user_key, "administrator")
        assert entry.actor is not None


async def test_ending_a_session_needs_the_admin_role_and_a_recent_login(running: Running) -> None:
    async with running.client() as user, running.client() as stale, running.client() as admin:
        alice = await running.log_in(user)
        root = await running.log_in(stale, "root", roles=("admin",), minutes_ago=30)
        await administrator(running, admin)
        session = (await running.plugin.sessions.list_for(alice))[0]
        address = f"/admin/users/{alice.user_key}/sessions/{session.handle}/end"
        assert (await user.post(address)).status_code == 403
        assert (await stale.post(address)).status_code == 401
        own = (await running.plugin.sessions.list_for(root))[0]
        assert (await admin.post(f"/admin/users/{root.user_key}/sessions/{own.handle}/end")).status_code == 403
        assert (await admin.post(f"/admin/users/{alice.user_key}/sessions/{own.handle}/end")).status_code == 404
        for path in (f"/admin/users/{alice.user_key}", "/admin/audit", "/admin/audit.csv"):
            assert (await user.get(path)).status_code == 403
            assert (await admin.get(path)).status_code == 200
        assert (await admin.get("/admin/users/unknown")).status_code == 404


async def test_the_audit_trail_is_filtered_and_paged(running: Running) -> None:
    async with running.browser() as admin:
        root = await administrator(running, admin)
        for number in range(120):
            running.services.audit.add("test.event", user_key=root.user_key, reason=f"number-{number}")
        running.services.audit.add("other.event", user_key="another", reason="100%_sure")
        seen: list[str] = []
        address = "/admin/audit?event=test."
        while address:
            page = await admin.get(address)
            seen += re.findall(r"<code>test.event</code> · <code>number-(\d+)", page.text)
            older = re.search(r'href="(/admin/audit\?[^"]+)" rel="next"', page.text)
            address = older[1].replace("&amp;", "&") if older else ""
        assert seen == [str(number) for number in reversed(range(120))]
        assert (await admin.get("/admin/audit?text=%25_s")).text.count("<code>other.event") == 1
        assert (await admin.get(f"/admin/audit?user={root.user_key}&text=number-7")).text.count("<code>test.event") == 11
        assert "No entry matches" in (await admin.get("/admin/audit?event=%00%27")).text
        assert (await admin.get("/admin/audit?before=0")).status_code == 400


async def test_the_csv_export_contains_no_spreadsheet_formula(running: Running) -> None:
    async with running.client(**{"user-agent": "=cmd|' /C calc'!A0"}) as admin:
        await administrator(running, admin)
        await admin.get("/auth/callback?state=invented")
        answer = await admin.get("/admin/audit.csv?event=login.failed")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert "attachment" in answer.headers["content-disposition"]
        (row,) = csv.DictReader(io.StringIO(answer.text))
        assert row["event"] == "login.failed"
        assert row["user_agent"].startswith("'=cmd")
        assert row["ip"] == "127.0.0.1"
        moment = datetime.fromtimestamp(running.clock.now() / 1000, tz=UTC)
        assert datetime.fromisoformat(row["at"]) == moment


async def test_users_are_shown_in_pages_and_the_search_stays(running: Running) -> None:
    async with running.browser() as admin:
        for number in range(60):
            claims = {"name": f"Person {number:02}", "email": f"p{number}@example.org"}
            await running.services.users.remember(Identity(issuer=ISSUER, subject=f"person-{number}"), claims)
            running.clock.advance(seconds=1)
        await administrator(running, admin)
        seen: list[str] = []
        shown: list[str] = []
        address, page = "/admin?q=person", ""
        while address:
            page = (await admin.get(address)).text
            seen += re.findall(r"<bdi>Person (\d+)</bdi>", page.partition('id="trail"')[0])
            shown += re.findall(r"Shown are (\d+ to \d+)", page)
            older = re.search(r'href="(/admin\?[^"#]+)#users" rel="next"', page)
            address = older[1].replace("&amp;", "&") if older else ""
        assert seen == [f"{number:02}" for number in reversed(range(60))]
        assert shown == ["1 to 25", "26 to 50", "51 to 60"]
        assert 'href="/admin?q=person&amp;page=2#users" rel="prev"' in page
        few = (await admin.get("/admin?q=person-7")).text
        assert "Shown are" not in few
        assert 'rel="next"' not in few
        assert (await admin.get("/admin?page=0")).status_code == 400
        assert "No user matches" in (await admin.get("/admin?page=90")).text


async def test_the_page_of_a_user_leads_to_every_act_and_the_acts_lead_back(running: Running) -> None:
    async with running.browser() as admin, running.client() as user:
        alice = await running.log_in(user)
        root = await administrator(running, admin)
        address = f"/admin/users/{alice.user_key}"
        page = (await admin.get(address)).text
        assert 'href="/admin" aria-current="true"' in page
        for act in ("sign-out", "disable"):
            assert f'href="{address}/{act}"' in page
            assert f'href="{address}">Cancel' in (await admin.get(f"{address}/{act}")).text
        for act, said in (("disable", "The account is disabled"), ("enable", "The account is enabled")):
            answer = await admin.post(f"{address}/{act}")
            assert (answer.status_code, answer.headers["location"]) == (303, address)
            assert said in (await admin.get(address)).text
        own = (await admin.get(f"/admin/users/{root.user_key}")).text
        assert "/disable" not in own
        found = (await admin.get(f"/admin/audit?user={alice.user_key}")).text
        assert "Only events of" in found


async def test_acts_of_administrators_are_in_the_log_which_a_restored_database_has_not_changed(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start() as running, running.browser() as admin, running.client() as user:
        alice = await running.log_in(user)
        root = await administrator(running, admin)
        capsys.readouterr()
        for act in ("sign-out", "disable", "enable"):
            assert (await admin.post(f"/admin/users/{alice.user_key}/{act}")).status_code == 303
        logged = [line for line in capsys.readouterr().err.splitlines() if " user." in line]
        assert [re.findall(r"user\.\w+", line)[0] for line in logged] == ["user.signed_out", "user.disabled", "user.enabled"]
        assert all(f"user={alice.user_key}" in line and f"actor={root.user_key}" in line for line in logged)


async def test_a_sign_out_that_an_outage_stops_is_not_recorded_as_done(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running.browser() as admin, running.client() as user:
        alice = await running.log_in(user)
        await administrator(running, admin)

        async def out(*_: object, **__: object) -> int:
            raise StoreUnavailableError

        monkeypatch.setattr(type(running.plugin.sessions), "revoke_all", out)
        answer = await admin.post(f"/admin/users/{alice.user_key}/sign-out")
        assert answer.status_code == 503
        assert "It is not known whether what you sent was carried out" in answer.text
        await running.services.audit.flush()
        assert "user.signed_out" not in {entry.event for entry in await running.services.audit.of_user(alice.user_key)}


async def test_the_chart_counts_events_per_hour(start: Start) -> None:
    async with start() as running, running.browser() as admin:
        await administrator(running, admin)
        running.services.audit.add("login.succeeded", user_key="one")
        running.clock.advance(hours=2)
        running.services.audit.add("login.failed", user_key="one")
        running.services.audit.add("access.denied", user_key="one")
        await running.services.audit.flush()
        hours = await running.services.audit_search.hours(running.clock.now())
        assert [(hour.logins, hour.refusals) for hour in hours][-3:] == [(1, 0), (0, 0), (0, 2)]
        assert len(hours) == 24
        await administrator(running, admin)
        page = (await admin.get("/admin")).text
        assert 'aria-label="1 logins and 2 refusals in the last 24 hours"' in page
        used = re.findall(r'aria-label="(used [^"]+)"', page)
        ages = ("at most 5 minutes", "at most 1 hour", "at most 1 day", "longer")
        assert used == [f"used {age} ago: {number}" for age, number in zip(ages, (1, 0, 0, 0), strict=True)]
