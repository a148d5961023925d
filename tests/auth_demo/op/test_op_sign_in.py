"""The sign-in page and when it is shown: prompt, max_age, hints, acr, password guessing, form CSRF."""

from typing import Any

import pytest


def test_prompt_none_without_session_is_login_required(flow: Any) -> None:
    reply = flow.reply(flow.authorize(prompt="none"))
    assert reply["error"] == "login_required"
    assert reply["state"] == "state-1"
    assert reply["iss"] == "http://127.0.0.1:9000"


@pytest.mark.parametrize("prompt", ["login", "select_account", "consent", "login select_account"])
def test_prompt_shows_the_page_to_a_signed_in_user(flow: Any, prompt: str) -> None:
    flow.code()
    page = flow.authorize(prompt=prompt)
    assert page.status_code == 200
    assert "signed in" in page.text
    assert "code" in flow.reply(flow.submit(page, account="alice"))


@pytest.mark.parametrize("prompt", ["none login", "create", "NONE", "<script>"])
def test_bad_prompt_is_invalid_request(flow: Any, prompt: str) -> None:
    assert flow.reply(flow.authorize(prompt=prompt))["error"] == "invalid_request"


def test_max_age_asks_for_a_new_sign_in(flow: Any, clock: Any) -> None:
    flow.code()
    clock.advance(100)
    assert "code" in flow.reply(flow.authorize(max_age="100", prompt="none"))
    clock.advance(1)
    assert flow.reply(flow.authorize(max_age="100", prompt="none"))["error"] == "login_required"
    page = flow.authorize(max_age="100")
    assert page.status_code == 200
    tokens = flow.redeem(flow.reply(flow.submit(page, account="alice"))["code"]).json()
    assert flow.verify(tokens["id_token"])[1]["auth_time"] == int(clock())


def test_max_age_zero_always_asks(flow: Any) -> None:
    flow.code()
    assert flow.reply(flow.authorize(max_age="0", prompt="none"))["error"] == "login_required"


@pytest.mark.parametrize("value", ["-1", "1.5", "ten", "9" * 30, "\u0663"])
def test_bad_max_age_is_invalid_request(flow: Any, value: str) -> None:
    assert flow.reply(flow.authorize(max_age=value))["error"] == "invalid_request"


def test_login_hint_fills_in_the_name_escaped(flow: Any) -> None:
    page = flow.authorize(login_hint='bob"><b>')
    assert "bob&#34;&gt;&lt;b&gt;" in page.text
    assert '"><b>' not in page.text


def test_an_id_token_hint_of_another_user_logs_no_user_in(flow: Any) -> None:
    hint = flow.tokens("alice")["id_token"]
    assert "code" in flow.reply(flow.authorize(id_token_hint=hint, prompt="none"))
    flow.sign_in("bob", prompt="login")
    assert flow.reply(flow.authorize(id_token_hint=hint, prompt="none"))["error"] == "login_required"
    page = flow.authorize(id_token_hint=hint)
    assert 'value="alice"' in page.text
    assert flow.reply(flow.submit(page, account="bob"))["error"] == "login_required"


def test_forged_id_token_hint_is_invalid_request(flow: Any) -> None:
    hint = flow.tokens()["id_token"]
    for forged in (hint[:-4] + "AAAA", "a.b.c", "x"):
        assert flow.reply(flow.authorize(id_token_hint=forged))["error"] == "invalid_request"
    assert flow.reply(flow.authorize(id_token_hint=hint, client_id="post"))["error"] == "invalid_request"


def test_acr_values_step_up_to_password(flow: Any) -> None:
    flow.code()
    high = "urn:demo:acr:2"
    assert flow.reply(flow.authorize(acr_values=high, prompt="none"))["error"] == "interaction_required"
    page = flow.authorize(acr_values=f"urn:unknown {high}")
    assert 'name="account"' not in page.text
    assert flow.submit(page, account="alice").status_code == 400
    reply = flow.reply(flow.submit(page, username="alice", password="demo"))
    _, claims = flow.verify(flow.redeem(reply["code"]).json()["id_token"])
    assert (claims["acr"], claims["amr"]) == (high, ["pwd"])
    lower = flow.reply(flow.authorize(acr_values="urn:demo:acr:1", prompt="none"))
    assert flow.verify(flow.redeem(lower["code"]).json()["id_token"])[1]["acr"] == "urn:demo:acr:1"


def test_unknown_acr_values_are_ignored(flow: Any) -> None:
    tokens = flow.tokens(acr_values="urn:unknown:class")
    assert flow.verify(tokens["id_token"])[1]["acr"] == "urn:demo:acr:1"


