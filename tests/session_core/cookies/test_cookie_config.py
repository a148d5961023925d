"""Cookie names and attributes: combinations that browsers drop are refused at start; a cookie that was set can be deleted."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from session_core.cookies import CookieConfig, CookieSigner, ResolvedCookie, cookie_name
from session_core.cookies.config import LONGEST_SECONDS
from session_core.errors import ConfigurationError
from session_core.ids import MAX_ID_CHARS, UncertainId, new_session_id

HTTPS = "https://app.example.com"
HTTP = "http://localhost:8000"


def attributes(header: bytes) -> list[str]:
    """The attributes of a Set-Cookie header that set and delete must share, in order."""
    parts = header.decode("ascii").split("; ")[1:]
    return [part for part in parts if not part.startswith(("Max-Age=", "Expires="))]


@pytest.mark.attack("asvs-3.3.1")
@pytest.mark.attack("asvs-3.3.3")
@pytest.mark.attack("asvs-3.3.4")
def test_on_https_the_default_is_a_host_cookie() -> None:
    cookie = CookieConfig().resolve(HTTPS)
    assert cookie.set_header("s:a.b+/c", 3600) == (
        b"__Host-session=s%3Aa.b%2B%2Fc; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax"
    )


def test_on_http_the_default_name_has_no_prefix_because_safari_refuses_secure_on_localhost() -> None:
    assert CookieConfig().resolve(HTTP).set_header("x", 1) == b"session-8000=x; Max-Age=1; Path=/; HttpOnly; SameSite=Lax"
    strict = CookieConfig(same_site="strict").resolve(HTTP)
    assert strict.set_header("x", 1) == b"session-8000=x; Max-Age=1; Path=/; HttpOnly; SameSite=Strict"


def test_applications_on_one_host_have_different_cookie_names() -> None:
    urls = [
        "http://localhost", "http://localhost:8000", "http://localhost:8001", "http://localhost:8000/a", "http://localhost:8000/a/b",
        "http://localhost:8000/a-b", "http://localhost:8000/a.b", "http://localhost/8000", "https://localhost", "https://localhost/a",
    ]  # fmt: skip
    names = [cookie_name(base, url) for url in urls for base in ("session", "login")]
    assert len(set(names)) == len(names)
    assert cookie_name("session", "http://localhost:8000/a/") == "session-8000+a"
    assert cookie_name("session", "http://LOCALHOST:80") == cookie_name("session", "http://localhost") == "session-80"
    assert cookie_name("session", "https://app.example.com/shop") == "__Host-session+shop"


@pytest.mark.parametrize("path", ["/a", "/app/b", "/apple"])
def test_a_cookie_path_outside_the_public_url_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="outside the cookie's path"):
        CookieConfig(name="s", path=path).resolve("http://localhost:8000/app")
    for fit in ("/", "/app", "/app/"):
        assert CookieConfig(name="s", path=fit).resolve("http://localhost:8000/app").path == fit


@pytest.mark.parametrize(
    ("url", "secure", "name"),
    [
        ("HTTPS://App.Example.com", True, "__Host-session"),
        ("https://a.example:8443/base", True, "__Host-session+base"),
        ("http://[::1]:80", False, "session-80"),
    ],
)
def test_the_public_url_alone_decides_the_secure_attribute(url: str, secure: bool, name: str) -> None:
    cookie = CookieConfig().resolve(url)
    assert cookie.secure is secure
    assert cookie.name == cookie_name("session", url) == name


@pytest.mark.parametrize(
    "config",
    [
        CookieConfig(),
        CookieConfig(name="__Secure-s", domain="Example.com", path="/app", same_site="strict"),
        CookieConfig(same_site="none", partitioned=True),
        CookieConfig(http_only=False, persistent=False),
    ],
)
@pytest.mark.attack("55")
def test_a_cookie_is_deleted_with_the_attributes_it_was_set_with(config: CookieConfig) -> None:
    cookie = config.resolve(HTTPS)
    set_header, delete_header = cookie.set_header("x" * 200, 60), cookie.delete_header()
    assert attributes(set_header) == attributes(delete_header)
    assert delete_header.startswith(f"{cookie.name}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; ".encode())


def test_every_attribute_is_written() -> None:
    cookie = CookieConfig(name="__Secure-s", domain="Example.com", path="/app", same_site="none", partitioned=True)
    assert cookie.resolve(HTTPS).set_header("v", 5) == (
        b"__Secure-s=v; Max-Age=5; Path=/app; Domain=example.com; Secure; HttpOnly; Partitioned; SameSite=None"
    )


def test_a_browser_session_cookie_has_no_max_age() -> None:
    assert b"Max-Age" not in CookieConfig(persistent=False).resolve(HTTPS).set_header("x", 3600)
    assert b"Max-Age" not in CookieConfig().resolve(HTTPS).set_header("x", None)


def test_a_lifetime_of_zero_deletes_the_cookie() -> None:
    assert b"; Max-Age=0;" in CookieConfig().resolve(HTTPS).set_header("x", -5)


BROWSERS_WOULD_DROP: list[tuple[str, dict[str, Any], str]] = [
    ("host prefix with domain", {"domain": "example.com"}, HTTPS),
    ("host prefix with path", {"path": "/app"}, HTTPS),
    ("host prefix on http", {"name": "__Host-session"}, HTTP),
    ("host prefix in lower case with domain", {"name": "__host-session", "domain": "example.com"}, HTTPS),
    ("host prefix in mixed case with path", {"name": "__HoSt-session", "path": "/app"}, HTTPS),
    ("secure prefix on http", {"name": "__Secure-session"}, HTTP),
    ("secure prefix in upper case on http", {"name": "__SECURE-session"}, HTTP),
    ("http prefix readable by scripts", {"name": "__Http-session", "http_only": False}, HTTPS),
    ("host-http prefix readable by scripts", {"name": "__Host-Http-s", "http_only": False}, HTTPS),
    ("host-http prefix with domain", {"name": "__host-http-s", "domain": "example.com"}, HTTPS),
    ("same-site none on http", {"same_site": "none"}, HTTP),
    ("partitioned on http", {"partitioned": True, "same_site": "none"}, HTTP),
    ("partitioned and lax", {"partitioned": True}, HTTPS),
    ("partitioned and strict", {"partitioned": True, "same_site": "strict"}, HTTPS),
    ("secure on plain http", {"secure": True}, "http://app.example.com"),
    ("secure on a host that only looks like loopback", {"secure": True}, "http://localhost.example.com"),
    ("domain of another site", {"name": "s", "domain": "evil.example"}, HTTPS),
    ("domain that only ends alike", {"name": "s", "domain": "ample.com"}, HTTPS),
    ("domain below the host", {"name": "s", "domain": "x.app.example.com"}, HTTPS),
    ("domain that is part of an address", {"name": "s", "domain": "0.0.1"}, "http://127.0.0.1:8000"),
]


@pytest.mark.parametrize(
    ("settings", "url"), [case[1:] for case in BROWSERS_WOULD_DROP], ids=[case[0] for case in BROWSERS_WOULD_DROP]
)
def test_a_cookie_that_browsers_drop_is_refused_with_a_valid_example(settings: dict[str, Any], url: str) -> None:
    with pytest.raises(ConfigurationError, match="for example"):
        CookieConfig(**settings).resolve(url)


def test_a_cookie_of_an_https_site_cannot_be_sent_over_http() -> None:
    with pytest.raises(ConfigurationError, match="secure=None"):
        CookieConfig(name="session", secure=False).resolve(HTTPS)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"secure": True}, HTTP),
        ({"secure": True}, "http://127.0.0.1:8000"),
        ({"secure": True}, "http://[::1]:8000"),
        ({"secure": True}, "http://app.localhost"),
        ({"name": "__Secure-s", "domain": "example.com"}, HTTPS),
        ({"name": "__host-x"}, HTTPS),
        ({"name": "s", "domain": "app.example.com"}, HTTPS),
        ({"name": "!#$%&'*+-.^_`|~"}, HTTPS),
    ],
)
def test_a_cookie_that_browsers_accept_is_accepted(settings: dict[str, Any], url: str) -> None:
    assert isinstance(CookieConfig(**settings).resolve(url), ResolvedCookie)


@pytest.mark.attack("58")
@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a;b", "a=b", "a,b", "a\r\nSet-Cookie: x", "a\0", "ä", "a\n", '"a"', "a/b", "\ud800"]
)
def test_an_invalid_cookie_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        CookieConfig(name=name)


@pytest.mark.attack("58")
@pytest.mark.parametrize("bad", ["a;b", "a,b", "a\rb", "a\nb", "a\0b", "a b", "ä", "a\n", "\ud800", "a\tb", "a\x7fb"])
def test_domain_and_path_cannot_add_attributes_or_headers(bad: str) -> None:
    with pytest.raises(ConfigurationError):
        CookieConfig(name="s", path="/" + bad)
    with pytest.raises(ConfigurationError):
        CookieConfig(name="s", domain=bad)


@pytest.mark.parametrize("domain", ["", ".example.com", "example.com.", "https://example.com", "a..b", "*.example.com", "-a.b"])
def test_a_domain_is_a_plain_host_name(domain: str) -> None:
    with pytest.raises(ConfigurationError, match=r"example\.com"):
        CookieConfig(name="s", domain=domain)


@pytest.mark.parametrize("path", ["", "app", "*"])
def test_a_path_begins_with_a_slash(path: str) -> None:
    with pytest.raises(ConfigurationError):
        CookieConfig(path=path)


@pytest.mark.parametrize("same_site", ["Lax", "", "default", "none; Secure", None])
def test_an_unknown_same_site_value_is_refused(same_site: Any) -> None:
    with pytest.raises(ConfigurationError, match="lax"):
        CookieConfig(same_site=same_site)


@pytest.mark.parametrize(
    "url", ["", "app.example.com", "ftp://a.example", "https://", "https://user:secret@a.example", "https://a b", "//a.example"]
)
def test_a_public_url_without_a_web_origin_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"https://app\.example\.com") as caught:
        CookieConfig().resolve(url)
    assert "secret" not in str(caught.value)


@pytest.mark.attack("asvs-3.3.5")
@pytest.mark.attack("55")
def test_a_header_above_4096_bytes_is_never_sent() -> None:
    cookie = CookieConfig().resolve(HTTPS)
    room = 4096 - len(cookie.set_header("", 60))
    assert len(cookie.set_header("x" * room, 60)) == 4096
    with pytest.raises(ConfigurationError, match="4097 bytes"):
        cookie.set_header("x" * (room + 1), 60)
    with pytest.raises(ConfigurationError, match="4096"):
        cookie.set_header("ü" * (room // 6 + 1), 60)


def test_attributes_without_room_for_a_session_are_refused_at_start() -> None:
    with pytest.raises(ConfigurationError, match="4096"):
        CookieConfig(name="s", path="/" + "x" * 4000).resolve(HTTPS)


def test_an_accepted_configuration_has_room_for_the_longest_session_id() -> None:
    """With a signature that consists of percent-encoded characters, and the longest lifetime of browsers."""
    ids = [new_session_id() for _ in range(4)]
    assert len(UncertainId(tuple(ids[:3]), ids[3], (10**19 - 1, 10**15 - 1)).text()) == MAX_ID_CHARS
    longest = "s:" + "x" * MAX_ID_CHARS + "." + "/" * 43
    room = 4096 - len(CookieConfig(name="s").resolve(HTTP).set_header(longest, LONGEST_SECONDS))
    cookie = CookieConfig(name="s" * (room + 1)).resolve(HTTP)
    assert len(cookie.set_header(longest, LONGEST_SECONDS)) == 4096
    with pytest.raises(ConfigurationError, match="4097 bytes"):
        CookieConfig(name="s" * (room + 2)).resolve(HTTP)


@pytest.mark.parametrize(("former", "form"), [("former_domains", "d{}.example.com"), ("former_paths", "/app/{}")])
def test_four_former_domains_or_paths_are_the_maximum(former: str, form: str) -> None:
    names = [form.format(number) for number in range(5)]
    CookieConfig(**{former: [*names[:4], names[0]]})
    with pytest.raises(ConfigurationError, match="at most 4"):
        CookieConfig(**{former: names})


def test_former_cookies_are_all_other_forms_that_a_browser_may_have() -> None:
    def forms(config: CookieConfig, url: str) -> list[tuple[str | None, str, bool]]:
        return [(each.domain, each.path, each.partitioned) for each in config.resolve(url).former]

    moved = CookieConfig(name="s", domain="example.com", former_domains=["APP.example.com"], former_paths=["/app"])
    every = {*product((None, "example.com", "app.example.com"), ("/", "/app"), (False, True))}
    assert len(forms(moved, HTTPS)) == 11
    assert {*forms(moved, HTTPS)} == every - {("example.com", "/", False)}
    assert forms(CookieConfig(), HTTPS) == [(None, "/", True)]
    assert forms(CookieConfig(name="s", former_paths=["/app"]), HTTP) == [(None, "/app", False)]


@pytest.mark.parametrize(
    ("settings", "known"), [({}, False), ({"former_domains": ["example.com"]}, True), ({"former_paths": ["/app"]}, True)]
)
def test_cookies_are_deleted_unseen_only_if_the_settings_name_them(settings: dict[str, list[str]], known: bool) -> None:
    assert CookieConfig(name="s", **settings).resolve(HTTPS).known_former is known


@pytest.mark.parametrize("settings", [{"former_domains": ["example.org"]}, {"name": "__Host-s", "former_paths": ["/app"]}])
def test_a_former_cookie_that_no_browser_can_have_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CookieConfig(**settings).resolve(HTTPS)


@pytest.mark.attack("55")
@pytest.mark.attack("asvs-3.3.5")
def test_a_real_session_cookie_is_small() -> None:
    header = CookieConfig().resolve(HTTPS).set_header(CookieSigner(["k" * 32]).sign(new_session_id()), 86400)
    assert len(header) < 200


@pytest.mark.attack("58")
def test_no_value_can_split_the_header() -> None:
    hostile = 'x\r\nSet-Cookie: evil=1; Domain=evil, "\0\u2028\x85'
    header = CookieConfig().resolve(HTTPS).set_header(hostile, 1)
    value = header.split(b"; ")[0].partition(b"=")[2]
    assert re.fullmatch(rb"[A-Za-z0-9%.!~*'()_-]+", value)


@pytest.mark.attack("58")
def test_a_lone_surrogate_in_a_value_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        CookieConfig().resolve(HTTPS).set_header("hidden\ud800", 1)
    assert caught.value.__context__ is None
    assert "hidden" not in str(caught.value)


def test_max_age_is_at_most_what_browsers_accept() -> None:
    assert b"; Max-Age=34560000;" in CookieConfig().resolve(HTTPS).set_header("x", 10**9)
