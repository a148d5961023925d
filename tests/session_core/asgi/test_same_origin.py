"""Detection of cross-site requests by `Sec-Fetch-Site`, `Origin` and related headers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_core.asgi.same_origin import (
    CrossSiteReason,
    SameOriginRule,
    _parsed,
    cross_site_reason,
    cross_site_websocket_reason,
    is_plainly_same_origin,
    is_speculative,
    is_user_navigation,
    sent_origin,
)
from session_core.asgi_types import Receive, Scope, Send
from session_core.errors import ConfigurationError, CrossSiteRequestError, PlainHttpRequestError
from session_core.events import Events
from session_core.urls import origin_of
from tests.support.cross_site_table import Combination, read_table
from tests.support.sessions import Recorder, make_config

OURS = "https://app.example.com"
TRUSTED = "https://admin.example.com"


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in values.items()]
    return [(b"host", b"app.example.com"), *named]


def judge(
    *sent: tuple[bytes, bytes], method: str = "POST", trusted: frozenset[str] = frozenset(), **values: str
) -> CrossSiteReason | None:
    return cross_site_reason(method, [*headers(**values), *sent], public_origin=OURS, trusted_origins=trusted)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_safe_methods_pass_from_any_site(method: str) -> None:
    assert judge(method=method, sec_fetch_site="cross-site", origin="https://evil.example") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "get", "X-NEW", ""])
def test_every_other_method_is_checked(method: str) -> None:
    assert judge(method=method, sec_fetch_site="cross-site") == "sec_fetch_site_cross_site"
    assert judge(method=method, origin="https://evil.example") == "origin_mismatch"


class TestSecFetchSiteDecides:
    @pytest.mark.parametrize("origin", [OURS, "https://internal.example", "http://127.0.0.1:8000", "null"])
    def test_same_origin_passes_under_any_host_and_without_a_referrer(self, origin: str) -> None:
        assert judge(sec_fetch_site="same-origin", origin=origin) is None
        assert judge(sec_fetch_site="same-origin") is None

    @pytest.mark.parametrize("origin", ["", "Null", "garbage", "https://", f"{OURS}/", f"{OURS}, {OURS}", "file://", "x" * 4096])
    @pytest.mark.parametrize("site", ["same-origin", "none", "same-site", "cross-site"])
    def test_a_malformed_origin_is_refused_regardless_of_other_headers(self, site: str, origin: str) -> None:
        assert judge(sec_fetch_site=site, origin=origin) == "origin_invalid"
        assert not is_plainly_same_origin(headers(sec_fetch_site=site, origin=origin))

    @pytest.mark.attack("60")
    @pytest.mark.parametrize(
        ("origin", "reason"),
        [
            ("null", "origin_null"),
            ("https://evil.example", "origin_mismatch"),
            ("https://x.app.example.com", "origin_mismatch"),
            ("http://app.example.com", "origin_mismatch"),
            (TRUSTED, "origin_mismatch"),
            (None, "sec_fetch_site_none"),
        ],
    )
    def test_none_without_our_origin_is_refused(self, origin: str | None, reason: str) -> None:
        sent = {} if origin is None else {"origin": origin}
        assert judge(sec_fetch_site="none", **sent) == reason
        assert cross_site_websocket_reason(headers(sec_fetch_site="none", **sent), public_origin=OURS) == reason

    def test_none_with_our_or_a_trusted_origin_passes(self) -> None:
        assert judge(sec_fetch_site="none", origin=OURS) is None
        assert judge(sec_fetch_site="none", origin=TRUSTED, trusted=frozenset({TRUSTED})) is None

    @pytest.mark.parametrize(
        ("site", "reason"),
        [
            ("cross-site", "sec_fetch_site_cross_site"),
            ("same-site", "sec_fetch_site_same_site"),
            ("", "sec_fetch_site_invalid"),
            ("Same-Origin", "sec_fetch_site_invalid"),
            ("same-origin, same-origin", "sec_fetch_site_invalid"),
            (" same-origin", "sec_fetch_site_invalid"),
            ("new-value", "sec_fetch_site_invalid"),
            ("\xff", "sec_fetch_site_invalid"),
        ],
    )
    def test_other_sites_subdomains_and_unknown_values_are_refused_even_with_our_origin(self, site: str, reason: str) -> None:
        assert judge(sec_fetch_site=site) == reason
        assert judge(sec_fetch_site=site, origin=OURS) == reason

    @pytest.mark.parametrize("first", ["same-origin", "none", "cross-site"])
    @pytest.mark.parametrize("second", [b"same-origin", b"none", b""])
    def test_a_repeated_header_is_refused(self, first: str, second: bytes) -> None:
        assert judge((b"sec-fetch-site", second), sec_fetch_site=first, origin=OURS) == "sec_fetch_site_invalid"

    @pytest.mark.parametrize("site", ["same-origin", "none", "same-site", "cross-site"])
    def test_two_origins_are_refused(self, site: str) -> None:
        for second in (OURS, "null"):
            sent = (b"origin", second.encode())
            assert judge(sent, sec_fetch_site=site, origin=OURS, trusted=frozenset({OURS})) == "origin_repeated"

    @pytest.mark.parametrize("site", ["same-site", "cross-site"])
    def test_only_a_trusted_origin_passes(self, site: str) -> None:
        trusted = frozenset({TRUSTED})
        assert judge(sec_fetch_site=site, origin=TRUSTED, trusted=trusted) is None
        assert judge(sec_fetch_site=site, origin="https://evil.example", trusted=trusted) is not None
        assert judge(sec_fetch_site=site, origin="null", trusted=trusted) is not None
        assert judge(sec_fetch_site=site, trusted=trusted) is not None
        assert judge((b"origin", TRUSTED.encode()), sec_fetch_site=site, origin=TRUSTED, trusted=trusted) is not None

    def test_a_malformed_value_is_refused_even_for_a_trusted_origin(self) -> None:
        assert judge(sec_fetch_site="x", origin=TRUSTED, trusted=frozenset({TRUSTED})) == "sec_fetch_site_invalid"


class TestOriginDecidesWithoutSecFetchSite:
    @pytest.mark.parametrize("origin", [OURS, "https://app.example.com:443", "HTTPS://APP.EXAMPLE.COM"])
    def test_our_origin_passes(self, origin: str) -> None:
        assert judge(origin=origin) is None

    def test_a_trusted_origin_passes(self) -> None:
        assert judge(origin=TRUSTED, trusted=frozenset({TRUSTED})) is None

    @pytest.mark.parametrize(
        ("origin", "reason"),
        [
            ("https://evil.example", "origin_mismatch"),
            ("http://app.example.com", "origin_mismatch"),
            ("https://app.example.com:8443", "origin_mismatch"),
            ("http://app.example.com:443", "origin_mismatch"),
            ("https://app.example.com.evil.example", "origin_mismatch"),
            ("https://evilapp.example.com", "origin_mismatch"),
            ("https://x.app.example.com", "origin_mismatch"),
            ("https://app.example.co", "origin_mismatch"),
            (TRUSTED, "origin_mismatch"),
            ("null", "origin_null"),
            ("Null", "origin_invalid"),
            ("", "origin_invalid"),
            ("app.example.com", "origin_invalid"),
            ("//app.example.com", "origin_invalid"),
            ("https://app.example.com/", "origin_invalid"),
            ("https://app.example.com@evil.example", "origin_invalid"),
            ("https://evil.example\\@app.example.com", "origin_invalid"),
            ("https://evil.example#app.example.com", "origin_invalid"),
            ("https://app.example.com.", "origin_invalid"),
            ("https://app.example.com:", "origin_invalid"),
            ("https://app.example.com:99999", "origin_invalid"),
            ("https://app.example.com:0", "origin_invalid"),
            ("https://app.example.com https://evil.example", "origin_invalid"),
            ("https://app.example.com, https://evil.example", "origin_invalid"),
            ("https://app.example.com\n", "origin_invalid"),
            ("https://app.example.com\0", "origin_invalid"),
            ("ftp://app.example.com", "origin_invalid"),
            ("file://", "origin_invalid"),
            ("chrome-extension://abcdef", "origin_invalid"),
            ("\xff", "origin_invalid"),
        ],
    )
    def test_every_other_origin_is_refused(self, origin: str, reason: str) -> None:
        assert judge(origin=origin) == reason

    def test_two_origins_are_refused_even_when_one_or_both_are_ours(self) -> None:
        assert judge((b"origin", b"https://evil.example"), origin=OURS) == "origin_repeated"
        assert judge((b"origin", OURS.encode()), origin=OURS) == "origin_repeated"

    def test_on_http_the_port_is_part_of_the_origin(self) -> None:
        here = origin_of("http://localhost:8000")
        assert cross_site_reason("POST", headers(origin="http://localhost:8000"), public_origin=here) is None
        assert cross_site_reason("POST", headers(origin="http://localhost:9000"), public_origin=here) == "origin_mismatch"

    def test_the_test_detects_a_comparison_by_prefix(self) -> None:
        forged = "https://app.example.com.evil.example"
        assert forged.startswith(OURS)
        assert judge(origin=forged) == "origin_mismatch"

    def test_a_request_without_both_headers_passes_as_no_browser(self) -> None:
        assert judge() is None
        assert judge(referer="https://evil.example/", x_forwarded_host="evil.example") is None


class TestWebSocket:
    def test_an_own_page_and_a_non_browser_client_pass(self) -> None:
        assert cross_site_websocket_reason(headers(origin=OURS), public_origin=OURS) is None
        assert cross_site_websocket_reason(headers(), public_origin=OURS) is None

    @pytest.mark.attack("60")
    def test_cross_site_websocket_hijacking_is_refused_although_the_handshake_is_a_get(self) -> None:
        reason = cross_site_websocket_reason(headers(origin="https://evil.example"), public_origin=OURS)
        assert reason == "origin_mismatch"
        sandboxed = cross_site_websocket_reason(headers(origin="null", sec_fetch_site="cross-site"), public_origin=OURS)
        assert sandboxed == "sec_fetch_site_cross_site"

    @pytest.mark.parametrize(
        ("host", "origin", "reason"),
        [
            ("tenant.example.com", "https://tenant.example.com", None),
            ("tenant.example.com:443", "https://tenant.example.com", None),
            ("TENANT.example.com", "https://tenant.example.com", None),
            ("tenant.example.com:8443", "https://tenant.example.com:8443", None),
            ("tenant.example.com", "http://tenant.example.com", "origin_mismatch"),
            ("tenant.example.com", "https://tenant.example.com:8443", "origin_mismatch"),
            ("tenant.example.com", "https://evil.example", "origin_mismatch"),
            ("tenant.example.com", "https://tenant.example.com.evil.example", "origin_mismatch"),
            ("tenant.example.com@evil.example", "https://evil.example", "origin_mismatch"),
            ("", "https://evil.example", "origin_mismatch"),
        ],
    )
    def test_a_page_on_another_host_of_the_application_connects_to_its_own_host(
        self, host: str, origin: str, reason: CrossSiteReason | None
    ) -> None:
        sent = [(b"accept", b"*/*"), (b"host", host.encode()), (b"origin", origin.encode()), (b"upgrade", b"websocket")]
        assert cross_site_websocket_reason(sent, public_origin=OURS) == reason
        assert cross_site_reason("POST", sent, public_origin=OURS) == "origin_mismatch"
        twice = [(b"host", host.encode()), *sent]
        assert cross_site_websocket_reason(sent[2:], public_origin=OURS) == "origin_mismatch"
        assert cross_site_websocket_reason(twice, public_origin=OURS) == "origin_mismatch"

    def test_dns_rebinding_of_a_development_server_is_refused(self) -> None:
        sent = [(b"host", b"evil.example:8000"), (b"origin", b"http://evil.example:8000")]
        assert cross_site_websocket_reason(sent, public_origin="http://localhost:8000") == "origin_mismatch"
        sent = [(b"host", b"tenant.localhost:8000"), (b"origin", b"http://tenant.localhost:8000")]
        assert cross_site_websocket_reason(sent, public_origin="http://localhost:8000") is None

    def test_a_trusted_origin_may_connect(self) -> None:
        sent = headers(origin=TRUSTED, sec_fetch_site="same-site", sec_fetch_mode="websocket")
        assert cross_site_websocket_reason(sent, public_origin=OURS) == "sec_fetch_site_same_site"
        trusted = frozenset({TRUSTED})
        assert cross_site_websocket_reason(sent, public_origin=OURS, trusted_origins=trusted) is None


class TestUserNavigation:
    def test_a_followed_link_and_a_client_without_sec_fetch_are_navigations(self) -> None:
        assert is_user_navigation(headers(sec_fetch_mode="navigate", sec_fetch_dest="document", sec_fetch_site="cross-site"))
        assert is_user_navigation(headers())
        assert is_user_navigation(headers(purpose="shopping"))

    @pytest.mark.parametrize(
        "values",
        [
            {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"},
            {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"},
            {"sec_fetch_mode": "cors", "sec_fetch_dest": "empty"},
            {"sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
            {"sec_fetch_mode": "navigate", "sec_fetch_dest": "embed"},
            {"sec_fetch_mode": "navigate"},
            {"sec_fetch_dest": "document"},
            {"sec_fetch_site": "none"},
            {"sec_fetch_mode": "NAVIGATE", "sec_fetch_dest": "document"},
            {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document", "sec_purpose": "prefetch"},
            {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document", "sec_purpose": "prefetch;prerender"},
            {"sec_purpose": "prefetch;anonymous-client-ip"},
            {"purpose": "prefetch"},
            {"x_purpose": "preview"},
            {"x_moz": "Prefetch"},
        ],
    )
    def test_images_frames_scripts_and_prefetches_are_not_navigations(self, values: dict[str, str]) -> None:
        assert not is_user_navigation(headers(**values))

    def test_a_repeated_header_is_not_a_navigation(self) -> None:
        sent = headers(sec_fetch_mode="navigate", sec_fetch_dest="document")
        assert not is_user_navigation([*sent, (b"sec-fetch-dest", b"document")])


class TestOriginOf:
    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.COM:443/path?x#y", "https://app.example.com"),
            ("http://localhost:8000/", "http://localhost:8000"),
            ("http://127.0.0.1:080", "http://127.0.0.1"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://xn--bcher-kva.example?x", "https://xn--bcher-kva.example"),
        ],
    )
    def test_an_origin_is_serialized_as_by_browsers(self, url: str, origin: str) -> None:
        assert origin_of(url) == origin

    @pytest.mark.parametrize(
        "url",
        ["", "https://", "https:///x", "app.example.com", "/x", "ftp://a.example", "https://u:pw-hidden@a.example",
         "https://bücher.example",
         "https://a.example:x", "https://a.example:99999", "https://a\\.example", "https://a example",
         "https://\u212aa.example", "null"],
    )  # fmt: skip
    def test_an_invalid_origin_is_refused_without_being_shown(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"https://app\.example\.com") as caught:
            origin_of(url)
        assert "pw-hidden" not in str(caught.value)


def test_the_documented_table_equals_the_rule() -> None:
    table = read_table()
    origins = {
        "ours": OURS,
        "another name of ours": "https://internal.example",
        "trusted": TRUSTED,
        "null": "null",
        "other": "https://evil.example",
        "absent": None,
    }
    for site in ("same-origin", "same-site", "cross-site", "none", "absent"):
        for name, origin in origins.items():
            sent = {"sec_fetch_site": None if site == "absent" else site, "origin": origin}
            reason = judge(trusted=frozenset({TRUSTED}), **{key: value for key, value in sent.items() if value is not None})
            row = table.get(Combination(site, name))
            if row is not None:
                assert (reason is None) == row.accepted, (site, name)
            elif site != "same-origin":  # here the rule relies on the browser's `same-origin`, whatever the origin
                assert reason is not None, (site, name)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-purpose"]),
            st.binary() | st.sampled_from([b"same-origin", b"none", b"same-site", b"null", OURS.encode()]),
        )
    )
)
@settings(deadline=None)
def test_random_headers_never_raise_and_every_pass_has_a_reason(sent: list[tuple[bytes, bytes]]) -> None:
    is_user_navigation(sent)
    refused = cross_site_reason("POST", sent, public_origin=OURS)
    sites = [value for name, value in sent if name == b"sec-fetch-site"]
    origins = [value for name, value in sent if name == b"origin"]
    ours = len(origins) == 1 and origins[0].lower() in {OURS.encode(), OURS.encode() + b":443"}
    match sites:
        case []:
            passes = not origins or ours
        case [b"same-origin"]:
            passes = origins in ([], [b"null"]) or ours
        case [b"none"]:
            passes = ours
        case _:
            passes = False
    assert (refused is None) == passes


NAMES = st.sampled_from([b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"cookie"])
VALUES = st.sampled_from([b"same-origin", b"cross-site", b"none", b"null", b"", OURS.encode(), b"https://evil.example"])


@settings(max_examples=500)
@given(sent=st.lists(st.tuples(NAMES, VALUES), max_size=5), whole=st.booleans())
def test_the_fast_path_passes_no_request_that_the_rules_refuse(sent: list[tuple[bytes, bytes]], *, whole: bool) -> None:
    if is_plainly_same_origin(sent if whole else iter(sent)):
        assert whole  # an iterator can be read only once, so the rules get it
        assert cross_site_reason("POST", sent, public_origin=OURS) is None
        assert cross_site_websocket_reason(sent, public_origin=OURS) is None
    elif whole and len(dict(sent)) == len(sent) and (b"sec-fetch-site", b"same-origin") in sent:
        assert cross_site_reason("POST", sent, public_origin=OURS) == "origin_invalid"


class Answers:
    """The framework interface of the rule; records the response."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def answer_error(self, scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
        del scope, receive, send
        self.error = error


