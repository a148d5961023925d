"""The OpenID Foundation's relying-party test modules, by name, against the hostile provider."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlsplit

import httpx
import pytest

from tests.security.conftest import StartSite
from tests.security.rejection import assert_all_rejected
from tests.security.site import Site
from tests.support.hostile_op.http_server import MARK
from tests.support.hostile_op.logout import deliver, logout_token
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.provider import CONFIGURATION, HostileOp
from tests.support.hostile_op.signing import GONE, by_secret, compact, signing_key, unsigned

pytestmark = pytest.mark.anyio

OTHER = signing_key("RS256", 2)


def module(name: str, *values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.attack(f"oidcc-client-test{name and '-'}{name}"), id=name or "happy-path")


REJECTED = [
    module("invalid-iss", Misbehaviour(claims={"iss": f"https://{MARK}.example"}), "iss_mismatch"),
    module("missing-sub", Misbehaviour(claims={"sub": GONE}), "sub_missing"),
    module("invalid-aud", Misbehaviour(claims={"aud": MARK}), "aud_mismatch"),
    module("missing-aud", Misbehaviour(claims={"aud": GONE}), "aud_missing"),
    module("missing-iat", Misbehaviour(claims={"iat": GONE}), "iat_missing"),
    module("nonce-invalid", Misbehaviour(claims={"nonce": MARK}), "nonce_mismatch"),
    module("userinfo-invalid-sub", Misbehaviour(userinfo={"sub": MARK}), "userinfo_sub_mismatch"),
    module("invalid-sig-rs256", Misbehaviour(key=OTHER), "bad_signature"),
    module("invalid-sig-hs256", Misbehaviour(forge=by_secret(b"x" * 32)), "alg_not_allowed"),
    module("idtoken-sig-none", Misbehaviour(forge=unsigned), "token_form"),
]


@pytest.mark.parametrize(("misbehaviour", "reason"), REJECTED)
async def test_a_module_that_must_be_rejected_is_rejected(site: Site, misbehaviour: Misbehaviour, reason: str) -> None:
    await assert_all_rejected(site, misbehaviour, reason)


@pytest.mark.attack("oidcc-client-test-invalid-sig-es256")
async def test_an_es256_signature_of_another_key_or_of_zeros_is_rejected(site: Site) -> None:
    key = signing_key("ES256")
    site.op.rotate(key)
    zeros = Misbehaviour(forge=lambda header, claims: compact(header, claims, lambda _: bytes(64)))
    for misbehaviour in (Misbehaviour(key=signing_key("ES256", 2)), zeros):
        await assert_all_rejected(site, misbehaviour, "bad_signature", status=400)
    assert (await site.login(site.browser())).status == 200


def happy(op: HostileOp) -> None:
    del op


def rs256_only(op: HostileOp) -> None:
    op.metadata = {"id_token_signing_alg_values_supported": ["RS256"]}


def no_kid(op: HostileOp) -> None:
    op.rotate(signing_key("RS256", 1, kid=None))


def no_kid_of_several(op: HostileOp) -> None:
    op.rotate(signing_key("RS256", 1, kid=None), OTHER, signing_key("ES256", kid="e"))
    op.jwks.reverse()


def bad_keys(op: HostileOp) -> None:
    op.jwks[:0] = [None, 7, [], {}, {"kty": "RSA"}, {"kty": "AKP", "alg": "ML-DSA-65", "pub": "x"}, {"kty": "EC", "crv": "P-1"}]


PASSED = [
    module("", happy),
    module("idtoken-sig-rs256", rs256_only),
    module("kid-absent-single-jwks", no_kid),
    module("kid-absent-multiple-jwks", no_kid_of_several),
    module("ignores-unparseable-key-in-jwks", bad_keys),
]


@pytest.mark.parametrize("prepare", PASSED)
async def test_a_module_that_must_pass_passes(start_site: StartSite, op: HostileOp, prepare: Callable[[HostileOp], None]) -> None:
    prepare(op)
    async with start_site(op=op) as site:
        browser = site.browser()
        assert (await site.login(browser)).status == 200, site.reasons()
        assert await site.who(browser) == "alice"
        assert site.reasons() == []


@pytest.mark.attack("oidcc-client-test-scope-userinfo-claims")
async def test_claims_come_from_userinfo(site: Site) -> None:
    browser = site.browser()
    await site.login(browser, Misbehaviour(userinfo={"email": "alice@userinfo.example", "name": "A. Lice"}))
    assert "email" in site.op.last("/authorize").query["scope"].split()
    me = (await browser.tab(f"{site.url}/").fetch("/api/me")).json()
    assert (me["email"], me["name"]) == ("alice@userinfo.example", "A. Lice")


@pytest.mark.attack("oidcc-client-test-client-secret-basic")
async def test_the_client_secret_is_sent_form_encoded_in_the_header(site: Site) -> None:
    await site.login(site.browser())
    call = site.op.last("/token")
    name, _, secret = base64.b64decode(call.headers["authorization"].removeprefix("Basic ")).decode().partition(":")
    assert (name, secret) == ("app-under-test", quote_plus("client-secret:with%odd+chars-0123456789"))
    assert not {"client_id", "client_secret"} & {*call.form, *call.query}


@pytest.mark.attack("oidcc-client-test-userinfo-signed")
async def test_signed_userinfo_is_accepted(site: Site) -> None:
    browser = site.browser()
    key = site.op.key
    good = Misbehaviour(signed_userinfo=lambda header, claims: compact(header, {**claims, "name": "Signed"}, key.sign))
    await site.login(browser, good)
    assert (await browser.tab(f"{site.url}/").fetch("/api/me")).json()["name"] == "Signed"


@pytest.mark.attack("oidcc-client-test-mtls-endpoint-aliases")
async def test_mtls_endpoint_aliases_are_not_used(site: Site) -> None:
    await site.login(site.browser())
    assert site.op.count("/mtls") == 0
    assert site.op.count("/token") == 1


@pytest.mark.attack("oidcc-client-test-discovery-openid-config")
@pytest.mark.attack("oidcc-client-test-discovery-jwks-uri-keys")
async def test_endpoints_and_keys_come_from_discovery(start_site: StartSite, op: HostileOp) -> None:
    async with start_site(op=op) as site:
        for _ in range(3):
            assert (await site.login(site.browser())).status == 200
    assert (op.count(CONFIGURATION), op.count("/jwks"), op.count("/token")) == (1, 1, 3)


@pytest.mark.attack("oidcc-client-test-discovery-issuer-mismatch")
async def test_metadata_of_another_issuer_stops_the_login_before_the_redirect(start_site: StartSite, op: HostileOp) -> None:
    op.metadata = {"issuer": f"https://{MARK}.example"}
    async with start_site(op=op) as site:
        await assert_all_rejected(site, Misbehaviour(), "discovery_issuer_mismatch", status=503)
    assert (op.count("/authorize"), op.count("/jwks"), op.count("/token")) == (0, 0, 0)


@pytest.mark.attack("oidcc-client-test-signing-key-rotation")
async def test_a_login_right_after_a_key_rotation_succeeds(site: Site) -> None:
    for number in range(1, 4):
        assert (await site.login(site.browser())).status == 200
        site.op.rotate(signing_key("RS256", number, kid=f"rotated-{number}"))
    browser = site.browser()
    assert (await site.login(browser)).status == 200
    assert await site.who(browser) == "alice"


@pytest.mark.attack("oidcc-client-test-signing-key-rotation-just-before-signing")
@pytest.mark.parametrize("kid", ["new", "key-1", None], ids=["new kid", "the same kid", "no kid"])
async def test_a_login_with_a_key_rotation_in_between_succeeds(site: Site, kid: str | None) -> None:
    await site.login(site.browser())
    browser = site.browser()
    address = await site.response_address(browser)
    site.op.rotate(signing_key("RS256", 2, kid=kid))
    assert (await site.come_back(browser, address)).status == 200
    assert await site.who(browser) == "alice"


BACKCHANNEL = [
    module("rp-backchannel-rpinitlogout-alg-none", {"forge": unsigned}, "token_form"),
    module("rp-backchannel-rpinitlogout-no-event", {"claims": {"events": GONE}}, "events_missing"),
    module("rp-backchannel-rpinitlogout-with-nonce", {"claims": {"nonce": MARK}}, "nonce_present"),
    module("rp-backchannel-rpinitlogout-wrong-alg", {"forge": by_secret(b"x" * 32)}, "alg_not_allowed"),
    module("rp-backchannel-rpinitlogout-wrong-aud", {"claims": {"aud": MARK}}, "aud_mismatch"),
    module("rp-backchannel-rpinitlogout-wrong-event", {"claims": {"events": {f"urn:{MARK}": {}}}}, "events_missing"),
    module("rp-backchannel-rpinitlogout-wrong-iss", {"claims": {"iss": f"https://{MARK}"}}, "iss_mismatch"),
]


@pytest.mark.parametrize(("changes", "reason"), BACKCHANNEL)
async def test_a_bad_logout_token_is_a_400_and_ends_no_session(site: Site, changes: dict[str, Any], reason: str) -> None:
    browser = site.browser()
    await site.login(browser)
    before, lines = await site.stored(), len(site.log.lines)
    response = await deliver(site.op, logout_token(site.op, **changes))
    assert response.status_code == 400
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"].startswith("application/problem+json")
    assert "set-cookie" not in response.headers
    assert site.reasons("logout.rejected") == [reason]
    assert await site.stored() == before
    assert await site.who(browser) == "alice"
    said = response.text + repr(site.events) + "\n".join(site.log.lines[lines:])
    assert MARK not in said
    assert not [secret for secret in site.op.secrets if len(secret) > 7 and secret in said]


@pytest.mark.attack("oidcc-client-test-rp-backchannel-rpinitlogout")
async def test_a_logout_at_the_provider_ends_the_local_sessions(site: Site) -> None:
    first, second, other = (site.browser() for _ in range(3))
    await site.login(first)
    await site.login(second)
    site.op.sid = "op-session-2"
    await site.login(other)
    response = await deliver(site.op, logout_token(site.op, claims={"sid": "op-session-1"}))
    assert (response.status_code, response.content) == (200, b"")
    assert [await site.who(each) for each in (first, second, other)] == [None, None, "alice"]


@pytest.mark.attack("oidcc-client-test-rp-frontchannel-rpinitlogout")
async def test_front_channel_logout_ends_the_session_without_its_cookie(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    site.op.frontchannel_uri = f"{site.url}/auth/frontchannel-logout"
    page = await browser.tab(f"{site.op.issuer}/end_session").frame(site.op.frontchannel_url())
    assert page.status == 200
    assert f"{site.cookie}=" not in browser.sent[-1].headers.get("cookie", "")
    assert f"frame-ancestors {site.op.issuer}" in page.headers["content-security-policy"]
    assert await site.who(browser) is None


@pytest.mark.attack("oidcc-client-test-rp-init-logout")
@pytest.mark.attack("oidcc-client-test-rp-init-logout-other-state")
@pytest.mark.attack("oidcc-client-test-rp-init-logout-no-state")
@pytest.mark.parametrize("state", [None, "state=other", ""], ids=["its state", "another state", "no state"])
async def test_a_logout_redirects_to_the_provider_and_back(site: Site, state: str | None) -> None:
    browser = site.browser()
    await site.login(browser)
    tab = browser.tab(f"{site.url}/")
    if state is None:
        page = await tab.submit("/auth/logout")
    else:
        browser.stop_at = f"{site.url}/?"
        sent_back = (await tab.submit("/auth/logout")).url
        browser.stop_at = None
        page = await tab.follow(f"{sent_back.partition('?')[0]}?{state}")
    assert (page.status, page.url.partition("?")[0]) == (200, f"{site.url}/")
    asked = site.op.last("/end_session").query
    assert (asked["post_logout_redirect_uri"], asked["client_id"]) == (f"{site.url}/", "app-under-test")
    assert asked["id_token_hint"].count(".") == 2
    assert asked["state"]
    assert await site.who(browser) is None
    assert await site.stored() == {}


@pytest.mark.attack("oidcc-client-test-3rd-party-init-login")
async def test_a_login_initiated_by_a_third_party_succeeds(site: Site) -> None:
    tab = site.browser().tab("https://portal.example/")
    inside = f"{site.url}/account"
    page = await tab.follow(f"{site.url}/auth/login?iss={site.op.issuer}&target_link_uri={inside}")
    assert (page.status, page.url) == (200, inside)
    for elsewhere in ("https://evil.example/account", f"{site.url}.evil.example/", f"{site.url}//evil.example"):
        browser = site.browser()
        page = await browser.tab("https://portal.example/").follow(
            f"{site.url}/auth/login?iss={site.op.issuer}&target_link_uri={elsewhere}"
        )
        assert urlsplit(page.url).path == "/"
        assert await site.who(browser) == "alice"
    before = site.op.count("/authorize")
    refused = await site.browser().tab("https://portal.example/").follow(f"{site.url}/auth/login?iss=https://{MARK}.example")
    assert refused.status == 400
    assert MARK not in refused.text
    assert site.op.count("/authorize") == before


@pytest.mark.attack("oidcc-client-test-refresh-token")
async def test_a_refreshed_token_is_used(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    tab = browser.tab(f"{site.url}/")
    for round_ in range(1, 4):
        site.clock.advance(seconds=300)
        assert (await tab.fetch("/api/userinfo")).json()["sub"] == "alice"
        refreshes = [call for call in site.op.calls if call.form.get("grant_type") == "refresh_token"]
        assert len(refreshes) == round_
    assert len({call.form["refresh_token"] for call in refreshes}) == 3
    bearers = [call.headers["authorization"] for call in site.op.calls if call.path == "/userinfo"]
    assert len(set(bearers)) == 4


REFRESHED = [
    module("refresh-token-invalid-issuer", {"iss": f"https://{MARK}.example"}, "refresh_iss_mismatch"),
    module("refresh-token-invalid-sub", {"sub": MARK}, "refresh_sub_mismatch"),
    module("refresh-token-invalid-aud", {"aud": MARK}, "refresh_aud_mismatch"),
]


@pytest.mark.attack("36")
@pytest.mark.parametrize(("claims", "reason"), REFRESHED)
async def test_a_refreshed_id_token_for_another_user_ends_the_session(site: Site, claims: dict[str, Any], reason: str) -> None:
    browser, carol = site.browser(), site.browser()
    await site.login(browser)
    await site.enter(carol, "carol")
    site.op.grants.all[-1].after = Misbehaviour(claims=claims)
    site.clock.advance(seconds=300)
    userinfo = site.op.count("/userinfo")
    page = await browser.tab(f"{site.url}/").fetch("/api/userinfo")
    assert page.status == 401
    assert MARK not in page.text + "\n".join(site.log.lines)
    assert site.op.count("/userinfo") == userinfo
    assert [await site.who(each) for each in (browser, carol)] == [None, "carol"]
    assert site.reasons() == [reason]


async def test_the_hostile_provider_enforces_pkce_single_use_and_client_authentication(site: Site) -> None:
    """Otherwise the tests above would prove nothing."""
    browser = site.browser()
    good = dict(parse_qsl(urlsplit(await site.response_address(browser)).query))
    form = {"grant_type": "authorization_code", "code": good["code"], "redirect_uri": site.callback, "code_verifier": "x" * 43}
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        refused = await client.post(f"{site.op.issuer}/token", data=form)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
        own = ("app-under-test", quote_plus("client-secret:with%odd+chars-0123456789"))
        for _ in range(2):
            refused = await client.post(f"{site.op.issuer}/token", data=form, auth=own)
            assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
