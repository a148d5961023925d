"""Hostile tokens over real HTTP: each list is one requirement; each entry differs from a valid login in one respect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.security.conftest import StartSite
from tests.security.rejection import assert_all_rejected
from tests.security.site import Site
from tests.support.hostile_op.browser import Browser, Page
from tests.support.hostile_op.http_server import MARK
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.provider import HostileOp
from tests.support.hostile_op.signing import GONE, Claims, Forge, Header, b64, by_secret, compact, signing_key, unsigned

pytestmark = pytest.mark.anyio

US = "app-under-test"
NOW = 4_102_444_800
"""The fake clock's, in seconds."""
DAY = 86_400
OTHER = signing_key("RS256", 2)
EVENTS: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}


def claims(**changes: Any) -> Misbehaviour:
    return Misbehaviour(claims=changes)


def header(**changes: Any) -> Misbehaviour:
    return Misbehaviour(header=changes)


def answer(**changes: Any) -> Misbehaviour:
    return Misbehaviour(token_answer=changes)


def forged(make: Forge) -> Misbehaviour:
    return Misbehaviour(forge=make)


def honest(head: Header, said: Claims) -> str:
    return compact(head, said, signing_key().sign)


def damaged(change: Any) -> Misbehaviour:
    """A valid token, modified as text."""
    return forged(lambda head, said: change(honest(head, said)))


def flipped(token: str) -> str:
    at = token.rindex(".") + 20
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


def with_member_appended(member: str) -> Misbehaviour:
    return forged(lambda head, said: compact(head, json.dumps(said)[:-1] + f", {member}}}", signing_key().sign))


LINES: dict[str, list[tuple[Misbehaviour, str]]] = {
    "17": [
        (claims(nonce=MARK), "nonce_mismatch"),
        (claims(nonce=""), "nonce_mismatch"),
        (claims(nonce=GONE), "nonce_missing"),
        (claims(nonce=[MARK]), "nonce_missing"),
    ],
    "18": [
        (forged(unsigned), "token_form"),
        (forged(lambda head, said: compact({**head, "alg": "none"}, said, lambda _: b"x")), "alg_not_allowed"),
        (header(alg="None"), "alg_not_allowed"),
        (header(alg=GONE), "alg_not_allowed"),
        (header(alg=["RS256"]), "alg_not_allowed"),
    ],
    "20": [
        (Misbehaviour(key=OTHER, header={"jwk": OTHER.jwk()}), "bad_signature"),
        (Misbehaviour(key=OTHER, header={"x5c": ["MIIB"]}), "bad_signature"),
        (header(crit=["exp"], exp=1), "crit_header"),
        (header(crit=[]), "crit_header"),
        (header(b64=False, crit=["b64"]), "crit_header"),
    ],
    "21": [
        (claims(aud=MARK), "aud_mismatch"),
        (claims(aud=GONE), "aud_missing"),
        (claims(aud=[]), "aud_missing"),
        (claims(aud=[MARK], azp=US), "aud_mismatch"),
        (claims(aud={US: 1}), "aud_missing"),
        (claims(aud=US.upper()), "aud_mismatch"),
    ],
    "22": [
        (claims(aud=[US, MARK]), "azp_mismatch"),
        (claims(aud=[US, MARK], azp=MARK), "azp_mismatch"),
        (claims(azp=MARK), "azp_mismatch"),
    ],
    "23": [
        (claims(iss=f"https://{MARK}.example"), "iss_mismatch"),
        (claims(iss=GONE), "iss_mismatch"),
        (claims(iss=None), "iss_mismatch"),
    ],
    "24": [
        (claims(exp=NOW - 60), "expired"),
        (claims(exp=GONE), "exp_missing"),
        (claims(nbf=NOW + 61), "nbf_in_future"),
        (claims(iat=NOW + 61), "iat_in_future"),
        (claims(iat=GONE), "iat_missing"),
        (claims(iat=NOW - DAY), "iat_too_old"),
    ],
    "25": [
        (claims(exp=str(NOW + 300)), "exp_malformed"),
        (claims(exp=True), "exp_malformed"),
        (claims(iat=MARK), "iat_malformed"),
        (with_member_appended('"sub": "admin"'), "token_json"),
        (with_member_appended('"x": NaN'), "token_json"),
        (claims(sub=""), "sub_malformed"),
        (claims(sub="x" * 256), "sub_malformed"),
        (claims(sub=7), "sub_malformed"),
        (claims(sub=GONE), "sub_missing"),
    ],
    "26": [
        (header(typ="at+jwt"), "typ_header"),
        (header(typ="application/at+jwt"), "typ_header"),
        (header(typ="logout+jwt"), "typ_header"),
        (claims(events=EVENTS), "events_claim"),
    ],
    "27": [
        (damaged(lambda token: token.rpartition(".")[0] + "."), "token_form"),
        (damaged(lambda token: token.rpartition(".")[0]), "token_form"),
        (damaged(flipped), "bad_signature"),
        (damaged(lambda token: token.replace(token.split(".")[1], b64(b'{"sub": "admin"}'))), "bad_signature"),
        (Misbehaviour(key=OTHER), "bad_signature"),
        (Misbehaviour(key=OTHER, header={"kid": "unknown"}), "unknown_key"),
    ],
    "28": [
        (answer(id_token=GONE), "id_token_missing"),
        (answer(id_token=None), "id_token_missing"),
        (answer(token_type=GONE), "token_type"),
        (answer(token_type="DPoP"), "token_type"),
        (answer(token_type=MARK), "token_type"),
        (answer(access_token=GONE), "access_token_missing"),
        (answer(access_token=f"{MARK}\r\nx: y"), "token_malformed"),
    ],
    "29": [
        (Misbehaviour(userinfo={"sub": MARK}), "userinfo_sub_mismatch"),
        (Misbehaviour(userinfo={"sub": GONE}), "userinfo_sub_mismatch"),
        (Misbehaviour(userinfo={"sub": "Alice"}), "userinfo_sub_mismatch"),
    ],
    "30": [
        (claims(at_hash=b64(b"x" * 16)), "at_hash_mismatch"),
        (claims(at_hash="x"), "at_hash_mismatch"),
    ],
}


