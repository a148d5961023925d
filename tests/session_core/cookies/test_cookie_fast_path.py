"""The fast path of reading a session cookie equals the general path for any request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_core.cookies import CookieConfig, CookieReading, CookieSigner, SessionCookieReader, read_session_id
from session_core.cookies import reader as transport

SECRETS = ["new-secret-new-secret-new-secret-new", "old-secret-old-secret-old-secret-old"]
SIGNER = CookieSigner(SECRETS)
OTHERS = [SIGNER, CookieSigner(SECRETS[1:]), CookieSigner.for_cookie("login", SECRETS)]
IDS = ["Zk3v0S1xkq7yT2b-9_uWQm5cJr8LhN4pXaEoIdGfVtY7e0", "B" * 46, "B" * 45, "B" * 45 + "=", "session", "a" * 46]
PUBLIC_URLS = ["https://app.example.com", "http://localhost"]
NAMES = ["session", "s", "3A", "aa", "a-a", "s.s"]
"""Also names that occur in a value, and names that overlap themselves."""


@contextmanager
def the_general_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "_plain_id", lambda *_: None)
        yield


def pairs_of(name: str) -> list[bytes]:
    pairs = [f"{name}={transport_form(signer.sign(session_id))}".encode() for signer in OTHERS for session_id in IDS]
    genuine = pairs[0]
    value = genuine.partition(b"=")[2]
    spelt = [
        re.sub(rb"%(..)", lambda match: match[0].lower(), genuine), genuine.replace(b"%3A", b":"), genuine.replace(b"%2B", b"+"),
        genuine.replace(b"%2F", b"/"), genuine + b"=", genuine + b"%3D", genuine + b".", genuine.replace(b".", b"%2E"),
        genuine.replace(b"s%3A", b"%73%3A"), genuine.replace(b"%", b"%25"), genuine.upper(), genuine[:-1],
        b'%s="%s"' % (name.encode(), value), b"%s = %s" % (name.encode(), value), b"x=" + genuine, b"=" + genuine,
        name.encode(), name.encode() + b"=", name.upper().encode() + b"=" + value, b"x" + genuine, b"\xa0" + genuine,
        b"\x0b" + genuine, b"\n" + genuine, genuine + b"\n", genuine + b"\x0b", genuine + b"\0", genuine + b"," + genuine,
        b"x=" + value, name.encode() * 3 + b"=" + value, b"x=y" + name.encode(), b"", b" ", b"\t" + genuine + b" \t ",
    ]  # fmt: skip
    return pairs + spelt


def transport_form(signed: str) -> str:
    return signed.replace(":", "%3A").replace("+", "%2B").replace("/", "%2F")


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, list[tuple[bytes, bytes]]]:
    public_url, base = draw(st.sampled_from(PUBLIC_URLS)), draw(st.sampled_from(NAMES))
    pairs = pairs_of(CookieConfig(name=base).resolve(public_url).name)
    some = st.lists(st.sampled_from(pairs) | st.sampled_from(pairs[:1]), max_size=4)
    headers: list[tuple[bytes, bytes]] = []
    for _ in range(draw(st.integers(0, 2))):
        line = draw(st.sampled_from([b"; ", b";", b";;", b" ;\t", b", "])).join(draw(some))
        if line and draw(st.booleans()) and draw(st.booleans()):
            at = draw(st.integers(0, len(line) - 1))
            line = line[:at] + draw(st.binary(max_size=2)) + line[at + draw(st.integers(0, 2)) :]
        headers.append((draw(st.sampled_from([b"cookie", b"cookie", b"cookie", b"Cookie", b"x-cookie"])), line))
    return public_url, base, headers


def read(public_url: str, name: str, headers: list[tuple[bytes, bytes]]) -> CookieReading:
    return read_session_id(headers, CookieConfig(name=name).resolve(public_url), SIGNER)


@pytest.mark.attack("53")
@given(requests())
@settings(deadline=None, max_examples=500)
def test_the_fast_path_equals_the_general_path(request: tuple[str, str, list[tuple[bytes, bytes]]]) -> None:
    short = read(*request)
    with the_general_path():
        assert read(*request) == short


@pytest.mark.attack("53")
@pytest.mark.parametrize("public_url", PUBLIC_URLS)
@pytest.mark.parametrize("base", NAMES)
def test_both_paths_read_each_form_of_a_cookie_alike(base: str, public_url: str) -> None:
    pairs = pairs_of(CookieConfig(name=base).resolve(public_url).name)
    lines = [*pairs, *(b"; ".join(two) for first in pairs[:3] for other in pairs for two in ((first, other), (other, first)))]
    short = [read(public_url, base, [(b"cookie", line)]) for line in lines]
    with the_general_path():
        assert [read(public_url, base, [(b"cookie", line)]) for line in lines] == short
    assert short[0].session_id == IDS[0]


@pytest.mark.attack("53")
@given(requests(), st.integers(1, 3))
@settings(deadline=None, max_examples=300)
def test_a_cached_header_gives_the_same_result(request: tuple[str, str, list[tuple[bytes, bytes]]], times: int) -> None:
    public_url, base, headers = request
    cookie = CookieConfig(name=base).resolve(public_url)
    reader = SessionCookieReader(cookie, SIGNER)
    genuine = pairs_of(cookie.name)[0]
    assert reader.read([(b"cookie", genuine)]).session_id == IDS[0]
    for _ in range(times):
        assert reader.read(headers) == read(*request)
    assert reader.read([(b"cookie", genuine[:-1] + bytes([genuine[-1] ^ 1]))]).session_id is None


def test_the_usual_cookie_is_read_by_the_fast_path() -> None:
    cookie = CookieConfig().resolve(PUBLIC_URLS[0])
    line = b"a=b; %b; c=d" % pairs_of(cookie.name)[0]
    assert transport._plain_id([(b"host", line), (b"cookie", line)], cookie.name, SIGNER) == IDS[0]
    assert transport._plain_id([(b"host", line), (b"cookie", b"a=b")], cookie.name, SIGNER) == ""


@pytest.mark.parametrize(("length", "times"), [(1024, 1), (1025, 3)])
def test_a_line_is_verified_once_unless_it_is_long(length: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = CookieConfig().resolve(PUBLIC_URLS[0])
    reader, read_by = SessionCookieReader(cookie, SIGNER), []
    monkeypatch.setattr(transport, "read_session_id", lambda *args: read_by.append(args[0]) or read_session_id(*args))
    line = (pairs_of(cookie.name)[0] + b"; a=").ljust(length, b"x")
    assert [reader.read([(b"cookie", line)]).session_id for _ in range(3)] == [IDS[0]] * 3
    assert len(read_by) == times


def test_a_client_does_not_control_how_many_lines_are_kept() -> None:
    cookie = CookieConfig().resolve(PUBLIC_URLS[0])
    reader, genuine = SessionCookieReader(cookie, SIGNER), pairs_of(cookie.name)[0]
    for number in range(3000):
        reader.read([(b"cookie", b"%b; a=%d" % (genuine, number))])
    assert reader._read_line.cache_info().currsize == 1024
    assert "Zk3v" not in repr(vars(reader))


def test_headers_can_be_any_iterable() -> None:
    """As in an ASGI scope."""
    cookie = CookieConfig().resolve(PUBLIC_URLS[0])
    headers = [(b"cookie", pairs_of(cookie.name)[0])]
    reader = SessionCookieReader(cookie, SIGNER)
    assert [reader.read(form).session_id for form in (iter(headers), tuple(headers), headers)] == [IDS[0]] * 3


def test_the_comparison_fails_for_a_fast_path_that_ignores_a_second_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(headers: list[tuple[bytes, bytes]], name: str, signer: CookieSigner) -> str | None:
        found = transport._plain_form(name)[0].search(headers[0][1])
        return None if found is None else signer.unsign_id(found[1], found[2])

    monkeypatch.setattr(transport, "_plain_id", careless)
    with pytest.raises(AssertionError):
        test_both_paths_read_each_form_of_a_cookie_alike("session", PUBLIC_URLS[0])
