"""Refresh rotation, reuse detection, client authentication and revocation."""

from typing import Any

import pytest

SECRET = "a-secret-of-the-reference-application"


def test_refresh_rotates_and_keeps_the_login(flow: Any, clock: Any) -> None:
    first = flow.tokens()
    began = int(clock())
    clock.advance(300)
    assert flow.userinfo(first["access_token"]).status_code == 401
    second = flow.refresh(first["refresh_token"])
    assert second.headers["cache-control"] == "no-store"
    tokens = second.json()
    assert tokens["refresh_token"] != first["refresh_token"]
    assert flow.userinfo(tokens["access_token"]).status_code == 200
    _, before = flow.verify(first["id_token"])
    _, after = flow.verify(tokens["id_token"])
    assert {name: after[name] for name in ("iss", "sub", "aud", "sid")} == {
        name: before[name] for name in ("iss", "sub", "aud", "sid")
    }
    assert after["auth_time"] == began
    assert after["iat"] == began + 300
    assert "nonce" not in after


def test_refresh_reuse_revokes_the_family(flow: Any) -> None:
    first = flow.tokens()
    second = flow.refresh(first["refresh_token"]).json()
    assert flow.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    assert flow.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"
    assert flow.userinfo(second["access_token"]).status_code == 401


def test_refresh_token_reuse_by_another_client_ends_no_grant(flow: Any) -> None:
    first = flow.tokens()
    second = flow.refresh(first["refresh_token"]).json()
    stolen = flow.refresh(first["refresh_token"], auth=None, client_id="public")
    assert stolen.json()["error"] == "invalid_grant"
    assert flow.refresh(second["refresh_token"]).status_code == 200


def test_refresh_tokens_have_an_absolute_lifetime_across_rotations(flow: Any, clock: Any) -> None:
    tokens = flow.tokens()
    for _ in range(3):
        clock.advance(9 * 24 * 3600)
        tokens = flow.refresh(tokens["refresh_token"]).json()
    clock.advance(3 * 24 * 3600)
    assert flow.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_refresh_may_narrow_scope_but_not_widen(flow: Any) -> None:
    tokens = flow.tokens(scope="openid email")
    assert flow.refresh(tokens["refresh_token"], scope="openid profile").json()["error"] == "invalid_scope"
    narrowed = flow.refresh(tokens["refresh_token"], scope="openid").json()
    assert flow.userinfo(narrowed["access_token"]).json() == {"sub": "alice"}
    assert flow.refresh(narrowed["refresh_token"]).json()["scope"] == "openid email"


def test_refresh_without_openid_gives_no_id_token(flow: Any) -> None:
    narrowed = flow.refresh(flow.tokens()["refresh_token"], scope="email").json()
    assert "id_token" not in narrowed
    assert flow.userinfo(narrowed["access_token"]).status_code == 403


def test_a_posted_secret_and_a_public_client_are_accepted(flow: Any) -> None:
    code = flow.code(client_id="post")
    answer = flow.redeem(code, auth=None, client_id="post", client_secret="another-secret")
    assert answer.status_code == 200
    code = flow.code(client_id="public")
    assert flow.redeem(code, auth=None, client_id="public").status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"auth": ("app", "wrong")},
        {"auth": ("app", "")},
        {"auth": ("unknown", SECRET)},
        {"auth": None},
        {"auth": None, "client_id": "app"},
        {"auth": None, "client_id": "app", "client_secret": SECRET},
        {"auth": None, "client_id": "post", "client_secret": "wrong"},
        {"auth": ("post", "another-secret")},
        {"auth": None, "client_id": "public", "client_secret": "anything"},
    ],
)
def test_wrong_client_credentials_are_refused(flow: Any, changes: Any) -> None:
    code = flow.code()
    answer = flow.redeem(code, **changes)
    assert answer.json()["error"] == "invalid_client"
    assert answer.status_code in {400, 401}
    if changes.get("auth"):
        assert answer.headers["www-authenticate"].startswith("Basic")
    assert flow.redeem(code).status_code == 200, "a failed authentication must not spend the code"


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic ü", "Basic YXBw", "Basic //79Og==", "Digest x"])
def test_unreadable_authorization_header_is_invalid_client(flow: Any, http: Any, header: str) -> None:
    form = {"grant_type": "authorization_code", "code": "x"}
    answer = http.post("/token", data=form, headers={"Authorization": header.encode("latin-1")})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_two_authentication_methods_at_once_are_refused(flow: Any) -> None:
    assert flow.redeem("x", client_secret=SECRET).json()["error"] == "invalid_request"
    assert flow.redeem("x", client_id="post").json()["error"] == "invalid_request"


@pytest.mark.parametrize("grant_type", ["password", "client_credentials", "implicit", '"\\ü', ""])
def test_other_grant_types_are_refused(flow: Any, grant_type: str) -> None:
    assert flow.redeem("x", grant_type=grant_type).json()["error"] == "unsupported_grant_type"


def test_revoking_a_refresh_token_ends_the_family(flow: Any, http: Any) -> None:
    tokens = flow.tokens()
    form = {"token": tokens["refresh_token"], "token_type_hint": "nonsense"}
    assert http.post("/revoke", data=form, auth=("app", SECRET)).status_code == 200
    assert flow.userinfo(tokens["access_token"]).status_code == 401
    assert flow.refresh(tokens["refresh_token"]).status_code == 400


def test_revoking_an_access_token_leaves_the_refresh_token(flow: Any, http: Any) -> None:
    tokens = flow.tokens()
    assert http.post("/revoke", data={"token": tokens["access_token"]}, auth=("app", SECRET)).status_code == 200
    assert flow.userinfo(tokens["access_token"]).status_code == 401
    assert flow.refresh(tokens["refresh_token"]).status_code == 200


def test_revocation_needs_the_client_of_the_token(flow: Any, http: Any) -> None:
    tokens = flow.tokens()
    form = {"token": tokens["access_token"]}
    assert http.post("/revoke", data=form, auth=("app", "wrong")).status_code == 401
    assert http.post("/revoke", data={**form, "client_id": "public"}).status_code == 400
    assert http.post("/revoke", data={"token": "unknown"}, auth=("app", SECRET)).status_code == 200
    assert http.post("/revoke", data={"x": "y"}, auth=("app", SECRET)).status_code == 400
    assert flow.userinfo(tokens["access_token"]).status_code == 200


def test_secrets_stay_out_of_logs_and_reprs(flow: Any, op: Any, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("auth_demo", "authlib", "litestar"):
        caplog.set_level("DEBUG", logger=name)
    page = flow.authorize()
    reply = flow.submit(page, username="alice", password="demo")
    code = flow.reply(reply)["code"]
    tokens = flow.redeem(code).json()
    flow.refresh(tokens["refresh_token"])
    written = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(("auth_demo", "authlib")))
    assert "signed in alice" in written
    cookie = flow.http.cookies["op_session"]
    for secret in (code, tokens["access_token"], tokens["refresh_token"], tokens["id_token"], SECRET, cookie):
        assert secret not in written
        assert secret not in repr(op.settings)
        assert secret not in repr(op.sessions_of("alice"))
