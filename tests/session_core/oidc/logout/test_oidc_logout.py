"""RP-initiated, back-channel and front-channel logout, and forged logout requests."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import httpx2
import pytest

from session_core.oidc.provider.discovery import Discovery
from session_core.oidc.tokens.vault import TokenVault
from session_core.sealing import SealingKeys
from tests.session_core.oidc.fake_op import CLIENT_ID, GONE, ISSUER, OTHER_RSA_KEY, World, b64_json, sign
from tests.support.sessions import client_of

pytestmark = pytest.mark.anyio

NOW = 4_102_444_800
EVENT = "http://schemas.openid.net/event/backchannel-logout"
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def world() -> World:
    made = World()
    assert (await made.login()).status_code == 303
    return made


class TestFromTheApplication:
    @pytest.mark.attack("oidcc-client-test-rp-init-logout")
    async def test_the_session_ends_locally_first_and_then_at_the_provider(self, world: World) -> None:
        cookie = world.browser.cookies["session-8000"]
        response = await world.browser.post("/auth/logout", headers=SAME_ORIGIN)
        assert response.status_code == 303
        url = urlsplit(response.headers["location"])
        assert f"{url.scheme}://{url.netloc}{url.path}" == f"{ISSUER}/end"
        params = dict(parse_qsl(url.query))
        assert params["id_token_hint"].count(".") == 2
        assert (params["client_id"], params["post_logout_redirect_uri"]) == (CLIENT_ID, "http://127.0.0.1:8000/")
        assert params["state"]
        assert response.headers["clear-site-data"] == '"cache", "storage"'
        assert "session-8000" not in world.browser.cookies
        async with world.new_browser(cookies={"session-8000": cookie}) as thief:
            assert await world.subject(thief) is None
        names = [event.name for event in world.events]
        assert names[names.index("session.destroyed") :] == ["session.destroyed", "logout.local", "session.unknown"]

    @pytest.mark.attack("oidcc-client-test-rp-init-logout-other-state")
    @pytest.mark.attack("oidcc-client-test-rp-init-logout-no-state")
    @pytest.mark.parametrize("query", ["", "?state=other", "?state=1&state=2"])
    async def test_the_returned_state_is_not_needed(self, world: World, query: str) -> None:
        await world.browser.post("/auth/logout", headers=SAME_ORIGIN)
        assert (await world.browser.get(f"/public{query}")).status_code == 200

    @pytest.mark.attack("48")
    async def test_a_logout_succeeds_while_the_provider_is_down(self) -> None:
        def down(_: httpx2.Request) -> httpx2.Response:
            raise httpx2.ConnectError("down")  # noqa: EM101 - a test's error

        world = World()
        await world.login()
        # A process without the provider's metadata.
        party = world.oidc.relying_party
        party.connection.discovery = Discovery(party.provider, party.connection.http, world.clock)
        world.op.replies = {"/.well-known/openid-configuration": down}
        response = await world.browser.post("/auth/logout", headers=SAME_ORIGIN)
        assert (response.status_code, response.headers["location"]) == (303, "/")
        assert await world.subject() is None

    async def test_a_provider_without_logout_ends_the_local_session_only(self, world: World) -> None:
        other = World(post_logout_path="/public")
        other.op.metadata = {"end_session_endpoint": GONE}
        await other.login()
        response = await other.browser.post("/auth/logout", headers=SAME_ORIGIN)
        assert (response.status_code, response.headers["location"]) == (303, "/public")

    async def test_a_visitor_can_log_out(self, world: World) -> None:
        async with client_of(world.app) as visitor:
            response = await visitor.post("/auth/logout", headers=SAME_ORIGIN)
            assert (response.status_code, response.headers["location"]) == (303, "/")

    @pytest.mark.attack("47")
    @pytest.mark.parametrize(
        "headers",
        [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {"sec-fetch-site": "none", "origin": "null"}],
    )
    async def test_a_cross_site_post_is_refused(self, world: World, headers: dict[str, str]) -> None:
        assert (await world.browser.post("/auth/logout", headers=headers)).status_code == 403
        assert await world.subject() == "alice"

    @pytest.mark.attack("47")
    async def test_a_get_is_refused(self, world: World) -> None:
        assert (await world.browser.get("/auth/logout")).status_code == 405
        assert await world.subject() == "alice"

    async def test_tokens_of_retired_keys_are_no_hint_and_no_error(self, world: World) -> None:
        world.oidc.relying_party.connection.vault = TokenVault(SealingKeys([b"n" * 32]))
        response = await world.browser.post("/auth/logout", headers=SAME_ORIGIN)
        assert "id_token_hint" not in response.headers["location"]
        assert await world.subject() is None


def assert_refused(response: httpx.Response) -> None:
    assert response.status_code == 400
    assert response.headers["content-type"].startswith("application/problem+json")
    assert "no-store" in response.headers["cache-control"]
    assert "set-cookie" not in response.headers
    assert set(response.json()) == {"type", "title", "status", "code"}


class TestFromTheProviderInTheBack:
    @pytest.mark.attack("oidcc-client-test-rp-backchannel-rpinitlogout")
    async def test_the_sessions_of_the_sid_end(self, world: World) -> None:
        response = await world.send_logout(world.op.logout_token())
        assert (response.status_code, response.content) == (200, b"")
        assert "no-store" in response.headers["cache-control"]
        assert "set-cookie" not in response.headers
        assert await world.subject() is None
        assert world.reasons("session.revoked") == ["backchannel_logout"]

    BAD = (
        ("oidcc-client-test-rp-backchannel-rpinitlogout-with-nonce", {}, {"nonce": "x"}, "nonce_present"),
        ("oidcc-client-test-rp-backchannel-rpinitlogout-with-nonce", {}, {"nonce": None}, "nonce_present"),
        ("oidcc-client-test-rp-backchannel-rpinitlogout-no-event", {}, {"events": GONE}, "events_missing"),
        ("oidcc-client-test-rp-backchannel-rpinitlogout-wrong-event", {}, {"events": {"urn:other": {}}}, "events_missing"),
        ("44", {}, {"events": [EVENT]}, "events_missing"),
        ("44", {}, {"events": EVENT}, "events_missing"),
        ("44", {}, {"events": {EVENT: True}}, "events_missing"),
        ("44", {}, {"events": {EVENT: None}}, "events_missing"),
        ("44", {}, {"sid": GONE}, "sub_and_sid_missing"),
        ("44", {}, {"sid": ""}, "sub_and_sid_missing"),
        ("44", {}, {"sid": 1}, "sub_and_sid_missing"),
        ("44", {}, {"sid": GONE, "sub": ""}, "sub_and_sid_missing"),
        ("44", {}, {"sid": None, "sub": None}, "sub_and_sid_missing"),
        ("44", {}, {"nbf": NOW + 61}, "nbf_in_future"),
        ("44", {}, {"azp": "other"}, "azp_mismatch"),
        ("oidcc-client-test-rp-backchannel-rpinitlogout-wrong-aud", {}, {"aud": "other"}, "aud_mismatch"),
        ("44", {}, {"aud": []}, "aud_missing"),
        ("44", {}, {"aud": GONE}, "aud_missing"),
        ("oidcc-client-test-rp-backchannel-rpinitlogout-wrong-iss", {}, {"iss": "https://evil.example"}, "iss_mismatch"),
        ("44", {}, {"iss": GONE}, "iss_mismatch"),
        ("44", {}, {"jti": GONE}, "jti_missing"),
        ("44", {}, {"jti": ""}, "jti_malformed"),
        ("44", {}, {"iat": NOW - 600}, "iat_too_old"),
        ("44", {}, {"iat": NOW + 61}, "iat_in_future"),
        ("44", {}, {"iat": GONE}, "iat_missing"),
        ("44", {}, {"exp": NOW - 60}, "expired"),
        ("44", {}, {"exp": GONE}, "exp_missing"),
        ("44", {}, {"exp": "soon"}, "exp_malformed"),
        ("44", {"typ": GONE}, {}, "typ_header"),
        ("44", {"typ": "JWT"}, {}, "typ_header"),
        ("44", {"typ": ""}, {}, "typ_header"),
        ("44", {"typ": 1}, {}, "typ_header"),
        ("44", {"crit": ["x"]}, {}, "crit_header"),
        ("oidcc-client-test-rp-backchannel-rpinitlogout-wrong-alg", {"alg": "HS256"}, {}, "alg_not_allowed"),
        ("oidcc-client-test-rp-backchannel-rpinitlogout-alg-none", {"alg": "none"}, {}, "alg_not_allowed"),
    )

    @pytest.mark.parametrize(
        ("header", "claims", "reason"),
        [pytest.param(*rest, marks=pytest.mark.attack(attack), id=f"{rest[2]}-{n}") for n, (attack, *rest) in enumerate(BAD)],
    )
    async def test_a_bad_token_is_refused(
        self, world: World, header: dict[str, Any], claims: dict[str, Any], reason: str
    ) -> None:
        assert_refused(await world.send_logout(world.op.logout_token(header, **claims)))
        assert world.reasons("logout.rejected") == [reason]
        assert await world.subject() == "alice"

    @pytest.mark.attack("44")
    @pytest.mark.attack("oidcc-client-test-rp-backchannel-rpinitlogout-alg-none")
    async def test_a_missing_or_foreign_signature_is_refused(self, world: World) -> None:
        good = world.op.logout_token()
        head, body, _ = good.split(".")
        unsigned = f"{b64_json({'alg': 'none', 'typ': 'logout+jwt'})}.{body}."
        world.op.key = OTHER_RSA_KEY
        for token in (unsigned, f"{head}.{body}.", f"{head}.{body}", "", "x", "a.b.c", world.op.logout_token()):
            assert_refused(await world.send_logout(token))
        assert await world.subject() == "alice"
        assert (await world.send_logout(good)).status_code == 200

    @pytest.mark.attack("44")
    async def test_an_id_token_as_logout_token_is_refused(self) -> None:
        for typ in ("strict", "if_present"):
            world = World(provider={"logout_token_typ": typ})
            await world.login()
            assert_refused(await world.send_logout(world.op.id_token({"nonce": "n"}, "at-1")))
            assert await world.subject() == "alice"

    async def test_a_token_without_typ_is_accepted_when_configured(self) -> None:
        world = World(provider={"logout_token_typ": "if_present"})
        await world.login()
        assert_refused(await world.send_logout(world.op.logout_token({"typ": "at+jwt"})))
        assert (await world.send_logout(world.op.logout_token({"typ": GONE}))).status_code == 200
        assert await world.subject() is None

    @pytest.mark.parametrize("exp", [GONE, None, "", "soon"], ids=["missing", "null", "empty", "malformed"])
    async def test_a_token_without_exp_is_accepted_when_configured(self, exp: Any) -> None:
        world = World(provider={"logout_token_typ": "if_present"})
        await world.login()
        # The token's age and its single use are still bounded.
        for changes in ({"iat": NOW - 600}, {"iat": GONE}, {"jti": GONE}):
            assert_refused(await world.send_logout(world.op.logout_token({"typ": GONE}, exp=exp, **changes)))
        assert_refused(await world.send_logout(world.op.logout_token({"typ": GONE}, exp=NOW - 60)))
        token = world.op.logout_token({"typ": GONE}, exp=exp)
        assert (await world.send_logout(token)).status_code == 200
        assert await world.subject() is None
        assert_refused(await world.send_logout(token))

    @pytest.mark.parametrize("value", [None, "", 7, [], {}, "a\u0000b"], ids=ascii)
    @pytest.mark.parametrize("name", ["sid", "nbf", "azp", "extra"])
    async def test_a_malformed_optional_claim_counts_as_absent(self, world: World, name: str, value: Any) -> None:
        if (name, value) in [("nbf", 7), ("azp", "a\u0000b")]:
            return  # these are well-formed
        assert (await world.send_logout(world.op.logout_token(sub="alice", **{name: value}))).status_code == 200
        assert await world.subject() is None

    @pytest.mark.parametrize("kid", [None, "", 7, {}], ids=repr)
    async def test_a_malformed_kid_counts_as_absent(self, world: World, kid: Any) -> None:
        token = sign({"alg": "RS256", "kid": kid, "typ": "logout+jwt"}, self.claims_of(world), world.op.key)
        assert (await world.send_logout(token)).status_code == 200

    @staticmethod
    def claims_of(world: World) -> dict[str, Any]:
        payload = world.op.logout_token().split(".")[1]
        claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims

    async def test_an_encrypted_token_is_reported_as_such_and_costs_no_call(self, world: World) -> None:
        calls = len(world.op.calls)
        token = f"{b64_json({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.eA.eA.eA.eA"
        assert_refused(await world.send_logout(token))
        assert world.reasons("logout.rejected") == ["encrypted"]
        assert len(world.op.calls) == calls

    @pytest.mark.parametrize("typ", ["JWT", "jwt", "logout+jwt", "application/logout+jwt"])
    async def test_the_general_typ_is_accepted_only_when_configured(self, typ: str) -> None:
        strict = World()
        await strict.login()
        expected = 400 if typ.upper() == "JWT" else 200
        assert (await strict.send_logout(strict.op.logout_token({"typ": typ}))).status_code == expected
        world = World(provider={"logout_token_typ": "if_present"})
        await world.login()
        assert (await world.send_logout(world.op.logout_token({"typ": typ}))).status_code == 200
        assert await world.subject() is None

    @pytest.mark.attack("44")
    async def test_a_replayed_jti_is_refused(self, world: World) -> None:
        token = world.op.logout_token()
        assert (await world.send_logout(token)).status_code == 200
        world.clock.advance(seconds=1)
        await world.login()
        assert_refused(await world.send_logout(token))
        assert await world.subject() == "alice"
        # Stored for as long as the token could pass, whatever its own expiry.
        world.clock.advance(seconds=179)
        assert_refused(await world.send_logout(token))

    async def test_the_age_of_a_token_counts_in_parts_of_a_second(self, world: World) -> None:
        world.clock.advance(seconds=0.5)
        now = world.clock.now() // 1000
        assert_refused(await world.send_logout(world.op.logout_token(iat=now - 240)))
        assert (await world.send_logout(world.op.logout_token(iat=now - 239))).status_code == 200

    @pytest.mark.parametrize("claim", ["oid", "upn"])
    async def test_a_token_with_sub_alone_ends_nothing_where_another_claim_names_the_user(self, claim: str) -> None:
        """The subject of another user could equal that claim's value."""
        world = World(provider={"subject_claim": claim})
        world.op.claims = {claim: "alice"}
        await world.login()
        world.events.clear()
        assert_refused(await world.send_logout(world.op.logout_token(sid=GONE, sub="alice")))
        assert world.reasons("logout.rejected") == ["sid_missing"]
        assert await world.subject() == "alice"
        assert (await world.send_logout(world.op.logout_token(sub="bob"))).status_code == 200
        assert await world.subject() is None

    @pytest.mark.attack("44")
    async def test_a_replayed_jti_is_refused_at_the_largest_clock_tolerance(self) -> None:
        """A provider whose clock is five minutes ahead: its token is valid for the longest possible time."""
        world = World(provider={"clock_tolerance_seconds": 300})
        await world.login()
        now = world.clock.now() // 1000
        token = world.op.logout_token(iat=now + 300, exp=now + 3600)
        assert (await world.send_logout(token)).status_code == 200
        world.clock.advance(seconds=779)
        await world.login()
        assert_refused(await world.send_logout(token))
        assert await world.subject() == "alice"

    @pytest.mark.attack("45")
    async def test_an_unknown_sid_is_accepted(self, world: World) -> None:
        assert (await world.send_logout(world.op.logout_token(sid="unknown"))).status_code == 200
        assert await world.subject() == "alice"

    @pytest.mark.attack("45")
    async def test_the_same_sid_of_another_issuer_ends_nothing(self, world: World) -> None:
        await world.sessions.sessions.end_op_session("https://other.example", "op-session-1")
        assert await world.subject() == "alice"

    @pytest.mark.attack("45")
    async def test_sub_alone_ends_all_sessions_of_the_user(self, world: World) -> None:
        second, bob = world.new_browser(), world.new_browser()
        world.op.sid = "op-session-2"
        await world.login(second)
        world.op.subject = "bob"
        await world.login(bob)
        assert (await world.send_logout(world.op.logout_token(sid=GONE, sub="alice"))).status_code == 200
        assert [await world.subject(each) for each in (world.browser, second, bob)] == [None, None, "bob"]

    @pytest.mark.attack("45")
    async def test_sid_and_sub_end_only_that_session(self, world: World) -> None:
        second = world.new_browser()
        world.op.sid = "op-session-2"
        await world.login(second)
        assert (await world.send_logout(world.op.logout_token(sub="alice"))).status_code == 200
        assert [await world.subject(each) for each in (world.browser, second)] == ["alice", None]

    @pytest.mark.attack("45")
    async def test_sid_and_sub_end_also_the_users_sessions_without_a_sid(self, world: World) -> None:
        browsers = [world.new_browser() for _ in range(4)]
        for browser, subject, sid in zip(browsers, ("alice", "alice", "alice", "bob"), (None, "", "other", GONE), strict=True):
            world.op.subject, world.op.claims = subject, {"sid": sid}
            await world.login(browser)
        token = world.op.logout_token(sub="alice")
        assert (await world.send_logout(token)).status_code == 200
        assert [await world.subject(each) for each in browsers] == [None, None, "alice", "bob"]
        assert await world.subject() is None

    @pytest.mark.attack("42")
    async def test_a_login_without_sid_in_progress_does_not_survive_the_logout(self, world: World) -> None:
        started = await world.start(other := world.new_browser())
        assert (await world.send_logout(world.op.logout_token(sub="alice"))).status_code == 200
        world.op.claims = {"sid": GONE}
        assert (await world.come_back(world.op.authorize(started), other)).status_code == 400
        assert world.reasons() == ["ended_by_provider"]
        # Another user's login, and one that starts afterwards, continue.
        world.op.subject = "bob"
        assert (await world.login(other)).status_code == 303

    async def test_without_a_sub_sessions_without_a_sid_are_kept(self, world: World) -> None:
        world.op.claims = {"sid": GONE}
        await world.login(other := world.new_browser())
        assert (await world.send_logout(world.op.logout_token())).status_code == 200
        assert [await world.subject(each) for each in (world.browser, other)] == [None, "alice"]

    @pytest.mark.attack("46")
    async def test_malformed_bodies_are_refused(self, world: World) -> None:
        token = world.op.logout_token()
        form = {"content-type": "application/x-www-form-urlencoded"}
        requests: list[dict[str, Any]] = [
            {"json": {"logout_token": token}},
            {"content": f"logout_token={token}"},
            {"content": f"logout_token={token}", "headers": {"content-type": "text/plain"}},
            {"files": {"logout_token": token}},
            {"data": {"logout_token": "x" * 1_000_000}},
            {"content": f"logout_token={token}&logout_token={token}", "headers": form},
            {"content": "", "headers": form},
            {"content": "other=1", "headers": form},
            {"content": b"logout_token=\xff\xfe", "headers": form},
            {"content": "logout_token=%ff", "headers": form},
            {"content": "&".join(["a=1"] * 100), "headers": form},
            {"params": {"logout_token": token}},
        ]
        async with world.new_browser() as provider:
            for request in requests:
                assert_refused(await provider.post("/auth/backchannel-logout", **request))
            by_get = await provider.get("/auth/backchannel-logout", params={"logout_token": token})
        assert (by_get.status_code, by_get.headers["cache-control"]) == (405, "no-store")
        assert await world.subject() == "alice"

    @pytest.mark.attack("46")
    async def test_an_endless_body_is_not_read_to_its_end(self, world: World) -> None:
        chunks = iter([b"logout_token="] + [b"x" * 10_000] * 1000)
        form = {"content-type": "application/x-www-form-urlencoded", "transfer-encoding": "chunked"}
        status = await world.raw_status("/auth/backchannel-logout", b"", form, method="POST", body=chunks)
        assert status == 400
        assert len(list(chunks)) > 900

    async def test_browser_cookies_are_neither_read_nor_set(self, world: World) -> None:
        response = await world.browser.post("/auth/backchannel-logout", data={"logout_token": world.op.logout_token()})
        assert response.status_code == 200
        assert "set-cookie" not in response.headers

    async def test_other_parameters_and_a_charset_are_accepted(self, world: World) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded;charset=UTF-8", "sec-fetch-site": "cross-site"}
        content = f"foo=bar&logout_token={world.op.logout_token()}"
        async with world.new_browser() as provider:
            response = await provider.post("/auth/backchannel-logout", content=content, headers=headers)
        assert response.status_code == 200

    async def test_rejections_reveal_no_secret(self, world: World) -> None:
        token = world.op.logout_token(aud="other")
        response = await world.send_logout(token)
        assert token not in response.text + repr(world.events)

    async def test_a_forged_claim_is_refused_before_keys_are_fetched(self, world: World) -> None:
        fetched = world.op.count("/jwks")
        await world.send_logout(sign({"alg": "RS256", "kid": "zz", "typ": "logout+jwt"}, {"iss": ISSUER}, OTHER_RSA_KEY))
        assert world.op.count("/jwks") == fetched


