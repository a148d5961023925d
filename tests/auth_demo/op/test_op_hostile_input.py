"""Malformed input from a browser gets a clear 4xx, never a 500, and every response has the security headers."""

from typing import Any

import pytest

FORM = {"content-type": "application/x-www-form-urlencoded"}
GETS = ["/authorize", "/end_session"]
POSTS = ["/authorize", "/login", "/token", "/revoke", "/end_session", "/end_session/confirm"]

RAW = {
    "nul": b"client_id=app%00&state=x",
    "crlf": b"client_id=app&state=a%0d%0aSet-Cookie:%20x=y",
    "c1-control": b"client_id=app&state=%c2%85",
    "lone-surrogate": b"client_id=app&state=%ED%A0%80",
    "not-utf8": b"client_id=app&state=%ff%fe",
    # The test client refuses longer URLs; bodies of 2 MB are tested below.
    "long": b"client_id=app&state=" + b"a" * 60_000,
    "many-fields": b"&".join(b"a%d=1" % i for i in range(1000)),
}


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
def test_malformed_query_is_a_400(http: Any, path: str, raw: bytes) -> None:
    answer = http.get(path + "?" + raw.decode())
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("raw", [*RAW.values(), b"a=" + b"a" * 2_000_000, b"\xff\xfe", "ü=ü".encode(), b"csrf=a&csrf=b"])
def test_malformed_body_is_a_4xx(http: Any, path: str, raw: bytes) -> None:
    answer = http.post(path, content=raw, headers=FORM)
    assert 400 <= answer.status_code < 500
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data", "text/plain", "\xff/x"])
def test_other_content_type_is_a_400(http: Any, path: str, content_type: str) -> None:
    answer = http.post(path, content=b"client_id=app", headers={b"content-type": content_type.encode("latin-1")})
    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["state", "nonce", "scope", "code_challenge", "prompt", "unheard-of"])
def test_repeated_parameter_is_reported_to_the_client(flow: Any, http: Any, name: str) -> None:
    query = [*flow.parameters.items(), (name, "one"), (name, "two")]
    reply = flow.reply(http.get("/authorize", params=query))
    assert reply["error"] == "invalid_request"
    assert ("state" in reply) == (name != "state")


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
def test_repeated_client_or_redirect_uri_gives_a_local_error_page(flow: Any, http: Any, name: str) -> None:
    query = [*flow.parameters.items(), (name, flow.parameters[name])]
    answer = http.get("/authorize", params=query)
    assert (answer.status_code, "location" in answer.headers) == (400, False)


@pytest.mark.parametrize("name", ["code", "client_id", "redirect_uri", "grant_type"])
def test_repeated_token_parameter_is_refused(http: Any, name: str) -> None:
    answer = http.post("/token", content=f"{name}=a&{name}=a".encode(), headers=FORM)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_state_is_returned_unchanged(flow: Any) -> None:
    state = "ü\u202e%0d%0a &=#?/+\U0001f600'\"<>" + "a" * 3000
    assert flow.reply(flow.sign_in(state=state))["state"] == state


def test_deeply_nested_header_in_a_hint_is_a_4xx(flow: Any) -> None:
    import base64

    bomb = base64.urlsafe_b64encode(b"[" * 8000).decode().rstrip("=")
    assert flow.reply(flow.authorize(id_token_hint=f"{bomb}.e30.AAAA"))["error"] == "invalid_request"


@pytest.mark.parametrize("cookie", ["op_session=", "op_session=%00", "op_session=\xff", "=;;;=", "op_session", "a" * 9000])
def test_malformed_cookies_are_anonymous(flow: Any, http: Any, cookie: str) -> None:
    headers = {b"cookie": cookie.encode("latin-1")}
    answer = http.get("/authorize", params={**flow.parameters, "prompt": "none"}, headers=headers)
    assert flow.reply(answer)["error"] == "login_required"
    assert http.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/authorize", "/nope", "/token", "/static/op.css", "/jwks.json", "/static/../app.py"])
def test_every_response_has_the_security_headers(http: Any, path: str) -> None:
    answer = http.get(path)
    policy = answer.headers["content-security-policy"]
    for part in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "style-src 'self'"):
        assert part in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == ("public, max-age=300" if "op.css" in path else "no-store")


def test_static_files_have_their_content_type(http: Any) -> None:
    assert http.get("/static/op.css").headers["content-type"].startswith("text/css")
    assert http.get("/static/op.svg").headers["content-type"].startswith("image/svg+xml")
    assert http.get("/static/form_post.js").headers["content-type"].startswith("text/javascript")


def test_sign_in_page_allows_form_posts_to_the_client_only(flow: Any) -> None:
    assert "form-action 'self' http://localhost:8000;" in flow.authorize().headers["content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:9001", "localhost:9000", ""])
def test_unknown_host_is_refused_against_dns_rebinding(http: Any, host: str) -> None:
    assert http.get("/.well-known/openid-configuration", headers={"Host": host}).status_code == 421


def test_unknown_pages_and_wrong_methods_are_refused(http: Any) -> None:
    missing = http.get("/<script>")
    assert missing.status_code == 404
    assert "<script>" not in missing.text
    wrong = http.get("/token")
    assert (wrong.status_code, wrong.json()["error"]) == (405, "invalid_request")
    assert http.get("/schema").status_code == 404
