"""The cluster's page over real HTTP: its content, its buttons, its refusals, and its responses during a failover."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.auth_demo.demo_process import Demo, running_demo
from tests.auth_demo.test_demo_flow import log_in
from tests.support.form_fields import Fields
from tests.support.freezing import freeze
from tests.support.redis_servers import needed_valkey

PAGE = "/demo/cluster"
HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    needed_valkey()
    with running_demo(tmp_path_factory.mktemp("cluster"), "--cluster") as running:
        yield running


@pytest.fixture
def client(demo: Demo) -> Iterator[httpx.Client]:
    """A visitor of a cluster whose servers are all up."""
    with httpx.Client(base_url=demo.app_url, trust_env=False, timeout=60) as http:
        http.post(f"{PAGE}/start")
        until(lambda: all(node["in_sync"] for node in status(http)["nodes"]))
        yield http


def status(client: httpx.Client) -> dict[str, Any]:
    answer = client.get(f"{PAGE}/status")
    assert answer.status_code == 200
    content: dict[str, Any] = answer.json()
    return content


@contextmanager
def no_replica_for_failover(client: httpx.Client) -> Iterator[None]:
    """Freeze the replica of the client's session, so that the outage lasts as long as the block."""
    found = re.search(r'data-slot="(\d+)"', client.get(f"{PAGE}/session").text)
    assert found is not None
    nodes = status(client)["nodes"]
    holder = next(node["port"] for node in nodes if any(first <= int(found[1]) <= last for first, last in node["slots"]))
    replica = next(node["port"] for node in nodes if node["follows"] == holder)
    pid = next(int(place.parent.name) for place in Path("/proc").glob("[0-9]*/cwd") if _name(place) == str(replica))
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _name(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the condition was not reached in time"
        time.sleep(0.02)


def test_a_visitor_sees_the_six_servers_and_gets_no_session(client: httpx.Client) -> None:
    page = client.get(PAGE, headers=HTML)
    assert page.status_code == 200
    assert "set-cookie" not in page.headers
    assert len(re.findall('data-role="primary"', page.text)) == 3
    assert len(re.findall('data-role="replica"', page.text)) == 3
    assert "nothing is stored about you" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|\bstyle=|https?://", page.text)


@pytest.mark.parametrize("path", ["", "/nodes", "/session", "/status", "/cluster.css", "/cluster.js"])
def test_a_head_is_answered_as_the_get(client: httpx.Client, path: str) -> None:
    got, head = client.get(f"{PAGE}{path}"), client.head(f"{PAGE}{path}")
    assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


def test_a_visitor_without_a_session_cannot_kill_a_server(client: httpx.Client) -> None:
    refused = client.post(f"{PAGE}/kill")
    assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
    assert "no session yet" in client.post(f"{PAGE}/kill", headers=HTML).text
    assert all(node["role"] != "down" for node in status(client)["nodes"])


@pytest.mark.parametrize("form", ["increment", "kill", "start"])
def test_another_site_cannot_use_the_buttons(client: httpx.Client, form: str) -> None:
    client.post(f"{PAGE}/increment")
    for foreign in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert client.post(f"{PAGE}/{form}", headers=foreign).status_code == 403
    assert client.get(f"{PAGE}/{form}").status_code == 405
    assert client.get("/api/session").json()["visits"] == 1
    assert all(node["role"] != "down" for node in status(client)["nodes"])


def test_the_forms_work_without_a_script(client: httpx.Client, demo: Demo) -> None:
    log_in(client, demo)
    for _ in range(2):
        done = client.post(f"{PAGE}/increment", headers=HTML)
        assert (done.status_code, done.headers["location"]) == (303, PAGE)
    page = client.get(PAGE, headers=HTML).text
    assert "<strong>2</strong>" in page
    assert "<strong>alice</strong>" in page
    assert re.search(r'2 <span class="badge good">0 lost', page)
    killed = client.post(f"{PAGE}/kill", headers=HTML)
    assert (killed.status_code, killed.headers["location"]) == (303, PAGE)
    assert client.post(f"{PAGE}/start", headers=HTML).status_code == 303


@pytest.mark.parametrize("form", ["increment", "kill"])
def test_a_form_of_a_page_whose_session_has_ended_is_refused(client: httpx.Client, demo: Demo, form: str) -> None:
    log_in(client, demo)
    seen = Fields(client.get(PAGE, headers=HTML).text).fields
    assert client.post(f"{PAGE}/increment", data=seen).json() == {"visits": 1}
    client.post("/auth/logout")
    refused = client.post(f"{PAGE}/{form}", data=seen)
    assert (refused.status_code, refused.json()["title"]) == (401, "The session has ended")
    assert demo.cookie not in client.cookies, "the form has begun a session"
    assert all(node["role"] != "down" for node in status(client)["nodes"])


def test_the_page_responds_while_the_store_is_down_and_sessions_survive(client: httpx.Client, demo: Demo) -> None:
    log_in(client, demo)
    client.post(f"{PAGE}/increment")
    cookie = client.cookies[demo.cookie]
    with no_replica_for_failover(client):
        killed = client.post(f"{PAGE}/kill").json()
        parts = client.get(f"{PAGE}/nodes", params={"slot": killed["slot"]})
        assert "vary" not in parts.headers, "the servers' part asks for the session"
        assert f'data-port="{killed["port"]}" data-role="down"' in parts.text
        assert "holds your session" not in parts.text
        out = [
            client.get(f"{PAGE}/session"),
            client.post(f"{PAGE}/increment"),
            client.post(f"{PAGE}/kill"),
            client.get("/api/me"),
        ]
        assert [answer.status_code for answer in out] == [503] * 4
        assert "You are still logged in as soon as it is back" in out[0].text
        assert {answer.headers["content-type"] for answer in out[1:]} == {"application/problem+json"}
        assert not any("set-cookie" in answer.headers for answer in out)

    until(lambda: client.get("/api/me").status_code == 200)
    # The watch polls at its own interval, so the application may respond before the watch has seen the promotion.
    until(lambda: status(client)["outage"]["promoted"] is not None)
    refused = client.post(f"{PAGE}/kill")
    assert refused.status_code == 409, "a second kill would leave no replica to take over"
    assert "no replica could take over" in refused.json()["detail"]
    assert client.cookies[demo.cookie] == cookie
    assert client.post(f"{PAGE}/increment").json() == {"visits": 2}
    outage = status(client)["outage"]
    assert outage["answers_503"] >= 4
    assert outage["cookies_503"] == 0
    assert outage["promoted"] != killed["port"]
    page = client.get(PAGE, headers=HTML).text
    assert f"port {outage['promoted']}, <strong>{outage['promoted_after']:.2f} s</strong> later" in page

    assert client.post(f"{PAGE}/start").json() == {"ports": [killed["port"]]}
    until(lambda: any("is back as replica" in line["text"] for line in status(client)["log"]))
    assert client.post(f"{PAGE}/start").json() == {"ports": []}


def test_a_complete_page_is_shown_while_the_store_is_down(client: httpx.Client) -> None:
    client.post(f"{PAGE}/increment")
    with no_replica_for_failover(client):
        client.post(f"{PAGE}/kill", headers=HTML)
        for form in ("increment", "kill"):
            page = client.post(f"{PAGE}/{form}", headers=HTML)
            assert page.status_code == 503
            assert "You are still logged in; press again shortly." in page.text
            assert "set-cookie" not in page.headers
        shown = client.get(PAGE, headers=HTML)
        assert shown.status_code == 200
        assert 'data-role="down"' in shown.text
        assert "You are still logged in as soon as it is back" in shown.text


def test_an_invalid_slot_number_has_no_node(client: httpx.Client) -> None:
    assert "holds your session" not in client.get(f"{PAGE}/nodes", params={"slot": 99999}).text
    assert client.get(f"{PAGE}/nodes", params={"slot": "x"}).status_code == 400


def test_the_files_of_the_page_are_served(client: httpx.Client) -> None:
    page = client.get(PAGE, headers=HTML).text
    files = re.findall(r'(?:href|src)="(/[^"]+\.(?:css|js|svg))"', page)
    assert len(set(files)) == 4
    assert all(client.get(file).status_code == 200 for file in files)


def test_without_cluster_the_page_does_not_exist(tmp_path: Path) -> None:
    with running_demo(tmp_path) as plain, httpx.Client(base_url=plain.app_url, trust_env=False) as http:
        assert [http.get(f"{PAGE}{path}").status_code for path in ("", "/nodes", "/session", "/status")] == [404] * 4
        assert [http.post(f"{PAGE}{path}").status_code for path in ("/increment", "/kill", "/start")] == [404] * 3
