"""Redirect targets of a login: a corpus of open redirects, and accepted values parsed as a browser does."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from session_core.oidc.login.return_to import local_return_to
from session_core.urls import base_url_of, packed, unpacked

SITE = "https://site.example"
DEFAULT = "/default"


def return_to(next_: object) -> str:
    return local_return_to(next_, default=DEFAULT)


def as_a_browser_reads(location: str) -> str:
    """The absolute URL a browser navigates to, with quirks of the WHATWG URL parser that `urljoin` lacks."""
    text = re.sub(r"[\t\n\r]", "", location.strip("".join(map(chr, range(0x21)))))
    before_query = re.match(r"[^?#]*", text)
    assert before_query is not None
    text = before_query[0].replace("\\", "/") + text[before_query.end() :]
    if scheme := re.match(r"(https?):/*", text, re.IGNORECASE):
        # A special scheme needs no slashes: https:e, https:/e and https:///e all go to the host e.
        text = f"{scheme[1]}://{text[scheme.end() :]}"
    elif re.match(r"[/\\]{2,}", text):
        text = "//" + text.lstrip("/")
    elif text.startswith("/"):
        path, question, query = text.partition("?")
        return SITE + without_dot_segments(path) + question + query
    return urljoin(SITE, text)


def without_dot_segments(path: str) -> str:
    """The path as WHATWG resolves it: encoded dots count, empty segments stay (`urljoin` drops them)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for position, segment in enumerate(segments):
        dots = re.sub("%2e", ".", segment, flags=re.IGNORECASE)
        if dots not in {".", ".."}:
            kept.append(segment)
            continue
        if dots == "..":
            kept = kept[:-1]
        if position == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def leaves_the_site(location: str) -> bool:
    """Whether the browser leaves the site, also after intermediate servers decoded and normalised the path again."""
    for _ in range(3):
        try:
            parts = urlsplit(as_a_browser_reads(location))
        except ValueError:
            return True
        if (parts.scheme, parts.netloc) != ("https", "site.example") or parts.path.startswith("//"):
            return True
        path, question, query = location.partition("?")
        location = unquote(path) + question + query
    return False


ACCEPTED = [
    ("/", "/"),
    ("/account", "/account"),
    ("/account/", "/account/"),
    ("/a/b.c/d-e_f~g", "/a/b.c/d-e_f~g"),
    ("/a:b", "/a:b"),
    ("/javascript:alert(1)", "/javascript:alert(1)"),
    ("/caf%C3%A9", "/caf%C3%A9"),
    ("/café/日本", "/caf%C3%A9/%E6%97%A5%E6%9C%AC"),
    ("/with%20space", "/with%20space"),
    ("/search?q=a+b&r=%26&s[]=", "/search?q=a+b&r=%26&s%5B%5D="),
    ("/list?filter[status]=open|closed", "/list?filter%5Bstatus%5D=open%7Cclosed"),
    ("/list?where={a}^`b`", "/list?where=%7Ba%7D%5E%60b%60"),
    ("/x?q=%FF", "/x?q=%FF"),
    ("/x?q=100%", "/x?q=100%25"),
    ("/x?q=%zz", "/x?q=%25zz"),
    ("/x?next=/y", "/x?next=/y"),
    ("/x?next=%2Fy%3Fa%3D1", "/x?next=%2Fy%3Fa%3D1"),
    ("/x?next", "/x?next"),
    ("/x?next=2", "/x?next=2"),
    ("/x?a=1&next=eyJpZCI6MX0", "/x?a=1&next=eyJpZCI6MX0"),
    ("/" + "a" * 2047, "/" + "a" * 2047),
    ("/x?" + "a" * 2045, "/x?" + "a" * 2045),
    ("/search?q=a+b&r=%26&page=2", "/search?q=a+b&r=%26&page=2"),
    ("/search?q=é😀", "/search?q=%C3%A9%F0%9F%98%80"),
    ("/search?q=//x/..", "/search?q=//x/.."),
    ("/search?mail=a@b.example", "/search?mail=a@b.example"),
    ("/search?url=https://other.example/", "/search?url=https://other.example/"),
    ("/search?nextpage=2&n=next", "/search?nextpage=2&n=next"),
    ("/search?q=100%252525", "/search?q=100%252525"),
    ("/search?q=%25252525", "/search?q=%25252525"),
    ("/page?", "/page"),
    ("/page#part", "/page"),
    ("/page?a=1#part/two?x", "/page?a=1"),
    ("/?a=1", "/?a=1"),
    ("/authors", "/authors"),
    ("/50%25", "/50%25"),
    ("/50%25-off/%25g", "/50%25-off/%25g"),
    ("/.well-known/x", "/.well-known/x"),
    ("/blob/main/.github/ci.yml", "/blob/main/.github/ci.yml"),
    ("/tag/😀", "/tag/%F0%9F%98%80"),
    ("/100\u20ac\u2013200\u20ac/\u2116/\u201cx\u201d", "/100%E2%82%AC%E2%80%93200%E2%82%AC/%E2%84%96/%E2%80%9Cx%E2%80%9D"),
    ("/\u0646\u0645\u06cc\u200c\u062e", quote("/\u0646\u0645\u06cc\u200c\u062e")),
    ("/search?q=\u0646\u0645\u06cc\u200c\u062e", "/search?q=" + quote("\u0646\u0645\u06cc\u200c\u062e")),
    ("/search?q=\u6771\u4eac\u3000\u5929\u6c17", "/search?q=" + quote("\u6771\u4eac\u3000\u5929\u6c17")),
    (
        "/col\u00b7lecci\u00f3/\u3053\uff5e\u3001\u300c\u00d7\u300d",
        quote("/col\u00b7lecci\u00f3/\u3053\uff5e\u3001\u300c\u00d7\u300d"),
    ),
    ("/search?q=10%C2%A0km", "/search?q=10%C2%A0km"),
    ("/x?" + "[" * 2045, "/x?" + "%5B" * 2045),
    ("/x?" + "%7c" * 2045, "/x?" + "%7c" * 2045),
    ("/" + "%5B%5D" * 1000, "/" + "%5B%5D" * 1000),
    ("/x/auth/", "/x/auth/"),
]