class TestFromTheProviderInTheFront:
    @pytest.mark.attack("oidcc-client-test-rp-frontchannel-rpinitlogout")
    async def test_the_session_of_iss_and_sid_ends(self, world: World) -> None:
        async with world.new_browser() as frame:
            response = await frame.get("/auth/frontchannel-logout", params={"iss": ISSUER, "sid": "op-session-1"})
        assert response.status_code == 200
        assert "no-store" in response.headers["cache-control"]
        assert response.headers["content-security-policy"] == f"default-src 'none'; frame-ancestors {ISSUER}"
        assert await world.subject() is None
        assert world.reasons("logout.frontchannel") == ["sid"]

    @pytest.mark.parametrize(
        "params",
        [
            {"iss": "https://evil.example", "sid": "op-session-1"},
            {"iss": f"{ISSUER}/", "sid": "op-session-1"},
            {"sid": "op-session-1"},
            {"iss": ISSUER},
            {"iss": ISSUER, "sid": ""},
            {},
        ],
    )
    async def test_other_requests_end_nothing(self, world: World, params: dict[str, str]) -> None:
        response = await world.browser.get("/auth/frontchannel-logout", params=params)
        assert response.status_code == 400
        assert await world.subject() == "alice"

    @pytest.mark.parametrize("by", ["frame", "token"])
    async def test_a_long_sid_is_accepted(self, by: str) -> None:
        world = World()
        world.op.sid = "s" * 2048
        await world.login()
        if by == "frame":
            params = {"iss": ISSUER, "sid": world.op.sid}
            assert (await world.new_browser().get("/auth/frontchannel-logout", params=params)).status_code == 200
        else:
            assert (await world.send_logout(world.op.logout_token(sub=GONE))).status_code == 200
        assert await world.subject() is None

    async def test_an_unknown_sid_stores_nothing(self, world: World) -> None:
        before = len(vars(world.sessions.store.inner).get("_claims", ()))
        for number in range(20):
            params = {"iss": ISSUER, "sid": f"unknown-{number}"}
            assert (await world.browser.get("/auth/frontchannel-logout", params=params)).status_code == 200
        assert world.reasons("logout.frontchannel") == ["no_session"] * 20
        assert len(vars(world.sessions.store.inner).get("_claims", ())) == before
        assert await world.subject() == "alice"


