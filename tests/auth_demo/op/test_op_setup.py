"""Refusal of unsafe addresses and unusable settings; discovery, keys and bounded memory."""

import subprocess
import sys
from typing import Any

import pytest

from auth_demo.op import (
    DEMO_ACCOUNTS,
    OpSettings,
    RegisteredClient,
    UnsafeProviderError,
    create_op,
    refuse_unsafe,
)
from auth_demo.op.loopback import is_loopback
from auth_demo.op.state.expiring import ExpiringMap

CALLBACK = "http://localhost:8000/auth/callback"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback_in_development_is_accepted(host: str) -> None:
    refuse_unsafe("development", host)
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "example.org", "localhost.evil.org", "127.1"])
def test_other_addresses_are_refused(host: str) -> None:
    with pytest.raises(UnsafeProviderError, match="loopback"):
        refuse_unsafe("development", host)


@pytest.mark.parametrize("app_env", ["production", " Production ", "PROD"])
def test_production_is_refused(app_env: str) -> None:
    with pytest.raises(UnsafeProviderError, match="APP_ENV"):
        refuse_unsafe(app_env, "127.0.0.1")


def test_create_op_refuses_production_and_public_issuer(settings: OpSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsafeProviderError):
        create_op(OpSettings(issuer="https://op.example.org", clients=()))
    monkeypatch.setenv("APP_ENV", "production")
    with pytest.raises(UnsafeProviderError):
        create_op(settings)


@pytest.mark.parametrize(
    "issuer",
    ["", "127.0.0.1:9000", "ftp://127.0.0.1", "http://127.0.0.1/", "http://127.0.0.1/a", "http://127.0.0.1?a", "http://[x"],
)
def test_bad_issuer_is_refused(issuer: str) -> None:
    with pytest.raises(ValueError, match=r"issuer|URI"):
        OpSettings(issuer=issuer, clients=())


@pytest.mark.parametrize(
    "uri",
    [
        "/relative",
        "http://example.org/cb",
        "https://u:p@example.org/cb",
        "https://example.org/*",
        "https://example.org/#f",
        "javascript:alert(1)",
        "https://example.org/a b",
        "https://example.org:99999/",
        "https://example.org/;script-src",
    ],
)
def test_unsafe_registered_uri_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="URI"):
        RegisteredClient(client_id="a", client_secret="s", redirect_uris=(uri,))


@pytest.mark.parametrize(
    "fields",
    [
        {"client_id": ""},
        {"client_secret": None},
        {"token_endpoint_auth_method": "none"},
        {"redirect_uris": ()},
    ],
)
def test_unusable_client_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="client"):
        RegisteredClient(**{"client_id": "a", "client_secret": "s", "redirect_uris": (CALLBACK,), **fields})


def test_duplicate_clients_and_users_are_refused() -> None:
    client = RegisteredClient(client_id="a", client_secret="s", redirect_uris=(CALLBACK,))
    with pytest.raises(ValueError, match="client_id"):
        OpSettings(issuer="http://localhost:1", clients=(client, client))
    with pytest.raises(ValueError, match="username"):
        OpSettings(issuer="http://localhost:1", clients=(client,), accounts=DEMO_ACCOUNTS[:1] * 2)


def test_secrets_are_not_in_the_repr(settings: OpSettings) -> None:
    assert "secret-of" not in repr(settings)
    assert "demo'" not in repr(settings.accounts)


def test_discovery_lists_what_is_supported(http: Any) -> None:
    document = http.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == "http://127.0.0.1:9000"
    assert document["response_types_supported"] == ["code"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["id_token_signing_alg_values_supported"] == ["ES256"]
    for name in (
        "authorization_response_iss_parameter_supported",
        "backchannel_logout_supported",
        "backchannel_logout_session_supported",
        "frontchannel_logout_supported",
        "frontchannel_logout_session_supported",
    ):
        assert document[name] is True
    for name, address in document.items():
        if name.endswith("_endpoint") or name == "jwks_uri":
            path = address.removeprefix("http://127.0.0.1:9000")
            assert http.get(path).status_code != 404, name


def test_jwks_is_public_es256_with_thumbprint_kid(http: Any) -> None:
    from joserfc.jwk import ECKey

    [key] = http.get("/jwks.json").json()["keys"]
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")
    assert "d" not in key
    assert key["kid"] == ECKey.import_key({name: key[name] for name in ("kty", "crv", "x", "y")}).thumbprint()


def test_rotation_signs_with_the_new_key_and_keeps_the_old(flow: Any, http: Any, op: Any) -> None:
    before = flow.tokens()
    old = op.keys.current_kid
    new = op.rotate_keys()
    assert [key["kid"] for key in http.get("/jwks.json").json()["keys"]] == [new, old]
    assert flow.verify(flow.refresh(before["refresh_token"]).json()["id_token"])[0]["kid"] == new
    flow.verify(before["id_token"])
    only = op.rotate_keys(keep_old=False)
    assert [key["kid"] for key in http.get("/jwks.json").json()["keys"]] == [only]
    for _ in range(20):
        op.rotate_keys()
    assert len(http.get("/jwks.json").json()["keys"]) == 5


def test_memory_is_bounded_and_expired_entries_are_deleted(clock: Any) -> None:
    entries = ExpiringMap[int](clock, lifetime=10, capacity=3)
    for number in range(5):
        entries.put(str(number), number)
    assert list(entries.values()) == [2, 3, 4]
    clock.advance(9)
    entries.put("2", 22)
    clock.advance(1)
    assert entries.get("3") is None
    assert list(entries.values()) == [22]
    assert entries.pop("2") == 22
    assert len(entries) == 0


def test_import_prints_nothing_and_loads_no_other_package() -> None:
    program = (
        "import sys; import auth_demo.op; "
        "bad = [n for n in sys.modules if n.split('.')[0] in {'session_core', 'app'} or n.startswith('authlib.jose')]; "
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_home_page_shows_the_signed_in_user(flow: Any, http: Any) -> None:
    assert "You are not signed in" in http.get("/").text
    flow.tokens()
    page = http.get("/").text
    assert "Alice" in page
    assert "Reference application" in page


def test_claims_can_be_put_into_the_id_token(settings: OpSettings) -> None:
    from dataclasses import replace

    from auth_demo.op import EmbeddedOp

    op = EmbeddedOp(replace(settings, claims_in_id_token=True), lambda: 1.0)
    _, session = op.sessions.begin("alice", acr="urn:demo:acr:1", amr=("user",), previous=None)
    grant = op.grants.open_grant(session, client_id="app", scope="openid email", acr=session.acr)
    token = op.id_tokens.issue(grant, DEMO_ACCOUNTS[0], access_token="a", nonce=None)
    claims = op.id_tokens.read_hint(token)
    assert claims is not None
    assert claims["email"] == "alice@example.org"
    assert "name" not in claims