@pytest.mark.parametrize(("next_", "expected"), ACCEPTED)
def test_a_local_path_is_kept(next_: str, expected: str) -> None:
    assert return_to(next_) == expected


OPEN_REDIRECTS = [
    "//evil.example", "///evil.example", "////evil.example", "/\\evil.example", "\\\\evil.example", "\\/evil.example",
    "/\\/evil.example", "//\\evil.example", "\\evil.example", "/x\\evil", "/%09/evil.example", "/\t/evil.example",
    "/\n/evil.example", "/\r/evil.example", "\t//evil.example", "/\r\n/evil.example", "/\0/evil.example", " //evil.example",
    "//evil.example ", "/ /evil.example", "\u00a0//evil.example", "/\u00a0/evil.example", "/\x0b/evil.example",
    "/\x85/evil.example",
    "/\u2028/evil.example", "/%2f/evil.example", "/%2F%2Fevil.example", "/%2fevil.example", "/%5cevil.example",
    "/%5C/evil.example",
    "%2f%2fevil.example", "/%252f/evil.example", "/%25252f/evil.example", "/%25%32f/evil.example",
    "/%25%32%66/evil.example", "/x%2525", "/%255c/evil.example", "/%2525", "/x/%00",
    "/%0d%0aLocation:%20https://evil.example", "/%0a/evil.example", "/x%0d%0aSet-Cookie:%20a=b", "/x?y=%0d%0aSet-Cookie:%20a=b",
    "/x\r\nSet-Cookie: a=b", "/x?y=\r\nSet-Cookie: a=b", "/x%7f", "/x\x7f",
    "https://evil.example", "https:evil.example", "https:/evil.example", "https:///evil.example", "HTTPS://evil.example",
    "http:evil.example", "h\tttps://evil.example", "https\t://evil.example", "javascript:alert(1)", "java\nscript:alert(1)",
    "JaVaScRiPt:alert(1)", "\x01javascript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd",
    "mailto:a@b.example",
    "blob:https://evil.example/x", "view-source:https://evil.example", "https://site.example",
    "https://site.example@evil.example",
    "https://evil.example#@site.example", "//site.example@evil.example", "@evil.example", "/@evil.example", "/x@evil.example",
    "//@evil.example", ":@evil.example", "/:@evil.example", ".evil.example", "evil.example", "evil.example/x", "?next=x",
    "?x", "#x", "",
    " ", " /", "/ ", "\ufeff/", "/\ufeff/evil.example", "/.", "/..", "/./", "/../", "/.//evil.example", "/..//evil.example",
    "/../..//evil.example", "/x/..//evil.example", "/x/../..//evil.example", "/%2e/evil.example", "/%2e%2e//evil.example",
    "/%2E%2E/x", "/.%2e//evil.example", "/..;//evil.example", "/..;/x", "/;/evil.example", "/x;/evil.example",
    "/x//evil.example", "/x//",
    "/.;x", "/..x", "/.-", "/\uff0fevil.example", "\uff0f\uff0fevil.example", "/\uff0f/evil.example", "//evil\u3002example",
    "/\uff0e\uff0e/x",
    "/\uff3cevil.example", "/%EF%BC%8Fevil.example", "/%ef%bc%8e%ef%bc%8e/x", "/\u2215evil.example", "/\u2044evil.example",
    "/\u29f8evil",
    "/\u2024\u2024/x", "/\u3002", "/\u202eevil", "/%E2%80%AEevil", "/\u2066evil", "/\u200b/evil.example",
    "/%E2%80%8B/evil.example",
    "/\u00ad/evil", "/%C2%A0/evil", "/\u2100", "/x?q=\u202e", "/x?q=%E2%80%AE", "/x?q=\u2028", "/x?q=%F3%A0%80%81",
    "/\u2488", "/\uff1a", "/\ufe68x", "/\ue000", "/x?q=\u2067", "/x?q=%E2%80%A9",
    "/\ud800", "/\udfff/evil", "/x?q=\ud83d", "/%ED%A0%80", "/%FF", "/%C0%AF/evil.example", "/%C0%AE%C0%AE/", "/%E0%80%AF",

    "/%", "/%2", "/%zz", "/%u002f", "/<script>", '/"onclick=', "/x?<script>", '/x?"', "/`", "/{x}",
    "/x|y", "/x^y",
    "/[::1]", "/x?q=\\", "/x#\\", "/x#\n", "/x# y", "/x##y",
    "/x?next=//evil.example", "/x?a=1&next=//evil.example", "/x?NEXT=//evil.example",
    "/x?next=/auth/logout", "/x?next=%2F%2Fevil.example", "/x?next=https:evil.example", "/x?a=1;next=javascript:alert(1)",
    "/x?next=%09//evil.example", "/x?next=/%5cevil.example", "/x?next=\\\\evil.example",
    "/x?%6eext=//evil.example", "/x?%6e%65%78%74%3d//evil.example", "/x?a=%2Fy%3Fnext%3D%2F%2Fevil.example",
    "/x?a=%252Fy%253Fnext%253D//e",
    "/x?y=%2525252525252525", "/x?y=%2525252525",
    "/" + "a" * 8192, "/x?y=" + "a" * 8192, "/" + "a" * 2048, "/" + "é" * 1000, "/x?" + "[" * 2046, "/" + "%5B" * 2048,
    "/x#" + "a" * 8192, "/" * 8192,
]  # fmt: skip


