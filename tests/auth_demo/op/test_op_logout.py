"""RP-initiated, back-channel and front-channel logout."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from litestar.testing import TestClient

from auth_demo.op import create_op, op_of

HOME = "http://localhost:8000/"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


def end(http: Any, **query: str) -> Any:
    return http.get("/end_session", params=query)


def test_logout_with_hint_ends_all_sessions_and_redirects_back(flow: Any, http: Any, op: Any) -> None:
    tokens = flow.tokens()
    answer = end(http, id_token_hint=tokens["id_token"], post_logout_redirect_uri=HOME, state="s&1")
    assert answer.status_code == 303
    assert answer.headers["location"] == HOME + "?state=s%261"
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert op.sessions_of("alice") == []
    assert flow.userinfo(tokens["access_token"]).status_code == 401
    assert flow.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert flow.reply(flow.authorize(prompt="none"))["error"] == "login_required"


def test_back_channel_logout_token_follows_the_specification(flow: Any, http: Any, back_channel: Any, clock: Any) -> None:
    tokens = flow.tokens()
    _, id_claims = flow.verify(tokens["id_token"])
    end(http, id_token_hint=tokens["id_token"], post_logout_redirect_uri=HOME)
    [(url, form)] = back_channel.requests
    assert url == "http://localhost:8000/auth/backchannel-logout"
    assert set(form) == {"logout_token"}
    header, claims = flow.verify(form["logout_token"])
    assert header["typ"] == "logout+jwt"
    assert header["alg"] == "ES256"
    assert len(claims.pop("jti")) >= 20
    assert claims == {
        "iss": "http://127.0.0.1:9000",
        "aud": "app",
        "iat": int(clock()),
        "exp": int(clock()) + 120,
        "sub": "alice",
        "sid": id_claims["sid"],
        "events": {EVENT: {}},
    }


def test_only_clients_of_the_session_are_notified(flow: Any, http: Any, back_channel: Any) -> None:
    hint = flow.tokens()["id_token"]
    code = flow.reply(flow.authorize(client_id="post"))["code"]
    end(http, id_token_hint=hint)
    assert [url for url, _ in back_channel.requests] == ["http://localhost:8000/auth/backchannel-logout"]
    late = flow.redeem(code, auth=None, client_id="post", client_secret="another-secret")
    assert late.json()["error"] == "invalid_grant", "a code from before the logout must not start a login"


def test_every_client_of_the_session_is_notified(flow: Any, http: Any, back_channel: Any) -> None:
    hint = flow.tokens()["id_token"]
    code = flow.reply(flow.authorize(client_id="post"))["code"]
    flow.redeem(code, auth=None, client_id="post", client_secret="another-secret")
    end(http, id_token_hint=hint)
    told = {url: flow.verify(form["logout_token"])[1]["aud"] for url, form in back_channel.requests}
    assert told == {
        "http://localhost:8000/auth/backchannel-logout": "app",
        "http://localhost:8001/backchannel": "post",
    }


def test_expired_hint_is_accepted(flow: Any, http: Any, clock: Any) -> None:
    hint = flow.tokens()["id_token"]
    clock.advance(3600)
    assert end(http, id_token_hint=hint, post_logout_redirect_uri=HOME).headers["location"] == HOME


def test_hint_signed_with_a_rotated_key_is_accepted(flow: Any, http: Any, op: Any) -> None:
    hint = flow.tokens()["id_token"]
    op.rotate_keys()
    assert end(http, id_token_hint=hint, post_logout_redirect_uri=HOME).status_code == 303


def test_cross_site_post_without_cookies_finds_the_session_by_hint(flow: Any, http: Any, op: Any) -> None:
    hint = flow.tokens()["id_token"]
    http.cookies.clear()
    answer = http.post("/end_session", data={"id_token_hint": hint, "post_logout_redirect_uri": HOME})
    assert answer.status_code == 303
    assert op.sessions_of("alice") == []


def test_logout_after_the_session_expired_still_revokes_tokens(flow: Any, http: Any, clock: Any) -> None:
    tokens = flow.tokens()
    clock.advance(13 * 3600)
    assert end(http, id_token_hint=tokens["id_token"], post_logout_redirect_uri=HOME).status_code == 303
    assert flow.refresh(tokens["refresh_token"]).status_code == 400


def test_offline_access_survives_logout(flow: Any, http: Any) -> None:
    tokens = flow.tokens(scope="openid offline_access")
    end(http, id_token_hint=tokens["id_token"])
    assert flow.refresh(tokens["refresh_token"]).status_code == 200


@pytest.mark.parametrize("query", [{}, {"client_id": "app", "post_logout_redirect_uri": HOME}])
def test_without_hint_the_user_confirms_first(flow: Any, http: Any, op: Any, query: dict[str, str]) -> None:
    flow.tokens()
    page = end(http, **query)
    assert page.status_code == 200
    assert "Sign out?" in page.text
    assert len(op.sessions_of("alice")) == 1
    fields = {name: flow.hidden(page).get(name, "") for name in ("csrf", "logout")}
    done = http.post("/end_session/confirm", data=fields)
    assert op.sessions_of("alice") == []
    if query:
        assert "form-action 'self' http://localhost:8000;" in page.headers["content-security-policy"]
        assert (done.status_code, done.headers["location"]) == (303, HOME)
    else:
        assert (done.status_code, "location" in done.headers) == (200, False)


def test_forged_confirmation_is_refused(flow: Any, http: Any, op: Any) -> None:
    flow.tokens()
    page = end(http)
    csrf = flow.hidden(page)["csrf"]
    assert http.post("/end_session/confirm", data={"csrf": "0" * 64}).status_code == 403
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert http.post("/end_session/confirm", data={"csrf": csrf}, headers=headers).status_code == 403
    login_csrf = flow.hidden(flow.authorize(prompt="login"))["csrf"]
    assert http.post("/end_session/confirm", data={"csrf": login_csrf}).status_code == 403
    assert len(op.sessions_of("alice")) == 1


def test_hint_of_another_user_needs_confirmation(flow: Any, http: Any, op: Any) -> None:
    hint = flow.tokens("alice")["id_token"]
    flow.sign_in("bob", prompt="login")
    page = end(http, id_token_hint=hint, post_logout_redirect_uri=HOME)
    assert "Sign out?" in page.text
    assert len(op.sessions_of("bob")) == 1


def test_foreign_token_or_logout_token_as_hint_is_ignored(flow: Any, http: Any, op: Any) -> None:
    flow.tokens()
    token = op.notifier.logout_token("app", sub="alice", sid=op.sessions_of("alice")[0].sid)
    for hint in (token, "garbage", "a.b.c"):
        assert "Sign out?" in end(http, id_token_hint=hint).text


@pytest.mark.parametrize(
    "uri", [HOME + "x", "http://localhost:8000", HOME + "?a=b", "http://LOCALHOST:8000/", "https://evil.example/"]
)
def test_unregistered_post_logout_uri_is_refused(flow: Any, http: Any, uri: str) -> None:
    hint = flow.tokens()["id_token"]
    answer = end(http, id_token_hint=hint, post_logout_redirect_uri=uri)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "evil" not in answer.text


def test_contradictory_or_unknown_client_is_refused(flow: Any, http: Any, op: Any) -> None:
    hint = flow.tokens()["id_token"]
    assert end(http, id_token_hint=hint, client_id="post").status_code == 400
    assert end(http, client_id="unknown").status_code == 400
    assert len(op.sessions_of("alice")) == 1


def test_post_logout_uri_without_client_is_not_followed(http: Any) -> None:
    answer = end(http, post_logout_redirect_uri=HOME)
    assert (answer.status_code, "location" in answer.headers) == (200, False)


def test_front_channel_client_gets_an_iframe(flow: Any, http: Any, op: Any) -> None:
    code = flow.code(client_id="framed")
    tokens = flow.redeem(code, auth=("framed", "a-secret-of-the-reference-application")).json()
    sid = op.sessions_of("alice")[0].sid
    back = "http://localhost:8002/bye?a=b"
    page = end(http, id_token_hint=tokens["id_token"], post_logout_redirect_uri=back, state="z")
    assert page.status_code == 200
    assert "frame-src http://localhost:8002" in page.headers["content-security-policy"]
    source = page.text.split('<iframe class="offscreen" src="')[1].split('"')[0].replace("&amp;", "&")
    assert parse_qs(urlsplit(source).query) == {"iss": ["http://127.0.0.1:9000"], "sid": [sid]}
    assert "http://localhost:8002/bye?a=b&amp;state=z" in page.text


@pytest.mark.parametrize("first", [httpx2.ConnectError("down"), httpx2.ReadTimeout("slow"), 503])
def test_logout_token_is_sent_twice_with_a_fresh_token(flow: Any, http: Any, back_channel: Any, first: Any) -> None:
    back_channel.answers = [first]
    end(http, id_token_hint=flow.tokens()["id_token"])
    first_claims, second_claims = (flow.verify(form["logout_token"])[1] for _, form in back_channel.requests)
    assert first_claims["jti"] != second_claims["jti"]


def test_refused_logout_token_is_not_resent_and_logout_continues(flow: Any, http: Any, back_channel: Any) -> None:
    back_channel.answers = [400]
    hint = flow.tokens()["id_token"]
    assert end(http, id_token_hint=hint, post_logout_redirect_uri=HOME).status_code == 303
    assert len(back_channel.requests) == 1


def test_redirect_of_the_client_is_not_followed(flow: Any, http: Any, back_channel: Any) -> None:
    back_channel.answers = [302]
    end(http, id_token_hint=flow.tokens()["id_token"])
    assert len(back_channel.requests) == 1


def test_signing_in_as_another_user_ends_the_first_session(flow: Any, op: Any, back_channel: Any) -> None:
    flow.tokens("alice")
    flow.tokens("bob", prompt="login")
    assert op.sessions_of("alice") == []
    assert len(op.sessions_of("bob")) == 1


class Hanging(httpx2.AsyncBaseTransport):
    """A client that never responds."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError(request)


