"""The routes under /auth, over HTTP between two real servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import pytest

from tests.auth_demo.demo_process import Demo, running_demo

HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("flow")) as running:
        yield running


@pytest.fixture
def client(demo: Demo) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.app_url, trust_env=False, timeout=60) as http:
        yield http


def callback_of(client: httpx.Client, demo: Demo, user: str = "alice", start: str = "/auth/login") -> str:
    """Go through the provider's pages up to the redirect to the callback, and return its URL."""
    page = client.get(client.get(start).headers["location"])
    while page.has_redirect_location and page.headers["location"].startswith("/"):
        page = client.get(urljoin(demo.issuer, page.headers["location"]))
    if not page.has_redirect_location:
        found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text)
        fields = {name: unescape(value) for name, value in found}
        page = client.post(f"{demo.issuer}/login", data={**fields, "account": user}, headers={"origin": demo.issuer})
    return page.headers["location"]


def log_in(client: httpx.Client, demo: Demo, user: str = "alice", start: str = "/auth/login") -> httpx.Response:
    return client.get(callback_of(client, demo, user, start))


def test_login_sends_every_protection_parameter(client: httpx.Client, demo: Demo) -> None:
    response = client.get("/auth/login?next=/account")
    assert response.status_code in {302, 303}
    query = parse_qs(urlsplit(response.headers["location"]).query)
    assert query["redirect_uri"] == [f"{demo.app_url}/auth/callback"]
    assert query["code_challenge_method"] == ["S256"]
    assert query["response_type"] == ["code"]
    assert all(len(query[name][0]) >= 20 for name in ("state", "nonce", "code_challenge"))
    assert client.cookies.get(demo.cookie) is None


def test_a_login_redirects_to_its_page_which_shows_the_user(client: httpx.Client, demo: Demo) -> None:
    client.post("/api/session/visits")
    before = client.cookies.get(demo.cookie)
    response = log_in(client, demo, "admin", "/auth/login?next=/account/sessions")
    assert (response.status_code, response.headers["location"]) == (303, "/account/sessions")
    assert client.cookies.get(demo.cookie) not in {before, None}
    me = client.get("/api/me").json()
    assert (me["issuer"], me["subject"], me["name"]) == (demo.issuer, "admin", "Admin")
    assert me["roles"] == ["admin", "user"]
    assert client.get("/api/session").json()["visits"] == 1
    assert client.get("/admin", headers=HTML).status_code == 200


@pytest.mark.parametrize("next_page", ["//evil.example", "https://evil.example", "/\\evil.example", "/%09/evil.example"])
def test_a_login_redirects_to_no_other_site(client: httpx.Client, demo: Demo, next_page: str) -> None:
    assert log_in(client, demo, start=f"/auth/login?next={next_page}").headers["location"] == "/"


def test_userinfo_is_fetched_from_the_provider(client: httpx.Client, demo: Demo) -> None:
    assert client.get("/api/userinfo").status_code == 401
    log_in(client, demo)
    response = client.get("/api/userinfo")
    assert response.status_code == 200
    assert response.json()["sub"] == "alice"
    assert response.json()["email"] == "alice@example.org"


@pytest.mark.parametrize("query", ["", "?code=x", "?code=x&state=unknown", "?error=denied&state=unknown", "?state=a&state=b"])
def test_a_callback_without_a_login_is_an_error_page_and_changes_nothing(client: httpx.Client, demo: Demo, query: str) -> None:
    log_in(client, demo)
    cookie = client.cookies.get(demo.cookie)
    problem = client.get(f"/auth/callback{query}", headers={"accept": "application/json"})
    assert 400 <= problem.status_code < 600
    assert problem.headers["content-type"] == "application/problem+json"
    page = client.get(f"/auth/callback{query}", headers=HTML)
    assert page.status_code == problem.status_code
    assert "The login could not be completed" in page.text
    assert client.cookies.get(demo.cookie) == cookie
    assert client.get("/api/me").status_code == 200


def test_a_callback_works_once(client: httpx.Client, demo: Demo) -> None:
    callback = callback_of(client, demo)
    assert client.get(callback).status_code == 303
    assert client.get(callback).status_code == 400
    assert client.get("/api/me").status_code == 200


def test_a_callback_in_another_browser_is_refused(client: httpx.Client, demo: Demo) -> None:
    callback = callback_of(client, demo)
    with httpx.Client(trust_env=False) as victim:
        assert victim.get(callback).status_code == 400
        assert victim.get(f"{demo.app_url}/api/me").status_code == 401


