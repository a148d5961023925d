"""The authorization code flow: responses to a correct client, and refusals of slightly wrong requests."""

import base64
import hashlib
from typing import Any

import pytest

CALLBACK = "http://localhost:8000/auth/callback"


def test_code_flow_gives_verified_id_token_and_userinfo(flow: Any, clock: Any) -> None:
    reply = flow.reply(flow.sign_in("alice"))
    assert reply["state"] == "state-1"
    assert reply["iss"] == "http://127.0.0.1:9000"
    response = flow.redeem(reply["code"])
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    tokens = response.json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 300)
    assert min(len(reply["code"]), len(tokens["access_token"]), len(tokens["refresh_token"])) >= 43
    header, claims = flow.verify(tokens["id_token"])
    assert (header["alg"], header["typ"]) == ("ES256", "JWT")
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    now = int(clock())
    sid = claims.pop("sid")
    assert len(sid) >= 20
    assert claims == {
        "iss": "http://127.0.0.1:9000",
        "sub": "alice",
        "aud": "app",
        "iat": now,
        "exp": now + 300,
        "auth_time": now,
        "nonce": "nonce-1",
        "acr": "urn:demo:acr:1",
        "amr": ["user"],
        "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
    }
    assert flow.userinfo(tokens["access_token"]).json() == {
        "sub": "alice",
        "name": "Alice",
        "preferred_username": "alice",
        "email": "alice@example.org",
        "email_verified": True,
        "roles": ["user"],
    }


def test_userinfo_follows_scope_and_accepts_post(flow: Any, http: Any) -> None:
    token = flow.tokens("admin", scope="openid roles unknown-scope")["access_token"]
    answer = http.post("/userinfo", headers={"Authorization": f"Bearer {token}"})
    assert answer.json() == {"sub": "admin", "roles": ["user", "admin"]}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic YTpi"}])
def test_userinfo_without_a_valid_token_is_challenged(http: Any, headers: dict[str, str]) -> None:
    answer = http.get("/userinfo", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_userinfo_ignores_tokens_in_query_and_body(flow: Any, http: Any) -> None:
    token = flow.tokens()["access_token"]
    assert http.get("/userinfo", params={"access_token": token}).status_code == 401
    assert http.post("/userinfo", data={"access_token": token}).status_code == 401


def test_signed_in_user_is_not_prompted_again(flow: Any) -> None:
    flow.code("bob")
    assert "code" in flow.reply(flow.authorize(prompt="none"))


def test_authorize_by_post_redirects_like_get(flow: Any, http: Any) -> None:
    flow.code()
    moved = http.post("/authorize", data=flow.parameters)
    assert moved.status_code == 303
    assert "code" in flow.reply(http.get(moved.headers["location"]))


def test_form_post_page_carries_the_response(flow: Any) -> None:
    flow.code()
    page = flow.authorize(response_mode="form_post", state='"><script>')
    assert page.status_code == 200
    assert "location" not in page.headers
    fields = flow.hidden(page)
    assert set(fields) == {"code", "state", "iss"}
    assert fields["state"] == '"><script>'
    assert '"><script>' not in page.text
    policy = page.headers["content-security-policy"]
    assert "form-action 'self' http://localhost:8000;" in policy
    assert "script-src 'self'" in policy
    assert flow.redeem(fields["code"]).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge": None},
        {"code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"code_challenge": "short"},
    ],
)
@pytest.mark.parametrize("client_id", ["app", "post", "public"])
def test_pkce_missing_or_plain_is_refused_for_every_client(flow: Any, client_id: str, changes: Any) -> None:
    reply = flow.reply(flow.authorize(client_id=client_id, **changes))
    assert reply["error"] == "invalid_request"
    assert reply["state"] == "state-1"
    assert reply["iss"] == "http://127.0.0.1:9000"
    assert "code" not in reply


@pytest.mark.parametrize("verifier", [None, "x" * 43, "short", "ü" * 43])
def test_pkce_wrong_verifier_is_refused_and_consumes_the_code(flow: Any, verifier: str | None) -> None:
    code = flow.code()
    assert flow.redeem(code, code_verifier=verifier).status_code == 400
    assert flow.redeem(code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "redirect_uri",
    [
        None,
        "",
        CALLBACK + "/",
        CALLBACK + "?a=b",
        CALLBACK + "#f",
        CALLBACK.upper(),
        "http://LOCALHOST:8000/auth/callback",
        "http://localhost/auth/callback",
        "http://localhost:8001/auth/callback",
        "https://localhost:8000/auth/callback",
        "http://localhost:8000/auth/callback/../callback",
        "http://localhost:8000/auth/%63allback",
        "http://localhost:8000@evil.example/auth/callback",
        "http://evil.example/",
        "javascript:alert(1)",
    ],
)
def test_similar_redirect_uri_gives_a_local_error_page(flow: Any, redirect_uri: str | None) -> None:
    answer = flow.authorize(redirect_uri=redirect_uri)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "evil" not in answer.text


def test_unknown_client_gives_a_local_error_page(flow: Any) -> None:
    answer = flow.authorize(client_id="unknown")
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_type": '"\\ü'}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"scope": None}, "invalid_scope"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"request": "x.y.z"}, "request_not_supported"),
        ({"request_uri": "http://127.0.0.1/"}, "request_uri_not_supported"),
        ({"registration": "{}"}, "registration_not_supported"),
        ({"nonce": "n" * 600}, "invalid_request"),
    ],
)
def test_unsupported_request_is_reported_to_the_client(flow: Any, changes: Any, error: str) -> None:
    reply = flow.reply(flow.authorize(**changes))
    assert reply["error"] == error
    assert reply["state"] == "state-1"


def test_code_expires_after_a_minute(flow: Any, clock: Any) -> None:
    code = flow.code()
    clock.advance(60)
    assert flow.redeem(code).json()["error"] == "invalid_grant"


def test_code_is_bound_to_redirect_uri_and_client(flow: Any) -> None:
    assert flow.redeem(flow.code(), redirect_uri=CALLBACK + "/").json()["error"] == "invalid_grant"
    assert flow.redeem(flow.code(), redirect_uri=None).json()["error"] == "invalid_grant"
    code = flow.code()
    stolen = flow.redeem(code, auth=None, client_id="public")
    assert stolen.json()["error"] == "invalid_grant"
    assert flow.redeem(code).status_code == 200, "another client must not be able to spend the code"


def test_code_replay_revokes_the_issued_tokens(flow: Any) -> None:
    code = flow.code()
    tokens = flow.redeem(code).json()
    assert flow.userinfo(tokens["access_token"]).status_code == 200
    assert flow.redeem(code).json()["error"] == "invalid_grant"
    assert flow.userinfo(tokens["access_token"]).status_code == 401
    assert flow.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_late_code_replay_still_revokes_the_tokens(flow: Any, clock: Any) -> None:
    code = flow.code()
    tokens = flow.redeem(code).json()
    clock.advance(3600)
    flow.redeem(code)
    assert flow.refresh(tokens["refresh_token"]).status_code == 400
