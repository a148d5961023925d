"""The one URL grammar: which URLs of other parties may enter a header, and which a browser would parse differently."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_core.urls import is_loopback, party_origin

GOOD = {
    "https://op.example": "https://op.example",
    "https://op.example/": "https://op.example",
    "https://OP.Example:443/a/b?c=d&e=%20": "https://op.example",
    "HTTPS://op.example:08443/": "https://op.example:8443",
    "http://op.example:80/a": "http://op.example",
    "https://op.example?x=1": "https://op.example",
    "https://op.example/a;b,c'd(e)*!$@:": "https://op.example",
    "https://xn--bcher-kva.example/": "https://xn--bcher-kva.example",
    "http://keycloak_1:8080/realms/a": "http://keycloak_1:8080",
    "http://127.0.0.1:9000/x": "http://127.0.0.1:9000",
    "http://[::1]:9000/x": "http://[::1]:9000",
    "https://[2001:db8::7]/": "https://[2001:db8::7]",
    "https://[1:2:3:4:5:6:7:8]/": "https://[1:2:3:4:5:6:7:8]",
    f"https://{'a' * 63}.example": f"https://{'a' * 63}.example",
}

BAD_HOSTS = [
    "", "*", "*.example", "x;sandbox", "x;", "x,y", "x y", "x\ty", "x\ny", "x\r\ny", "x\0y", "x\x7fy", "x'y", 'x"y', "'self'",
    "x%3by", "x%20y", "x\\y", "x|y", "x<y", "x>y", "x`y", "x{y}", "x^y", "x+y", "x=y", "x!y", "x$y", "x&y", "x(y)", "x~y",
    "a@x", "a:b@x", "@x", "x:", "x:0", "x:65536", "x:99999", "x:-1", "x:+1", "x:1e3", "x:80:80", "x: 80", "x:\uff18\uff10",
    "x.", ".x", "x..y", "-x", "x-", "x.-y", f"{'a' * 64}.example", ".".join(["a" * 60] * 5),
    "b\xfccher.example", "x\u3002y", "x\uffa0y", "\u24e7.example", "\u202ex", "x\ufeff", "\u212aelvin",
    "[::1", "::1", "[]", "[:]", "[::g]", "[::1%25eth0]", "[::1%eth0]", "[1.2.3.4]", "[::1]x", "[v1.a]",
    "127.1", "0x7f.1", "2130706433", "127.0.0.1.1", "256.1.1.1", "127.0.0.01", "x.1", "x.0x", "1.2.3",
]  # fmt: skip

BAD_REST = [
    " ", "/ ", "/a b", "/\ta", "/a\r\nset-cookie: x", '/"', "/<", "/\\", "/^", "/`", "/{", "/|", "/%", "/%zz", "/%2", "/#", "#x",
    "/\xfc",
]  # fmt: skip


@pytest.mark.attack("70")
@pytest.mark.parametrize("url", GOOD)
def test_the_origin_of_a_url_equals_the_browsers(url: str) -> None:
    assert party_origin(url) == GOOD[url]


@pytest.mark.attack("70")
@pytest.mark.parametrize("host", BAD_HOSTS, ids=ascii)
def test_a_host_outside_the_grammar_is_refused(host: str) -> None:
    for scheme in ("https", "http"):
        for rest in ("", "/", "/x?y=1"):
            assert party_origin(f"{scheme}://{host}{rest}") is None


@pytest.mark.attack("70")
@pytest.mark.parametrize("rest", BAD_REST, ids=ascii)
def test_a_path_or_query_outside_the_grammar_is_refused(rest: str) -> None:
    assert party_origin(f"https://op.example{rest}") is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "//x",
        "/x",
        "https:x",
        "https:/x",
        "https:///x",
        "ftp://x",
        "javascript://x",
        " https://x",
        "https://x" + "/a" * 1024,
    ],
)
def test_a_url_that_is_not_absolute_is_refused(url: str) -> None:
    assert party_origin(url) is None


def test_a_url_has_at_most_2048_characters() -> None:
    url = "https://x/" + "a" * 2038
    assert party_origin(url) == "https://x"
    assert party_origin(url + "a") is None


@pytest.mark.attack("70")
@given(st.text(alphabet=st.sampled_from("abz019.:-_/[]?#@%;,*'\" \t\r\n\\\x00\xfcK"), max_size=24))
def test_no_origin_contains_header_syntax(rest: str) -> None:
    origin = party_origin(f"https://{rest}")
    if origin is not None:
        assert set(origin.removeprefix("https://")) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-:[]")
        assert urlsplit(origin).hostname == urlsplit(f"https://{rest}").hostname


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True), ("a.localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
        ("localhost.example", False), ("127.0.0.1.example", False), ("10.0.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_loopback_hosts_are_recognised(host: str, here: bool) -> None:
    assert is_loopback(host) is here