def test_logout_ends_the_session_and_redirects_to_the_provider(client: httpx.Client, demo: Demo) -> None:
    log_in(client, demo)
    response = client.post("/auth/logout")
    assert response.status_code == 303
    target = urlsplit(response.headers["location"])
    assert f"{target.scheme}://{target.netloc}" == demo.issuer
    query = parse_qs(target.query)
    assert query["post_logout_redirect_uri"] == [f"{demo.app_url}/"]
    assert {"id_token_hint", "state"} <= query.keys()
    assert response.headers["clear-site-data"] == '"cache", "storage"'
    assert client.get("/api/me").status_code == 401


def test_logout_is_refused_from_another_site_and_by_get(client: httpx.Client, demo: Demo) -> None:
    log_in(client, demo)
    assert client.post("/auth/logout", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/auth/logout", headers={"origin": "https://evil.example"}).status_code == 403
    assert client.get("/auth/logout").status_code == 405
    assert client.get("/api/me").status_code == 200


def test_a_logout_at_the_provider_ends_every_session_of_that_login(client: httpx.Client, demo: Demo) -> None:
    log_in(client, demo)
    with httpx.Client(base_url=demo.app_url, trust_env=False) as tab:
        tab.cookies.set(demo.cookie, client.cookies.get(demo.cookie) or "", domain="localhost.local")
        assert tab.get("/api/me").status_code == 200
        client.get(client.post("/auth/logout").headers["location"])
        assert tab.get("/api/me").status_code == 401


@pytest.mark.parametrize("body", [{}, {"logout_token": "x"}, {"logout_token": "a.b.c"}])
def test_a_bad_logout_token_is_a_400_that_is_not_cached(client: httpx.Client, body: dict[str, str]) -> None:
    response = client.post("/auth/backchannel-logout", data=body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"


def test_a_disabled_user_cannot_log_in(client: httpx.Client, demo: Demo) -> None:
    with httpx.Client(base_url=demo.app_url, trust_env=False) as admin:
        log_in(client, demo, "bob")
        log_in(admin, demo, "admin")
        page = admin.get("/admin?q=bob", headers=HTML).text
        disable = re.findall(r'href="(/admin/users/[^"]+/disable)"', page)
        assert admin.post(disable[0]).status_code == 303
        assert client.get("/api/me").status_code == 401
        refused = client.get(callback_of(client, demo, "bob"), headers=HTML)
        assert refused.status_code == 403
        assert client.get("/api/me").status_code == 401
        assert admin.post(disable[0].replace("/disable", "/enable")).status_code == 303
        assert log_in(client, demo, "bob").status_code == 303


def asks_the_user(client: httpx.Client, demo: Demo) -> bool:
    """Whether the provider shows its sign-in page when this browser opens a page that needs a login."""
    refused = client.get("/account", headers=HTML)
    assert refused.headers["location"].startswith("/auth/login?")
    page = client.get(client.get(refused.headers["location"]).headers["location"])
    while page.has_redirect_location and page.headers["location"].startswith("/"):
        page = client.get(urljoin(demo.issuer, page.headers["location"]))
    if page.has_redirect_location:
        assert client.get(page.headers["location"]).headers["location"] == "/account"
    return not page.has_redirect_location


@pytest.mark.attack("73")
@pytest.mark.parametrize("by", ["one device", "all others", "the interface", "an administrator"])
def test_signing_another_browser_out_lasts_until_its_user_signs_in_there(client: httpx.Client, demo: Demo, by: str) -> None:
    with httpx.Client(base_url=demo.app_url, trust_env=False, timeout=60) as other:
        log_in(other, demo)
        # The provider's session still exists: without "sign out" the next login needs no click.
        other.cookies.delete(demo.cookie)
        assert not asks_the_user(other, demo)
        handle = next(each["handle"] for each in other.get("/api/sessions").json() if each["current"])
        log_in(client, demo, "admin" if by == "an administrator" else "alice")
        if by == "one device":
            ended = client.post(f"/account/sessions/{handle}/end", headers=HTML)
        elif by == "all others":
            ended = client.post("/account/sessions/end-others", headers=HTML)
        elif by == "the interface":
            ended = client.delete(f"/api/sessions/{handle}")
        else:
            key = re.findall(r"/admin/users/([\w-]+)/sign-out", client.get("/admin?q=alice", headers=HTML).text)
            ended = client.post(f"/admin/users/{key[0]}/sign-out", headers=HTML)
        assert ended.status_code in {204, 303}, ended.text
        other.post("/api/session/visits")  # an anonymous session in between changes nothing
        assert asks_the_user(other, demo)
        assert log_in(other, demo, start="/auth/login?next=/account").headers["location"] == "/account"
        assert other.get("/account", headers=HTML).status_code == 200