ALSO = {
    "18": ("asvs-9.1.2",),
    "21": ("asvs-9.2.3", "asvs-10.5.4"),
    "23": ("asvs-6.8.1",),
    "24": ("asvs-9.2.1",),
    "26": ("asvs-9.2.2",),
    "27": ("asvs-6.8.2", "asvs-9.1.1"),
}
"""Requirements that an entry proves in addition."""


@pytest.mark.parametrize(
    "line", [pytest.param(each, marks=pytest.mark.attack(each, *ALSO.get(each, ())), id=each) for each in LINES]
)
async def test_a_login_with_a_bad_token_is_rejected(site: Site, line: str) -> None:
    for misbehaviour, reason in LINES[line]:
        await assert_all_rejected(site, misbehaviour, reason)
    # The unmodified token passes, so each case above was rejected for its one difference.
    browser = site.browser()
    assert (await site.login(browser)).status == 200
    assert await site.who(browser) == "alice"


GOOD = {
    "the audience as a list": claims(aud=[US]),
    "another audience beside us": claims(aud=[US, "other"], azp=US),
    "a clock that is wrong by less than a minute": claims(exp=NOW - 59, iat=NOW + 59),
    "no at_hash": claims(at_hash=GONE),
    "a subject of 255 characters": Misbehaviour(claims={"sub": "x" * 255}, userinfo={"sub": "x" * 255}),
    "a typ in capitals": header(typ="JWT"),
    "a bearer in small letters": answer(token_type="bearer"),
    "optional claims that are malformed": claims(amr="pwd", acr=1, auth_time=MARK, sid=[], at_hash=None, azp="", nbf=MARK),
    "optional members that are malformed": answer(expires_in=-1, scope=["openid"], refresh_token={}, error=None),
}


