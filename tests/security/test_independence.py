"""The hostile provider shares no code with the library, and the simulated browser follows the cookie specification."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from tests.support.hostile_op.browser import Browser
from tests.support.hostile_op.cookie_jar import Context, CookieJar
from tests.support.hostile_op.provider import HostileOp
from tests.support.hostile_op.signing import half_hash

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent.parent / "support" / "hostile_op"
PROJECT = tomllib.loads((HERE.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
FORBIDDEN = {*PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], "joserfc", "authlib", "httpx2", "litestar"}
NOW = 1_800_000_000.0
TOP = Context(same_site=True, top_level=True, safe=True)


def imported(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(node.module or "")
    return found


def test_the_provider_imports_nothing_of_the_library() -> None:
    files = list(HERE.glob("*.py"))
    assert len(files) > 5
    names = {name for file in files for name in imported(file.read_text())}
    assert not {name.partition(".")[0] for name in names} & FORBIDDEN
    # Also not through other modules of the tests.
    assert all(name.startswith("tests.support.hostile_op.") for name in names if name.startswith("tests"))


def test_the_check_finds_nested_imports() -> None:
    assert imported("def f():\n    from session_core.oidc import jws\n") == {"session_core.oidc"}


def test_the_providers_half_hash_follows_the_specification() -> None:
    """The example of OpenID Connect Core A.3, so that a shared mistake in `at_hash` is detected."""
    assert half_hash("RS256", "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y") == "77QmUPtjPfzWtF2AnpK9RQ"


class TestCookieJar:
    @pytest.mark.parametrize(
        ("header", "url", "taken"),
        [
            ("a=1", "https://app.example/", True),
            ("__Host-a=1; Secure; Path=/", "https://app.example/", True),
            ("__Host-a=1; Path=/", "https://app.example/", False),
            ("__Host-a=1; Secure", "https://app.example/x/y", False),
            ("__Host-a=1; Secure; Path=/; Domain=app.example", "https://app.example/", False),
            ("__host-a=1; Secure; Path=/; Domain=app.example", "https://app.example/", False),
            ("=__Host-a=1; Secure; Path=/", "https://app.example/", False),
            ("__Secure-a=1", "https://app.example/", False),
            ("a=1; Secure", "http://app.example/", False),
            ("a=1; Secure", "http://localhost:8000/", True),
            ("a=1; Domain=example.org", "https://app.example/", False),
            ("a=1; Domain=example", "https://app.example/", False),
            ("a=1; SameSite=None", "https://app.example/", False),
            (f"a={'x' * 5000}", "https://app.example/", False),
        ],
    )
    def test_set_cookie_is_accepted_by_the_rules_of_browsers(self, header: str, url: str, taken: bool) -> None:
        jar = CookieJar(lambda: NOW)
        jar.set(header, url, TOP)
        assert bool(jar.names()) is taken

    @pytest.mark.parametrize(
        ("same_site", "context", "sent"),
        [
            ("Lax", Context(same_site=False, top_level=True, safe=True), True),
            ("Lax", Context(same_site=False, top_level=True, safe=False), False),
            ("Lax", Context(same_site=False, top_level=False, safe=True), False),
            ("Strict", Context(same_site=False, top_level=True, safe=True), False),
            ("Strict", Context(same_site=True, top_level=False, safe=False), True),
            ("None; Secure", Context(same_site=False, top_level=False, safe=False), True),
        ],
    )
    def test_cookies_are_sent_by_the_rules_of_browsers(self, same_site: str, context: Context, sent: bool) -> None:
        jar = CookieJar(lambda: NOW)
        jar.set(f"a=1; SameSite={same_site}", "https://app.example/", TOP)
        assert bool(jar.header("https://app.example/", context)) is sent

    def test_domain_path_max_age_and_order(self) -> None:
        time = [NOW]
        jar = CookieJar(lambda: time[0])
        for header in ("a=1", "b=2; Path=/x", "c=3; Domain=app.example", "d=4; Max-Age=10", "e=5; Secure"):
            jar.set(header, "https://www.app.example/", TOP)
        assert jar.header("https://www.app.example/x/y", TOP) == "b=2; a=1; c=3; d=4; e=5"
        assert jar.header("https://www.app.example/xy", TOP) == "a=1; c=3; d=4; e=5"
        assert jar.header("https://other.app.example/", TOP) == "c=3"
        assert jar.header("http://www.app.example/", TOP) == "a=1; c=3; d=4"
        time[0] += 10
        jar.set("a=1; Max-Age=0", "https://www.app.example/", TOP)
        assert jar.header("https://www.app.example/", TOP) == "c=3; e=5"


async def test_sec_fetch_and_origin_headers() -> None:
    async with HostileOp(lambda: NOW) as op, HostileOp(lambda: NOW) as other:
        browser = Browser(lambda: NOW)
        tab = browser.tab()
        await tab.open(f"{op.issuer}/jwks")
        assert op.calls[-1].headers["sec-fetch-site"] == "none"
        await tab.follow("/jwks")
        assert op.calls[-1].headers["sec-fetch-site"] == "same-origin"
        await tab.submit("/jwks", {"a": "b"})
        assert (op.calls[-1].headers["origin"], op.calls[-1].form) == (op.issuer, {"a": "b"})
        # Another port of a host is another origin of the same site; another host is another site.
        await tab.fetch(f"{other.issuer}/jwks")
        assert (other.calls[-1].headers["sec-fetch-site"], other.calls[-1].headers["sec-fetch-mode"]) == ("same-site", "cors")
        evil = browser.tab("https://evil.example/")
        await evil.frame(f"{op.issuer}/jwks")
        sent = op.calls[-1].headers
        assert (sent["sec-fetch-site"], sent["sec-fetch-dest"], "sec-fetch-user" in sent) == ("cross-site", "iframe", False)
        await evil.submit(f"{op.issuer}/jwks")
        assert op.calls[-1].headers["origin"] == "https://evil.example"
        await browser.close()
