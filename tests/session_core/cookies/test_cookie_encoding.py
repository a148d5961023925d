"""The percent-encoding of cookie values: each value has exactly one encoding."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_core.cookies.encoding import decode_component, encode_component

MARKS = "-_.!~*'()"
signed_like = st.text("Az09-_.:+/", max_size=100)
utf8_text = st.text(st.characters(codec="utf-8"))
raw_like = st.lists(st.sampled_from([b"%3A", b"%2B", b"%2f", b"%", b"%4", b"a", b"+", b"%C3%A9", b"%FF", b'"'])).map(b"".join)


@given(utf8_text | signed_like)
@settings(deadline=None)
def test_text_is_encoded_as_by_encodeuricomponent_and_decoded_again(value: str) -> None:
    encoded = encode_component(value)
    assert encoded is not None
    assert encoded == quote(value, safe=MARKS)
    assert decode_component(encoded.encode("ascii")) == value


@given(st.binary() | raw_like)
@settings(deadline=None)
def test_a_decoded_value_encodes_to_the_same_bytes(raw: bytes) -> None:
    value = decode_component(raw)
    encoded = None if value is None else encode_component(value)
    assert encoded is None or encoded.encode("ascii") == raw


@pytest.mark.attack("50")
@pytest.mark.parametrize(
    "raw",
    [
        b"s:plain-colon", b"s%3aabc", b"%73%3Aabc", b"s%3Aa%2fb", b"s%3Aa+b", b"s%3Aa/b", b'"s%3Aabc"',
        b"s%3Aabc ", b" s%3Aabc", b"s%3Aabc%", b"s%3Aabc%2", b"s%3Aabc%ZZ", b"s%3Aabc\0", b"s%3Aabc\xff", b"s%3Aabc\xc3\xa9",
        b"s%3Aabc%FF", b"s%3Aabc%C0%AF", b"s%3Aabc%ED%A0%80", b"s%3Aabc\r\n", b"s%3Aabc%2E", b"s%3Aabc=", b"s%3Aabc,x",
        b"s%3Aabc\n",
    ],
)  # fmt: skip
def test_other_encodings_are_refused(raw: bytes) -> None:
    assert decode_component(raw) is None


@pytest.mark.attack("58")
def test_a_lone_surrogate_cannot_be_encoded() -> None:
    assert encode_component("a\ud800") is None


def test_a_value_is_decoded_once() -> None:
    assert decode_component(b"s%253Aabc") == "s%3Aabc"