def test_hanging_client_does_not_delay_the_user(flow: Any, settings: Any, clock: Any) -> None:
    from dataclasses import replace

    quick = replace(settings, logout_wait_seconds=0.01, logout_attempt_seconds=0.02)
    with TestClient(create_op(quick, clock=clock, transport=Hanging()), base_url=quick.issuer) as http:
        http.follow_redirects = False
        flow.http = http
        answer = end(http, id_token_hint=flow.tokens()["id_token"], post_logout_redirect_uri=HOME)
        assert answer.headers["location"] == HOME


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_end_sessions_of_a_user_from_python(settings: Any, clock: Any, back_channel: Any) -> None:
    app = create_op(settings, clock=clock, transport=back_channel)
    op = op_of(app)
    for client_ids in ({"app"}, {"app", "post"}, set()):
        _, session = op.sessions.begin("alice", acr="urn:demo:acr:1", amr=("user",), previous=None)
        session.client_ids |= client_ids
    _, other = op.sessions.begin("bob", acr="urn:demo:acr:1", amr=("user",), previous=None)
    other.client_ids.add("app")
    back_channel.answers = [200, 400]
    deliveries = await op.end_sessions_of("alice")
    assert sorted(item.client_id for item in deliveries) == ["app", "app", "post"]
    assert [item.delivered for item in deliveries].count(False) == 1
    assert op.sessions_of("alice") == []
    assert op.sessions_of("bob") == [other]
    with pytest.raises(KeyError):
        await op.end_sessions_of("mallory")
