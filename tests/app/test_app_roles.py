"""Roles in the forms that providers use, from a login over HTTP to `/api/me` and the administrator's page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from session_core.testing import FakeClock
from tests.security.site import running_site
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.provider import HostileOp

pytestmark = pytest.mark.anyio


@pytest.fixture
async def op(clock: FakeClock) -> AsyncIterator[HostileOp]:
    async with HostileOp(lambda: clock.now() / 1000) as provider:
        yield provider


@pytest.mark.parametrize(
    ("path", "said", "roles"),
    [
        ("realm_access.roles", {"claims": {"realm_access": {"roles": ["admin", "user"]}}}, ["admin", "user"]),
        ("https://app.example.org/roles", {"userinfo": {"https://app.example.org/roles": ["admin"]}}, ["admin"]),
        ("cognito:groups", {"claims": {"cognito:groups": ["user"]}, "userinfo": {"cognito:groups": ["admin"]}}, ["user"]),
        ("urn:zitadel:roles", {"userinfo": {"urn:zitadel:roles": {"admin": {"1": "example.org"}}}}, ["admin"]),
        ("realm_access.roles", {"claims": {"realm_access": "admin", "roles": ["admin"]}}, []),
        ("realm_access.roles", {"claims": {"realm_access": {"roles": "admin"}}}, []),
    ],
)
async def test_roles_come_from_the_configured_claim(
    clock: FakeClock, database: Path, op: HostileOp, path: str, said: dict[str, Any], roles: list[str]
) -> None:
    async with running_site(database, clock, op=op, oidc_roles_claim=path) as site:
        browser = site.browser()
        await site.login(browser, Misbehaviour(**said))
        page = browser.tab(f"{site.url}/")
        assert (await page.fetch("/api/me")).json()["roles"] == roles
        assert (await page.follow("/admin")).status == (200 if "admin" in roles else 403)