def test_wrong_password_is_refused_and_guessing_is_limited(flow: Any, clock: Any) -> None:
    page = flow.authorize()
    for _ in range(5):
        refused = flow.submit(page, username="alice", password="guess")
        assert refused.status_code == 400
        assert "op_session" not in flow.http.cookies
    limited = flow.submit(page, username="alice", password="demo")
    assert limited.status_code == 429
    assert 1 <= int(limited.headers["retry-after"]) <= 61
    assert flow.submit(page, username="bob", password="demo").status_code == 303
    clock.advance(61)
    assert flow.submit(page, username="alice", password="demo").status_code == 303


def test_guessing_across_many_names_is_limited(flow: Any) -> None:
    page = flow.authorize()
    statuses = [flow.submit(page, username=f"name{i}", password="x").status_code for i in range(32)]
    assert statuses[0] == 400
    assert statuses[-1] == 429


def test_login_form_from_another_browser_or_site_is_refused(flow: Any, http: Any) -> None:
    page = flow.authorize()
    fields = {name: flow.hidden(page)[name] for name in ("csrf", "authorization")}
    cross = http.post("/login", data={**fields, "account": "alice"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert cross.status_code == 403
    assert http.post("/login", data={**fields, "csrf": "0" * 64, "account": "alice"}).status_code == 403
    http.cookies.clear()
    assert http.post("/login", data={**fields, "account": "alice"}).status_code == 403
    assert "op_session" not in http.cookies


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ([("sec-fetch-site", "same-origin"), ("origin", "null")], 303),
        ([("sec-fetch-site", "same-origin")], 303),
        ([("sec-fetch-site", "none"), ("origin", "ISSUER")], 303),
        ([("origin", "ISSUER")], 303),
        ([], 303),
        ([("sec-fetch-site", "none"), ("origin", "null")], 403),
        ([("sec-fetch-site", "none"), ("origin", "http://127.0.0.1:8001")], 403),
        ([("sec-fetch-site", "none")], 403),
        ([("sec-fetch-site", "same-site"), ("origin", "ISSUER")], 403),
        ([("sec-fetch-site", "cross-site"), ("origin", "ISSUER")], 403),
        ([("origin", "null")], 403),
        ([("origin", "http://localhost:8000")], 403),
        ([("origin", "ISSUER"), ("origin", "ISSUER")], 403),
        ([("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], 403),
        ([("sec-fetch-site", "same-origin"), ("origin", "null"), ("origin", "null")], 403),
        ([("sec-fetch-site", "Same-Origin")], 403),
    ],
)
def test_a_login_form_without_the_cookie_of_its_page_is_refused(
    flow: Any, http: Any, op: Any, sent: list[tuple[str, str]], status: int
) -> None:
    page = flow.authorize()
    fields = {name: flow.hidden(page)[name] for name in ("csrf", "authorization")}
    headers = [(name, value.replace("ISSUER", op.settings.issuer)) for name, value in sent]
    answer = http.post("/login", data={**fields, "account": "alice"}, headers=headers)
    assert answer.status_code == status
    assert ("op_session" in http.cookies) == (status == 303)


def test_edited_login_form_is_validated_again(flow: Any) -> None:
    page = flow.authorize()
    edited = flow.hidden(page)["authorization"].replace("localhost%3A8000", "evil.example")
    answer = flow.submit(page, account="alice", authorization=edited)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "op_session" not in flow.http.cookies


def test_unknown_account_button_is_refused(flow: Any) -> None:
    assert flow.submit(flow.authorize(), account="mallory").status_code == 400


def test_planted_session_cookie_is_not_adopted(flow: Any, http: Any) -> None:
    planted = "p" * 43
    http.cookies.set("op_session", planted, domain="127.0.0.1")
    answer = flow.sign_in()
    assert "op_session=" in answer.headers["set-cookie"]
    assert planted not in answer.headers["set-cookie"]


def test_the_session_cookie_is_restricted_and_renewed_by_a_login(flow: Any, op: Any) -> None:
    first = flow.sign_in()
    cookie = first.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("op_session=", "httponly", "samesite=lax", "path=/", "max-age=43200"))
    assert "domain" not in cookie
    old = flow.http.cookies["op_session"]
    sid = op.sessions_of("alice")[0].sid
    flow.sign_in(prompt="login")
    assert flow.http.cookies["op_session"] != old
    assert [session.sid for session in op.sessions_of("alice")] == [sid]
    assert op.sessions.find(old) is None


def test_op_session_ends_after_its_lifetime(flow: Any, clock: Any) -> None:
    flow.code()
    clock.advance(12 * 3600)
    assert flow.reply(flow.authorize(prompt="none"))["error"] == "login_required"


def test_page_names_the_client_and_says_it_is_a_demo(flow: Any) -> None:
    page = flow.authorize()
    for text in ("Reference application", "http://localhost:8000", "Demo identity provider", "not for production"):
        assert text in page.text
    assert "style=" not in page.text
    assert "<script" not in page.text
