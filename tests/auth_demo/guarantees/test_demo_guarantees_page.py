"""The page of the guarantees over real HTTP: its measurements, the scope of an outage, and its refusals."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from auth_demo.guarantees.demonstrations import RUNS
from auth_demo.guarantees.lab import PREFIX
from tests.auth_demo.demo_process import Demo, running_demo
from tests.auth_demo.test_demo_flow import log_in
from tests.support.form_fields import Fields

PAGE = "/demo/guarantees"
HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("guarantees")) as running:
        yield running


@pytest.fixture
def client(demo: Demo) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.app_url, trust_env=False, timeout=60) as http:
        yield http


def test_the_start_page_links_to_it_and_a_visitor_gets_no_session(client: httpx.Client) -> None:
    assert f'href="{PAGE}"' in client.get("/", headers=HTML).text
    page = client.get(PAGE, headers=HTML)
    assert page.status_code == 200
    assert "set-cookie" not in page.headers
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|\bstyle=|https?://", page.text)
    files = set(re.findall(r'(?:href|src)="(/[^"]+\.(?:css|js|svg))"', page.text))
    assert len(files) == 4
    for address in (PAGE, *files):
        got, head = client.get(address), client.head(address)
        assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("name", RUNS)
def test_a_demonstration_touches_no_other_session(name: str, client: httpx.Client, demo: Demo) -> None:
    log_in(client, demo)
    before, cookie = client.get("/api/session").json(), client.cookies[demo.cookie]
    outcome = client.post(f"{PAGE}/run/{name}").json()
    assert outcome["held"], outcome["rows"]
    page = client.post(f"{PAGE}/run/{name}", headers=HTML)
    assert page.status_code == 200
    assert page.text.count(">Held<") == 1
    assert client.cookies[demo.cookie] == cookie
    after = client.get("/api/session").json()
    assert {**after, "idle_expires_at": 0} == {**before, "idle_expires_at": 0}
    assert [each["current"] for each in client.get("/api/sessions").json()].count(True) == 1


def test_the_switch_cuts_the_store_off_for_its_own_session_only(client: httpx.Client, demo: Demo) -> None:
    log_in(client, demo)
    cookie = client.cookies[demo.cookie]
    with httpx.Client(base_url=demo.app_url, trust_env=False, timeout=60) as other:
        log_in(other, demo)
        taken = client.post(f"{PAGE}/store/take", headers=HTML)
        assert (taken.status_code, taken.headers["location"]) == (303, f"{PAGE}#outage")
        refused = [client.get("/api/session"), client.get("/", headers=HTML), client.post("/auth/logout")]
        assert [answer.status_code for answer in refused] == [503] * 3
        assert not any("set-cookie" in answer.headers for answer in refused)
        page = client.get(PAGE, headers=HTML)
        assert page.status_code == 200
        assert "data-out" in page.text
        assert re.search(r"by /api/session</dt>\s*<dd>503<", page.text)
        assert other.get("/api/session").json()["authenticated"]
        assert "by /api/session" not in other.get(PAGE, headers=HTML).text
    assert client.post(f"{PAGE}/store/give").status_code == 303
    page = client.get(PAGE, headers=HTML).text
    assert "data-out" not in page
    assert re.search(r"by /api/session</dt>\s*<dd>200<", page)
    assert client.get("/api/session").json()["authenticated"]
    assert client.cookies[demo.cookie] == cookie


def test_a_visitor_gets_a_session_whose_store_can_be_cut_off(client: httpx.Client, demo: Demo) -> None:
    client.post(f"{PAGE}/store/take")
    assert client.get("/api/session").status_code == 503
    client.post(f"{PAGE}/store/give")
    assert client.get("/api/session").json()["visits"] == 1


def test_a_form_of_a_page_whose_session_has_ended_is_refused(client: httpx.Client, demo: Demo) -> None:
    assert 'name="seen_user" value=""' in client.get(PAGE, headers=HTML).text
    log_in(client, demo)
    seen = Fields(client.get(PAGE, headers=HTML).text).fields
    client.post("/auth/logout")
    refused = client.post(f"{PAGE}/store/take", data=seen, headers=HTML)
    assert refused.status_code == 401
    assert "<h1>The session has ended</h1>" in refused.text
    assert demo.cookie not in client.cookies, "the form has begun a session"


def test_another_site_cannot_press_the_buttons(client: httpx.Client) -> None:
    client.post("/api/session/visits")
    for form in [f"run/{name}" for name in RUNS] + ["store/take", "store/give"]:
        for foreign in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
            assert client.post(f"{PAGE}/{form}", headers=foreign).status_code == 403
        assert client.get(f"{PAGE}/{form}").status_code == 405
    assert client.get("/api/session").status_code == 200
    assert client.post(f"{PAGE}/run/anything-else").status_code == 404


@pytest.mark.parametrize("key", [{}, {"x-lab-key": ""}, {"x-lab-key": "guessed"}])
def test_the_laboratory_exists_in_the_demo_only(client: httpx.Client, key: dict[str, str]) -> None:
    answers = [client.get(f"{PREFIX}/data", headers=key), client.post(f"{PREFIX}/login?user=alice", headers=key)]
    assert [answer.status_code for answer in answers] == [404, 404]


def test_too_many_presses_are_rate_limited(demo: Demo) -> None:
    # From its own address, because the other tests press buttons too.
    transport = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(base_url=f"http://127.0.0.1:{demo.port}", transport=transport, timeout=60) as pressing:
        answers = [pressing.post(f"{PAGE}/store/take") for _ in range(70)]
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {303, 429, 503}, "taken, out for this client, and in the end too often"
    assert int(next(answer for answer in answers if answer.status_code == 429).headers["retry-after"]) > 0