class TestTheRuleOfAnApplication:
    def rule(self, public_url: str = OURS) -> tuple[SameOriginRule, Answers, Recorder]:
        answers, recorder = Answers(), Recorder()
        config = make_config(public_url=public_url)
        return SameOriginRule(config, Events(config.clock, (recorder,)), answers), answers, recorder  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("scope", "reason"),
        [
            ({"type": "http", "method": "GET"}, None),
            ({"type": "http", "method": "POST"}, "origin_mismatch"),
            ({"type": "websocket"}, "origin_mismatch"),
        ],
    )
    def test_a_websocket_is_checked_like_a_post(self, scope: dict[str, Any], reason: str | None) -> None:
        """Its scope has no method."""
        rule, _, _ = self.rule()
        assert rule.reason({**scope, "headers": headers(origin="https://evil.example")}) == reason

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("public_url", "origin", "error"),
        [
            (OURS, "http://app.example.com", PlainHttpRequestError),
            (OURS, "http://other.example.com", CrossSiteRequestError),
            (OURS, "https://evil.example", CrossSiteRequestError),
            (OURS, None, CrossSiteRequestError),
            ("http://app.example.com", "http://app.example.com", CrossSiteRequestError),
            ("http://app.example.com", "https://app.example.com", CrossSiteRequestError),
        ],
    )
    async def test_an_own_page_over_plain_http_gets_its_own_error(
        self, public_url: str, origin: str | None, error: type[Exception]
    ) -> None:
        rule, answers, recorder = self.rule(public_url)
        sent = headers() if origin is None else headers(origin=origin)
        await rule.refuse({"type": "http", "headers": sent}, receive, send, "origin_mismatch")
        assert type(answers.error) is error
        (event,) = recorder.events
        assert event.detail.get("origin") == origin

    @pytest.mark.anyio
    async def test_a_refused_websocket_is_closed_before_it_is_accepted(self) -> None:
        rule, answers, _ = self.rule()
        sent: list[Any] = []

        async def note(message: Any) -> None:
            sent.append(message)

        await rule.refuse({"type": "websocket", "headers": headers()}, receive, note, "origin_mismatch")
        assert answers.error is None
        assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 4403)]


async def receive() -> Any:
    return {"type": "websocket.connect"}


async def send(message: Any) -> None:
    del message


def test_the_origin_is_reported_only_when_there_is_exactly_one() -> None:
    one = (b"origin", b"HTTPS://Evil.example:443")
    assert sent_origin([*headers(), one]) == "https://evil.example"
    assert sent_origin(headers()) is None
    assert sent_origin([one, one]) is None
    assert sent_origin(headers(origin="https://" + "x" * 300)) is None


def test_an_origin_above_300_bytes_is_neither_parsed_nor_kept() -> None:
    """A client must not control how much memory its origins take."""
    parsed = _parsed.cache_info().misses
    for length in (301, 9000):
        assert sent_origin(headers(origin="https://".ljust(length, "x"))) is None
    assert _parsed.cache_info().misses == parsed


def test_only_prefetch_headers_count_as_prefetch() -> None:
    assert is_speculative(headers(sec_purpose="prefetch;anonymous-client-ip"))
    assert is_speculative(headers(x_moz="PREFETCH"))
    assert not is_speculative(headers(user_agent="prefetcher/1.0"))
    assert not is_speculative(headers(sec_purpose=""))
