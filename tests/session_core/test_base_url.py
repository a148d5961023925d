"""The address of the application: its parts, and how an address of a browser and one of the application become each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from session_core.errors import ConfigurationError
from session_core.urls import (
    BaseUrl,
    base_url_of,
    encoded_query,
    is_provider_url,
    network_of,
    normalised_origin,
    origin_of,
    packed,
    unpacked,
)  # fmt: skip

SHOP = BaseUrl("https://example.com", "/shop")
ROOT = BaseUrl("https://example.com", "")
LONG = ".".join(["a" * 49] * 5)


def request(path: str = "/page", *, app_path: str | None = None, **changes: Any) -> dict[str, Any]:
    scope = {"method": "GET", "path": path, "query_string": b"", "headers": [], **changes}
    return scope if app_path is None else {**scope, "litestar_app": SimpleNamespace(path=app_path)}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com", ROOT), ("https://example.com/", ROOT), ("https://example.com/shop", SHOP),
        ("HTTPS://Example.com:443/shop/", SHOP), ("http://x/a.b/~c/d_e-f", BaseUrl("http://x", "/a.b/~c/d_e-f")),
        ("http://x/%41", None), ("http://x/.a", None), ("http://x/a/../b", None), ("http://x//a", None), ("http://x/a//b", None),
        ("http://x/a;b", None), ("http://x/a b", None), ("http://x/a\n", None), ("http://x?a", None), ("http://x/a#b", None),
        ("http://x#a", None), ("http://a@x/", None), ("x/a", None), ("", None),
    ],
)  # fmt: skip
def test_a_public_url_has_an_origin_and_a_plain_path(url: str, expected: BaseUrl | None) -> None:
    if expected is None:
        with pytest.raises(ConfigurationError):
            base_url_of(url)
    else:
        assert base_url_of(url) == expected


def test_the_origin_of_a_url_is_that_of_its_scheme_host_and_port() -> None:
    for rest in ("", "/a/b", "?a=/b", "#a", "/a?b#c"):
        assert origin_of(f"http://x:81{rest}") == "http://x:81"
    for url in ("x:81", "//x:81", "ftp://x", "http:/x", "http://a:b@x/"):
        with pytest.raises(ConfigurationError):
            origin_of(url)


@pytest.mark.parametrize(
    ("origin", "host", "port"),
    [
        ("https://example.com", "example.com", 443), ("http://example.com", "example.com", 80),
        ("http://example.com:8080", "example.com", 8080), ("http://[::1]", "::1", 80), ("https://[::1]:8443", "::1", 8443),
    ],
)  # fmt: skip
def test_host_and_port_are_the_ones_of_the_origin(origin: str, host: str, port: int) -> None:
    base = BaseUrl(origin, "/shop")
    assert (base.host, base.port, base.url) == (host, port, f"{origin}/shop")


def test_the_path_of_the_url_is_put_before_a_path_and_taken_off() -> None:
    assert (SHOP.of("/page"), ROOT.of("/page")) == ("/shop/page", "/page")
    for path, local in {
        "/shop": "/", "/shop/": "/", "/shop/page": "/page", "/shop?a": "/?a", "/shop#a": "/#a",
        "/shopping": "/shopping", "/page": "/page", "/": "/", "/a/shop/b": "/a/shop/b",
    }.items():  # fmt: skip
        assert SHOP.local(path) == local
        assert ROOT.local(path) == path


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        (request("/page"), ""),
        (request("/shop/page", root_path="/shop"), "/shop"),
        (request("/page", root_path="/shop"), "/shop"),
        (request("/page", root_path="/shop/"), "/shop"),
        (request("/page", root_path="/", raw_path=b"/page"), ""),
        (request("/page", raw_path=None), ""),
        (request("/page", raw_path=b"/shop/page"), "/shop"),
        (request("/page", raw_path=b"/shop/page?x=/page"), "/shop"),
        (request("/page", raw_path=b"/sh%6fp/page"), "/shop"),
        (request("/", raw_path=b"/shop/"), "/shop"),
        (request("/", raw_path=b"/shop"), "/shop"),
        (request("/page", raw_path=b"/other"), ""),
        (request("/page", root_path="/shop", raw_path=b"/shop/page"), "/shop"),
        (request("/page", root_path="/shop", raw_path=b"/shop/area/page"), "/shop/area"),
        (request("/page", root_path="/shop", raw_path=b"/area/page"), "/shop/area"),
        (request("/page", root_path="/shop", raw_path=b"/shopping/page"), "/shop/shopping"),
        (request("/page", app_path="/area"), "/area"),
        (request("/page", app_path="/area/"), "/area"),
        (request("/page", app_path="/"), ""),
        (request("/page", root_path="/shop", app_path="/area"), "/shop/area"),
        (request("/page", root_path="/shop/area", app_path="/area"), "/shop/area"),
        (request("/page", root_path="//evil.example"), ""),
        (request("/page", root_path="/../a"), ""),
        (request("/page", root_path="/a;b"), ""),
    ],
)
def test_the_path_below_which_a_request_arrived(scope: dict[str, Any], path: str) -> None:
    assert ROOT.at(scope) == BaseUrl(ROOT.origin, path)
    assert SHOP.at(scope) is SHOP


@pytest.mark.parametrize(
    ("base", "scope", "page"),
    [
        (ROOT, request("/page"), "/page"),
        (SHOP, request("/page"), "/shop/page"),
        (SHOP, request("/shop/page"), "/shop/page"),
        (SHOP, request("/"), "/shop/"),
        (ROOT, request("/a b/ü"), "/a%20b/%C3%BC"),
        (ROOT, request("/a:b;c"), "/a:b%3Bc"),
        (ROOT, request("/page", query_string=b"a=1&b=[2]"), "/page?a=1&b=%5B2%5D"),
        (ROOT, request("/page", query_string=b"a=\xff"), "/page?a=%FF"),
        (BaseUrl(ROOT.origin, "/area"), request("/area/page", app_path="/area"), "/area/page"),
        (BaseUrl(ROOT.origin, "/area"), request("/area/page", app_path="/area/"), "/area/page"),
        (BaseUrl(ROOT.origin, "/shop/area"), request("/area/page", app_path="/area"), "/shop/area/page"),
        (BaseUrl(ROOT.origin, "/shop/area"), request("/area", app_path="/area"), "/shop/area/"),
        (ROOT, request("/page", app_path="/"), "/page"),
    ],
)
def test_the_page_of_a_request_as_the_browser_shows_it(base: BaseUrl, scope: dict[str, Any], page: str) -> None:
    assert base.page(scope) == page


@pytest.mark.parametrize(
    ("origin", "hosts", "changes", "elsewhere"),
    [
        ("http://127.0.0.1:8000", [b"localhost:8000"], {}, True),
        ("http://localhost:8000", [b"127.0.0.1:8000"], {}, True),
        ("http://localhost:8000", [b"[::1]:8000"], {}, True),
        ("http://localhost", [b"127.0.0.1"], {}, True),
        ("http://localhost:8000", [b"127.0.0.1:8000"], {"method": "HEAD"}, True),
        ("http://localhost:8000", [b"127.0.0.1:8000"], {"method": "POST"}, False),
        ("http://localhost:8000", [b"localhost:8000"], {}, False),
        ("http://localhost:8000", [b"127.0.0.1:8001"], {}, False),
        ("http://localhost:8000", [b"127.0.0.1:7999"], {}, False),
        ("http://localhost:8000", [b"127.0.0.1"], {}, False),
        ("http://localhost:8000", [b"evil.example:8000"], {}, False),
        ("http://localhost:8000", [b"127.0.0.1:8000", b"127.0.0.1:8000"], {}, False),
        ("http://localhost:8000", [], {}, False),
        ("http://localhost:8000", [b"a b"], {}, False),
        ("http://example.com:8000", [b"127.0.0.1:8000"], {}, False),
    ],
)
def test_a_browser_at_another_name_of_this_machine_is_sent_to_the_right_one(
    origin: str, hosts: list[bytes], changes: dict[str, Any], elsewhere: bool
) -> None:
    headers = [(b"accept", b"127.0.0.1:8000"), *((b"host", host) for host in hosts), (b"x-host", b"x")]
    scope = request("/page", query_string=b"a=1", headers=headers, **changes)
    assert BaseUrl(origin, "/shop").elsewhere(scope) == (f"{origin}/shop/page?a=1" if elsewhere else None)


@pytest.mark.parametrize(
    ("url", "by_https", "by_http"),
    [
        ("https://op.example/x", True, True), ("http://op.example/x", False, False), ("http://localhost/x", False, True),
        ("http://127.0.0.1:9000", False, True), ("http://[::1]:9000", False, True), ("http://[::1]", False, True),
        ("ftp://localhost", False, False), ("https://", False, False), ("", False, False),
    ],
)  # fmt: skip
def test_a_provider_has_https_or_is_on_this_machine(url: str, by_https: bool, by_http: bool) -> None:
    assert is_provider_url(url, allow_http=False) is by_https
    assert is_provider_url(url, allow_http=True) is by_http


@pytest.mark.parametrize(
    ("origin", "normalised"),
    [
        ("http://x:1", "http://x:1"), ("http://x:65535", "http://x:65535"), ("http://x:65536", None), ("http://x:0", None),
        ("https://x:443", "https://x"), ("https://x:80", "https://x:80"), ("http://x:443", "http://x:443"),
        ("http://x/", None), ("http://x\n", None), ("http://x:1\n", None),
        (f"http://{LONG}.abc", "same"), (f"http://{LONG}.abcd", None), ("http://1.2.3.4", "same"), ("http://x.0x1g", "same"),
    ],
)  # fmt: skip
def test_an_origin_is_written_as_browsers_write_it(origin: str, normalised: str | None) -> None:
    assert normalised_origin(origin) == (origin if normalised == "same" else normalised)


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"), ("unix:socket", "unix:socket"), ("", ""),
    ],
)  # fmt: skip
def test_a_client_is_its_address_or_its_ipv6_network(client: str, network: str) -> None:
    assert network_of(client) == network


def test_a_query_is_encoded_as_rfc_3986_writes_it() -> None:
    assert encoded_query("a=%41&b=100%&c=%4&d=[]^`{|}") == "a=%41&b=100%25&c=%254&d=%5B%5D%5E%60%7B%7C%7D"
    assert encoded_query("a-._~!$&'()*+,=:/?@;") == "a-._~!$&'()*+,=:/?@;"
    assert encoded_query("ü\udcff") == "%C3%BC%FF"
    with pytest.raises(UnicodeError):
        encoded_query("\ud800")


def test_a_packed_target_is_as_long_as_in_the_browser() -> None:
    target = "/a?b=%5B%5D%5E%60%7B%7C%7D%20%5C%C3%BC"
    assert packed(target) == "/a?b=[]^`{|}%20%5C%C3%BC"
    assert packed("%5b%7b") == "[{"
    assert unpacked(packed(target)) == target
