"""Reading the session cookie among cookies tossed by other sites."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_core.cookies import CookieConfig, CookieReading, CookieSigner, read_cookies, read_session_id
from session_core.cookies.reader import presents_cookie
from session_core.ids import new_session_id

NEW = "new-secret-new-secret-new-secret-new"
OLD = "old-secret-old-secret-old-secret-old"
ID = "Zk3v0S1xkq7yT2b-9_uWQm5cJr8LhN4pXaEoIdGfVtY7e0"
OTHER_ID = "B" * 46
SIGNER = CookieSigner([NEW, OLD])
COOKIE = CookieConfig().resolve("https://app.example.com")
NAME = COOKIE.name.encode()


def pair(session_id: str = ID, signer: CookieSigner = SIGNER) -> bytes:
    return COOKIE.set_header(signer.sign(session_id), None).split(b"; ")[0]


def reading(*lines: bytes) -> CookieReading:
    return read_session_id([(b"host", b"app.example.com"), *((b"cookie", line) for line in lines)], COOKIE, SIGNER)


GENUINE = pair()


class TestReadCookies:
    def test_all_values_of_the_name_are_read_in_order_over_several_headers(self) -> None:
        headers = [(b"cookie", b"a=1; b=2;a=3"), (b"x-cookie", b"a=9"), (b"cookie", b"\ta=4 ; c=5")]
        assert read_cookies(headers, "a") == ["1", "3", "4"]
        assert read_cookies(headers, b"b") == ["2"]

    @pytest.mark.parametrize(
        "line",
        [b"A=1", b"aa=1", b"a =1", b"a", b"=a=1", b"=1", b"b=a=1", b'b="a=1"', b"a\0=1", b"\xa0a=1", b"\x0ba=1", b"", b";;;"],
    )
    def test_another_name_is_another_cookie(self, line: bytes) -> None:
        assert read_cookies([(b"cookie", line)], "a") == []

    def test_an_empty_value_is_a_value_and_equals_signs_belong_to_it(self) -> None:
        assert read_cookies([(b"cookie", b"a=; a=x=y")], "a") == [""]

    def test_long_values_are_left_out(self) -> None:
        line = b"a=" + b"x" * 4096 + b"; a=" + b"y" * 4097
        assert read_cookies([(b"cookie", line)], "a") == ["x" * 4096]

    def test_the_number_of_values_is_bounded(self) -> None:
        assert len(read_cookies([(b"cookie", b"a=1; " * 500)], "a")) == 33

    @given(st.lists(st.tuples(st.sampled_from([b"cookie", b"x"]), st.binary() | st.binary().map(lambda raw: b"a=" + raw))))
    @settings(deadline=None)
    def test_random_headers_never_raise(self, headers: list[tuple[bytes, bytes]]) -> None:
        assert all(isinstance(value, str) for value in read_cookies(headers, "a"))
        read_session_id(headers, CookieConfig(name="a").resolve("http://localhost"), SIGNER)


def test_a_valid_cookie_is_read() -> None:
    assert reading(b"theme=dark; " + GENUINE + b"; lang=en") == CookieReading(session_id=ID)


def test_a_missing_cookie_is_not_reported() -> None:
    assert reading() == reading(b"theme=dark") == CookieReading()


@pytest.mark.attack("51")
def test_a_cookie_signed_by_the_older_secret_is_signed_again() -> None:
    assert reading(pair(signer=CookieSigner([OLD]))) == CookieReading(session_id=ID, needs_resign=True)


def test_an_older_cookie_beside_its_newly_signed_copy_is_not_signed_again() -> None:
    assert reading(pair(signer=CookieSigner([OLD])), GENUINE) == CookieReading(session_id=ID)


@pytest.mark.attack("50")
def test_a_cookie_with_any_byte_changed_or_cut_is_anonymous() -> None:
    raw = GENUINE.partition(b"=")[2]
    mutants = [raw[:end] for end in range(len(raw))]
    for at in range(len(raw)):
        mutants += [raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :] for bit in (1, 2, 4, 8, 16, 32, 64, 128)]
        mutants += [raw[:at] + b"%%%02X" % raw[at] + raw[at + 1 :], raw[:at] + b"%%%02x" % raw[at] + raw[at + 1 :]]
    # A trailing semicolon or space is not part of the value, so the rest is the value that was set.
    for mutant in mutants:
        if mutant.partition(b";")[0].strip(b" \t") != raw:
            found = reading(NAME + b"=" + mutant)
            assert found.session_id is None, mutant
            assert found.rejected, mutant


@pytest.mark.attack("50")
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "unsigned"),
        (ID.encode(), "unsigned"),
        (b"s%3A" + ID.encode(), "bad_signature"),
        (b"j%3A" + GENUINE.partition(b"s%3A")[2], "unsigned"),
        (GENUINE.partition(b"=")[2].replace(b"%3A", b":"), "re-encoded"),
        (GENUINE.partition(b"=")[2].replace(b"%3A", b"%3a"), "re-encoded"),
        (GENUINE.partition(b"=")[2] + b"=", "re-encoded"),
        (GENUINE.partition(b"=")[2] + b"%3D", "bad_signature"),
        (b'"' + GENUINE.partition(b"=")[2] + b'"', "re-encoded"),
        (GENUINE.partition(b"=")[2].replace(b"%", b"%25"), "unsigned"),
        (b"x" * 9000, "oversized"),
        (b"+" * 4097, "oversized"),
        (b"+" * 4096, "re-encoded"),
        (pair("not-an-id").partition(b"=")[2], "bad_form"),
        (pair(ID + "=").partition(b"=")[2], "bad_form"),
        (pair(ID + "\n").partition(b"=")[2], "bad_form"),
        (pair(ID + "\0").partition(b"=")[2], "bad_form"),
        (pair("").partition(b"=")[2], "bad_form"),
        (pair(signer=CookieSigner(["another-secret-another-secret-another"])).partition(b"=")[2], "bad_signature"),
        (pair(signer=CookieSigner.for_cookie("login", [NEW])).partition(b"=")[2], "bad_signature"),
    ],
)
def test_a_bad_cookie_is_anonymous_with_a_reason(value: bytes, reason: str) -> None:
    assert reading(NAME + b"=" + value) == CookieReading(rejected=reason)  # type: ignore[arg-type]


JUNK = [
    NAME + b"=", NAME + b"=x", NAME + b"=" + OTHER_ID.encode(), NAME + b"=s%3A" + OTHER_ID.encode() + b".forged",
    NAME + b"=\xff\xfe", NAME + b"=%FF", NAME, b"=" + pair(OTHER_ID), b"__host-session=" + pair(OTHER_ID).partition(b"=")[2],
    b"__HOST-SESSION=" + pair(OTHER_ID).partition(b"=")[2], b"session=" + pair(OTHER_ID).partition(b"=")[2],
    NAME + b" =" + pair(OTHER_ID).partition(b"=")[2], b"\xa0" + pair(OTHER_ID), b"\xc2\xa0" + pair(OTHER_ID),
    b"\xe2\x80\x80" + pair(OTHER_ID), b"\x1f" + pair(OTHER_ID), b"\x0c" + pair(OTHER_ID), b"$Version=1", b"$" + pair(OTHER_ID),
    b'x="' + pair(OTHER_ID) + b'"', b"," + pair(OTHER_ID), b"x=1," + pair(OTHER_ID), NAME + b"=" + b"y" * 9000,
]  # fmt: skip


@pytest.mark.attack("53")
@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:32]))
def test_a_tossed_cookie_is_never_adopted_and_the_valid_one_still_works(junk: bytes) -> None:
    assert reading(junk).session_id is None
    for lines in ((junk + b"; " + GENUINE,), (GENUINE + b"; " + junk,), (junk, GENUINE), (GENUINE, junk)):
        assert reading(*lines) == CookieReading(session_id=ID)


@pytest.mark.attack("53")
def test_a_valid_cookie_is_found_among_all_bad_ones_in_any_order() -> None:
    order = random.Random(7)
    for _ in range(50):
        mixed = [GENUINE, *JUNK]
        order.shuffle(mixed)
        assert reading(b"; ".join(mixed)) == CookieReading(session_id=ID)


def test_the_tossing_test_detects_a_reader_that_strips_all_white_space() -> None:
    """`str.strip` also drops U+00A0, which a browser keeps in a name that a subdomain may set."""
    lines = [part.decode("latin-1").strip().partition("=")[0] for part in (b"\xa0" + pair(OTHER_ID)).split(b";")]
    assert COOKIE.name in lines


@pytest.mark.attack("53")
def test_two_different_valid_ids_are_refused_in_both_orders() -> None:
    """Session fixation: the attacker's own valid cookie, tossed from a subdomain, must not become the victim's session."""
    planted = pair(OTHER_ID)
    assert reading(GENUINE, planted) == CookieReading(rejected="ambiguous", several=(ID, OTHER_ID))
    assert reading(planted, GENUINE) == CookieReading(rejected="ambiguous", several=(OTHER_ID, ID))
    old = pair(OTHER_ID, CookieSigner([OLD]))
    assert reading(old, GENUINE, old) == CookieReading(rejected="ambiguous", several=(OTHER_ID, ID))


def test_more_than_four_valid_ids_are_not_reported_individually() -> None:
    ids = tuple(new_session_id() for _ in range(5))
    assert reading(*map(pair, ids[:4])).several == ids[:4]
    assert reading(*map(pair, ids)) == CookieReading(rejected="ambiguous")


def test_a_repeated_valid_cookie_counts_once() -> None:
    assert reading(GENUINE + b"; " + GENUINE) == CookieReading(session_id=ID)


@pytest.mark.attack("54")
def test_a_flood_of_cookies_does_not_hide_a_second_valid_id() -> None:
    flood = b"; ".join([NAME + b"=x"] * 500)
    assert reading(flood + b"; " + GENUINE) == CookieReading(rejected="too_many")
    assert reading(GENUINE + b"; " + flood) == CookieReading(rejected="too_many")


@pytest.mark.attack("54")
def test_500_foreign_cookies_and_31_of_ours_do_not_matter() -> None:
    others = b"; ".join(b"c%d=%d" % (number, number) for number in range(500))
    junk = b"; ".join([NAME + b"=x"] * 31)
    assert reading(others + b"; " + junk + b"; " + GENUINE) == CookieReading(session_id=ID)


@pytest.mark.attack("52")
def test_an_id_outside_the_cookie_is_not_read() -> None:
    value = GENUINE.partition(b"=")[2]
    headers = [(b"authorization", b"Bearer " + value), (b"x-session", value), (b"cookie2", GENUINE), (b"set-cookie", GENUINE)]
    assert read_session_id(headers, COOKIE, SIGNER) == CookieReading()


def test_the_repr_of_a_reading_hides_the_id() -> None:
    found = reading(GENUINE)
    assert ID not in f"{found!r} {found} {found.__rich_repr__()}"
    assert repr(found) == "CookieReading(<hidden>)"


@pytest.mark.parametrize(
    ("headers", "presents"),
    [
        ([(b"cookie", b"session=x")], True),
        ([(b"cookie", b"session")], True),
        ([(b"cookie", b"a=1;\t session=")], True),
        ([(b"cookie", b"a=1"), (b"cookie", b"b=2; session=x; c=3")], True),
        ([], False),
        ([(b"cookie", b"session2=x; my-session=y; a=session; SESSION=x")], False),
        ([(b"cookie", b"zession=session")], False),
        ([(b"cookie", b"aession=session")], False),
        ([(b"accept", b"session=x"), (b"x-cookie", b"session=x")], False),
    ],
)
def test_a_cookie_is_recognized_by_its_exact_name(headers: list[tuple[bytes, bytes]], presents: bool) -> None:
    assert presents_cookie(headers, b"session") is presents