async def test_a_valid_variation_is_accepted(site: Site) -> None:
    for name, misbehaviour in GOOD.items():
        browser = site.browser()
        assert (await site.login(browser, misbehaviour)).status == 200, (name, site.reasons())
        assert await site.who(browser) is not None, name


@pytest.mark.attack("15")
@pytest.mark.attack("asvs-11.5.1")
async def test_every_login_has_its_own_secret_verifier(site: Site) -> None:
    browser = site.browser()
    for _ in range(3):
        assert (await site.login(browser)).status == 200
    verifiers = [call.form["code_verifier"] for call in site.op.calls if call.path == "/token"]
    assert len(set(verifiers)) == 3
    assert all(len(verifier) >= 43 for verifier in verifiers)
    assert {call.query["code_challenge_method"] for call in site.op.calls if call.path == "/authorize"} == {"S256"}
    seen = "\n".join([*site.log.lines, *(str(request.url) for request in browser.sent), repr(site.events)])
    assert not any(verifier in seen for verifier in verifiers)
    for name in ("state", "nonce", "code_challenge"):
        assert len({call.query[name] for call in site.op.calls if call.path == "/authorize"}) == 3


@pytest.mark.attack("17")
@pytest.mark.attack("asvs-10.5.1")
async def test_a_nonce_of_an_earlier_login_is_rejected(site: Site) -> None:
    async def attempt(browser: Browser) -> Page:
        await site.response_address(browser)
        return await site.login(browser, claims(nonce=site.op.last("/authorize").query["nonce"]))

    await assert_all_rejected(site, attempt, "nonce_mismatch", status=400)


@pytest.mark.attack("19")
@pytest.mark.attack("asvs-9.1.2")
async def test_a_signature_with_a_public_value_as_secret_is_rejected(site: Site) -> None:
    published = b"published-symmetric-key-0123456789"
    site.op.jwks.append({"kty": "oct", "k": b64(published), "kid": "key-1", "alg": "HS256", "use": "sig"})
    for secret in (signing_key().public_pem(), published, b"", b"client-secret:with%odd+chars-0123456789"):
        await assert_all_rejected(site, forged(by_secret(secret)), "alg_not_allowed", status=400)


@pytest.mark.attack("20")
@pytest.mark.attack("asvs-9.1.3")
async def test_no_url_in_a_token_is_fetched(site: Site, op: HostileOp) -> None:
    async with HostileOp(op.now) as attacker:
        attacker.rotate(OTHER)
        for name in ("jku", "x5u"):
            pointing = Misbehaviour(key=OTHER, header={name: f"{attacker.issuer}/jwks"})
            await assert_all_rejected(site, pointing, "bad_signature", status=400)
        assert attacker.calls == []


@pytest.mark.attack("23")
async def test_the_issuer_of_metadata_must_match_the_issuer_of_tokens(site: Site) -> None:
    await assert_all_rejected(site, claims(iss=f"{site.op.issuer}/"), "iss_mismatch")


@pytest.mark.attack("23")
async def test_metadata_without_issuer_allows_no_login(start_site: StartSite, op: HostileOp) -> None:
    op.metadata = {"issuer": GONE}
    async with start_site(op=op) as site:
        await assert_all_rejected(site, Misbehaviour(), "discovery_malformed", status=503)
        assert op.count("/authorize") == 0


@pytest.mark.attack("29")
async def test_invalid_signed_userinfo_is_rejected(site: Site) -> None:
    def signed(key: Any, **changes: Any) -> Misbehaviour:
        return Misbehaviour(signed_userinfo=lambda head, said: compact(head, {**said, **changes}, key.sign))

    await assert_all_rejected(site, signed(OTHER), "userinfo_bad_signature")
    await assert_all_rejected(site, signed(signing_key(), aud=MARK), "aud_mismatch")
    await assert_all_rejected(site, signed(signing_key(), iss=f"https://{MARK}"), "iss_mismatch")
    await assert_all_rejected(site, signed(signing_key(), sub=MARK), "userinfo_sub_mismatch")
    await assert_all_rejected(site, Misbehaviour(signed_userinfo=unsigned), "token_form")
