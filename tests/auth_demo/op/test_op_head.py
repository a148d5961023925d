"""HEAD wherever GET at the embedded provider, without a code and without a sign-out."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.routes import HTTPRoute

from tests.auth_demo.op.conftest import Flow, Recorder

WITH_EFFECTS = {"/authorize", "/end_session"}


def gets(flow: Flow) -> list[str]:
    return [route.path for route in flow.http.app.routes if isinstance(route, HTTPRoute) and "GET" in route.methods]


def test_every_get_answers_a_head_with_its_status_and_headers(flow: Flow) -> None:
    paths = gets(flow)
    assert set(paths) > WITH_EFFECTS
    for path in paths:
        if path not in WITH_EFFECTS:
            got, head = flow.http.get(path), flow.http.head(path)
            assert (head.status_code, head.content, head.headers) == (got.status_code, b"", got.headers), path


@pytest.mark.parametrize("path", sorted(WITH_EFFECTS))
def test_a_head_has_no_effect_where_the_get_has_one(flow: Flow, back_channel: Recorder, path: str) -> None:
    tokens = flow.tokens()
    cookies = dict(flow.http.cookies)
    asked: dict[str, Any] = {
        "/authorize": flow.parameters,
        "/end_session": {"id_token_hint": tokens["id_token"]},
    }[path]
    head = flow.http.head(path, params=asked)
    assert (head.status_code, head.content, head.headers["cache-control"]) == (200, b"", "no-store")
    assert not {"set-cookie", "location", "content-length"} & set(head.headers)
    assert dict(flow.http.cookies) == cookies
    assert back_channel.requests == []
    assert flow.userinfo(tokens["access_token"]).status_code == 200
    assert flow.authorize().status_code == 303  # still signed in
    got = flow.http.get(path, params=asked)
    assert got.status_code == (303 if path == "/authorize" else 200)
    assert path == "/authorize" or flow.authorize().status_code == 200
