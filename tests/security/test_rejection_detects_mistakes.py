"""The assertion of a rejection can fail: it detects each mistake built into an application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from session_core.errors import AuthorizationResponseError
from session_core.litestar.problem import problem
from session_core.oidc import relying_party
from session_core.oidc.verify import id_token
from session_core.sessions.handle import SessionHandle
from tests.security.rejection import BEFORE, assert_all_rejected
from tests.security.site import Site
from tests.support.hostile_op.browser import Browser, Page
from tests.support.hostile_op.http_server import MARK
from tests.support.hostile_op.misbehaviour import Misbehaviour

pytestmark = pytest.mark.anyio

WRONG_ISSUER = Misbehaviour(claims={"iss": f"https://{MARK}.example"})


async def test_a_correct_application_passes(site: Site) -> None:
    await assert_all_rejected(site, WRONG_ISSUER, "iss_mismatch", status=400)
    for _ in range(2):
        browser = site.browser()
        assert (await site.login(browser)).status == 200
        assert await site.who(browser) == "alice"


async def test_an_accepted_token_is_detected(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_token, "check_issuer", lambda claims, *_: claims["iss"])
    for state in BEFORE:
        with pytest.raises(AssertionError, match="answered 200"):
            await assert_all_rejected(site, WRONG_ISSUER, "iss_mismatch", states=[state])


def breaking(monkeypatch: pytest.MonkeyPatch, site: Site, how: str) -> None:
    """Build one mistake into the handling of a refused login."""
    party: Any = relying_party.RelyingParty
    finish = party.finish_login
    emit = type(site.plugin.sessions.events).emit

    async def with_side_effect(self: Any, callback: Any) -> Any:
        try:
            return await finish(self, callback)
        except Exception:
            for session in await site.stored():
                await site.plugin.store.delete(session)
            raise

    async def twice(self: Any, name: Any, **fields: Any) -> None:
        for _ in range(2 if name == "login.failed" else 1):
            await emit(self, name, **fields)

    async def never(self: Any, name: Any, **fields: Any) -> None:
        if name != "login.failed":
            await emit(self, name, **fields)

    async def talkative(self: Any, name: Any, **fields: Any) -> None:
        more: dict[str, Any] = {"code": site.op.last("/token").form["code"]} if name == "login.failed" else {}
        await emit(self, name, **fields, **more)

    if how == "ends sessions":
        monkeypatch.setattr(party, "finish_login", with_side_effect)
    else:
        monkeypatch.setattr(
            type(site.plugin.sessions.events), "emit", {"twice": twice, "never": never, "talkative": talkative}[how]
        )


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("ends sessions", "sessions in the store have changed"),
        ("twice", "told: "),
        ("never", "told: "),
        ("talkative", "in the log: "),
    ],
)
async def test_a_mistake_is_detected(site: Site, monkeypatch: pytest.MonkeyPatch, how: str, found: str) -> None:
    breaking(monkeypatch, site, how)
    with pytest.raises(AssertionError, match=found):
        await assert_all_rejected(site, WRONG_ISSUER, "iss_mismatch", states=[BEFORE[2]])


@pytest.mark.parametrize("text", [MARK, "iss_mismatch", "is not the generic one"])
async def test_a_response_that_reveals_too_much_is_detected(site: Site, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    said = "somewhat more than usual" if text.startswith("is not") else text
    found = {MARK: "repeats text of", "iss_mismatch": "reveals the reason"}.get(text, text)

    def talkative(error: Any) -> dict[str, Any]:
        reason = getattr(error, "reason", None)
        return {**problem(error), **({"title": said} if reason == "iss_mismatch" else {})}

    monkeypatch.setattr("app.web.errors.problem", talkative)
    with pytest.raises(AssertionError, match=found):
        await assert_all_rejected(site, WRONG_ISSUER, "iss_mismatch")


async def test_a_login_behind_an_error_response_is_detected(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    login: Callable[..., Any] = SessionHandle.login

    async def log_in_and_refuse(*arguments: Any, **options: Any) -> None:
        await login(*arguments, **options)
        reason = "iss_mismatch"
        raise AuthorizationResponseError(reason)

    monkeypatch.setattr(id_token, "check_issuer", lambda claims, *_: claims["iss"])
    monkeypatch.setattr(SessionHandle, "login", log_in_and_refuse)
    with pytest.raises(AssertionError, match="in the response: "):
        await assert_all_rejected(site, WRONG_ISSUER, "iss_mismatch")


async def test_a_new_cookie_for_an_old_session_is_detected(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def changes_cookie(browser: Browser) -> Page:
        page = await site.login(browser, WRONG_ISSUER)
        browser.jar.toss(site.cookie, "another", "localhost", host_only=True)
        return page

    with pytest.raises(AssertionError, match="session cookie has changed"):
        await assert_all_rejected(site, changes_cookie, "iss_mismatch")