@pytest.mark.attack("asvs-3.7.2")
@pytest.mark.attack("56")
@pytest.mark.parametrize("next_", OPEN_REDIRECTS, ids=lambda next_: ascii(next_[:40]))
def test_other_values_become_the_default(next_: str) -> None:
    assert return_to(next_) == DEFAULT


@pytest.mark.attack("56")
def test_nested_targets_are_checked_to_a_limited_depth() -> None:
    """A link with hundreds of them must not reach the interpreter's limit of recursion."""
    assert return_to("/a" + "?next=/a" * 4) == "/a" + "?next=/a" * 4
    for layers in (5, 290):
        assert return_to("/a" + "?next=/a" * layers) == DEFAULT
    assert return_to("/a" + "?next=/a" * 3 + "?next=//evil.example") == DEFAULT


@pytest.mark.attack("56")
@pytest.mark.parametrize("next_", [None, b"/x", 1, ["/x"], ("/x",), {"/x": 1}, object(), True])
def test_values_other_than_text_become_the_default(next_: object) -> None:
    assert return_to(next_) == DEFAULT


class TestForbiddenPrefixes:
    @pytest.mark.parametrize(
        "next_",
        [
            "/auth/login", "/auth/logout", "/auth/", "/auth", "/auth/callback?code=x&state=y", "/AUTH/login", "/%61uth/login",
            "/aut%68", "/auth?x", "/auth#x", "/auth/login?a=1", "/auth%2Flogin", "/./auth/login", "/x/../auth/login",
        ],
    )  # fmt: skip
    def test_login_routes_are_no_target(self, next_: str) -> None:
        assert return_to(next_) == DEFAULT

    def test_the_application_can_set_the_forbidden_prefixes(self) -> None:
        assert local_return_to("/auth/x", forbidden_prefixes=()) == "/auth/x"
        assert local_return_to("/oidc/start", forbidden_prefixes=("/auth/", "/oidc/")) == "/"
        assert local_return_to("/oidc", forbidden_prefixes=("/oidc/",)) == "/"