BROWSER = {
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "sec-fetch-site": "same-origin",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
}


class TestHowTheBrowserLeaves:
    async def test_a_program_gets_the_logout_url_as_json(self) -> None:
        world = World()
        await world.login()
        headers = {"sec-fetch-site": "same-origin", "accept": "application/json"}
        response = await world.browser.post("/auth/logout", headers=headers)
        assert response.status_code == 200
        assert response.json()["logout_url"].startswith(f"{ISSUER}/end?")
        assert "location" not in response.headers
        assert await world.subject() is None
        again = await world.browser.post("/auth/logout", headers=headers)
        assert (again.status_code, again.json()) == (200, {"logout_url": None})

    async def test_a_form_in_a_browser_gets_a_page_that_redirects(self) -> None:
        """`form-action` of the page with the form applies to all redirects, also those from the provider to other sites."""
        world = World()
        await world.login()
        response = await world.browser.post("/auth/logout", headers=BROWSER)
        assert response.status_code == 200
        assert f'<meta http-equiv="refresh" content="0;url={ISSUER}/end?' in response.text
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert response.headers["clear-site-data"]
        assert "no-store" in response.headers["cache-control"]

    async def test_a_form_that_needs_a_login_gets_a_redirecting_page_too(self) -> None:
        world = World()
        refused = await world.browser.get("/auth/login?next=/read&page=1", headers=BROWSER)
        assert refused.status_code == 200
        assert f"0;url={ISSUER}/authorize?" in refused.text
        plain = await world.browser.get("/auth/login?next=/read&page=1", headers={**BROWSER, "accept": "text/html"})
        assert plain.status_code == 303