def test_without_a_setting_the_default_is_the_home_page() -> None:
    assert local_return_to(None) == "/"


hostile_pieces = st.sampled_from(
    ["/", "//", "\\", ".", "..", "%2f", "%5C", "%2e", "%25", "%09", "\t", "\n", "\0", "@", ":", ";", "?", "#", "&",
     "next=", "https:",
     "javascript:", "evil.example", "a", "é", "%C3%A9", "\uff0f", "\uff0e", "\u202e", "\ud800", " ", "%", "auth", "%20",
     "+", "[", "\u3002"]
)  # fmt: skip
hostile_text = st.text(st.characters(exclude_categories=())) | st.lists(hostile_pieces, max_size=12).map("".join)
path_like = st.lists(hostile_pieces, max_size=8).map(lambda pieces: "/a" + "".join(pieces))


@pytest.mark.attack("56")
@given(hostile_text | hostile_text.map("/".__add__) | path_like)
@example("/..//e")
@example("/a?" + "%25" * 600)
@settings(deadline=None, max_examples=1000)
def test_an_accepted_value_stays_on_this_site_and_fits_a_location_header(next_: str) -> None:
    result = return_to(next_)
    assert not leaves_the_site(result), result
    assert re.fullmatch(r"/[!-~]*", result)
    assert len(packed(result)) <= 2048
    assert unpacked(packed(result)).lower() == result.lower()
    assert return_to(result) == result
    assert urlsplit(urljoin(SITE + "/auth/login", result))[:2] == ("https", "site.example")


like_a_slash_or_dot = "\u2044\u2215\u2216\u29f5\u29f8\u29f9\u3002./\\"
in_a_path = st.characters(categories=["L", "M", "N", "P", "S"], exclude_characters=like_a_slash_or_dot) | st.sampled_from(
    "-._~!$&'()*+,=:;@\"<>[]^`{|}%?# "
)
in_a_query = st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]).map(quote) | st.sampled_from(
    "-._~!$&'()*+,=:/?@;[]^`{|}\\%"
)


@given(st.lists(st.text(in_a_path, min_size=1, max_size=40), max_size=12), st.lists(in_a_query, max_size=600).map("".join))
@example(["a"] * 1000, "")
@example(["list"], "[]{}^|" * 340)
@settings(deadline=None)
def test_the_login_accepts_every_target_that_a_guard_writes(segments: list[str], query: str) -> None:
    path = "/" + "/".join(segments)
    assume(all(not segment.startswith(".") and re.search("%[0-9A-Fa-f]{2}", segment) is None for segment in segments))
    assume(all(unicodedata.normalize("NFKC", char) == char for char in path))
    assume("next" not in unquote(query).lower() and not re.search("%(?:[01][0-9a-f]|7f)", query, re.IGNORECASE))
    written = base_url_of(SITE).page({"path": path, "query_string": query.encode()})
    assume(len(packed(written)) <= 2048)
    assert return_to(written) == written


@pytest.mark.parametrize(
    "location",
    ["//e", "/\\e", "\\\\e", "/\t/e", "https:e", "https:/e", "javascript:x", "/%2f/e", "/%2fe", "/%5ce", "/%09/e",
     "/%252fe", "/.//e", "/..//e",
     "/%2e%2e//e", " //e"],
)  # fmt: skip
def test_the_simulated_browser_follows_each_classic_open_redirect(location: str) -> None:
    """The property above proves something only if its parser follows the redirects that a naive check allows."""
    assert leaves_the_site(location)


def test_the_property_test_detects_a_naive_check() -> None:
    def naive(next_: str) -> str:
        return next_ if next_.startswith("/") and not next_.startswith("//") else DEFAULT

    taken_in = [next_ for next_ in OPEN_REDIRECTS if leaves_the_site(naive(next_))]
    assert len(taken_in) > 20


def test_a_dropped_fragment_counts_for_the_length_that_is_looked_at() -> None:
    """Each of the 2048 characters may be percent-encoded."""
    longest = "/#" + "a" * (3 * 2048 - 2)
    assert local_return_to(longest, default="/home") == "/"
    assert local_return_to(longest + "a", default="/home") == "/home"
