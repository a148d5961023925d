"""Sealed values: unreadable, bound to their context, and invalid after any change."""

from __future__ import annotations

import base64
import traceback
from hashlib import sha256

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from session_core.errors import ConfigurationError
from session_core.sealing import SealingKeys, generate_key, parse_keys

FIRST = bytes(range(32))
SECOND = bytes(range(32, 64))
KEYS = SealingKeys([FIRST, SECOND])
CONTEXT = "tokens:alice"

any_text = st.text(st.characters(exclude_categories=()))


@pytest.mark.attack("asvs-11.3.2")
@given(st.binary(), any_text)
@settings(deadline=None)
def test_a_sealed_value_opens_in_its_context_only(plain: bytes, context: str) -> None:
    sealed = KEYS.seal(plain, context=context)
    assert KEYS.unseal(sealed, context=context) == plain
    assert KEYS.unseal(sealed, context=context + "x") is None
    assert len(sealed) == 1 + 4 + 12 + len(plain) + 16


@pytest.mark.attack("asvs-11.2.5")
@given(st.binary(), any_text)
@settings(deadline=None)
def test_unsealing_anything_never_raises(sealed: bytes, context: str) -> None:
    assert KEYS.unseal(sealed, context=context) is None
    assert KEYS.unseal(KEYS.seal(b"", context="x")[:5] + sealed, context=context) is None


class Value(msgspec.Struct, array_like=True):
    number: int


class Other(msgspec.Struct, array_like=True):
    text: str


@given(any_text)
@settings(deadline=None)
def test_a_text_that_was_not_sealed_opens_as_nothing(text: str) -> None:
    sealed = KEYS.seal_text(Value(7), context=CONTEXT)
    assert KEYS.unseal_text(sealed, Value, context=CONTEXT) == Value(7)
    assert KEYS.unseal_text(sealed, Other, context=CONTEXT) is None
    assert KEYS.unseal_text(sealed, Value, context="another") is None
    for not_sealed in (text, sealed + "=", sealed[:-1], f" {sealed}", sealed[:4] + "~" + sealed[4:]):
        assert KEYS.unseal_text(not_sealed, Value, context=CONTEXT) is None


@pytest.mark.parametrize("length", range(8))
def test_a_text_of_any_length_opens(length: int) -> None:
    """Its padding is not sent."""
    sealed = KEYS.seal_text(Other("x" * length), context=CONTEXT)
    assert KEYS.unseal_text(sealed, Other, context=CONTEXT) == Other("x" * length)


@pytest.mark.attack("asvs-11.3.3")
@pytest.mark.attack("50")
def test_a_changed_truncated_or_extended_value_is_refused() -> None:
    sealed = KEYS.seal(b"the state of a login", context=CONTEXT)
    mutants = [sealed[:end] for end in range(len(sealed))] + [sealed + b"\0", b"\0" + sealed, sealed * 2]
    mutants += [sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :] for at in range(len(sealed)) for bit in range(8)]
    for mutant in mutants:
        assert KEYS.unseal(mutant, context=CONTEXT) is None, mutant


def test_a_value_of_another_user_or_purpose_does_not_open() -> None:
    sealed = KEYS.seal(b"refresh token", context="tokens:alice")
    assert KEYS.unseal(sealed, context="tokens:mallory") is None
    assert KEYS.unseal(sealed, context="login-transaction:alice") is None


@pytest.mark.attack("asvs-11.3.1")
@pytest.mark.attack("asvs-11.3.2")
def test_the_format_is_the_documented_one() -> None:
    key_id, nonce = sha256(FIRST).digest()[:4], b"n" * 12
    header = b"\x01" + key_id
    sealed = header + nonce + AESGCM(FIRST).encrypt(nonce, b"plain", header + CONTEXT.encode())
    assert KEYS.unseal(sealed, context=CONTEXT) == b"plain"
    assert KEYS.seal(b"plain", context=CONTEXT)[:5] == header


@pytest.mark.parametrize("version", [b"\x00", b"\x02"])
def test_a_value_of_another_format_version_does_not_open(version: bytes) -> None:
    header, nonce = version + sha256(FIRST).digest()[:4], b"n" * 12
    assert (
        KEYS.unseal(header + nonce + AESGCM(FIRST).encrypt(nonce, b"plain", header + CONTEXT.encode()), context=CONTEXT) is None
    )


def test_a_value_sealed_by_an_earlier_release_still_opens() -> None:
    golden = base64.b64decode("AWMNzSkBThmfsO0+JK4JT+0+gpzz8W/LH8sQqpcOy6VxXrNHZ3Pg")
    assert KEYS.unseal(golden, context=CONTEXT) == b"golden"


@pytest.mark.attack("asvs-11.3.4")
def test_equal_values_are_sealed_differently() -> None:
    assert len({KEYS.seal(b"same", context=CONTEXT) for _ in range(200)}) == 200


class TestRotation:
    @pytest.mark.attack("asvs-11.2.2")
    def test_the_older_key_opens_and_asks_for_resealing(self) -> None:
        old = SealingKeys([SECOND]).seal(b"x", context=CONTEXT)
        assert KEYS.unseal(old, context=CONTEXT) == b"x"
        assert KEYS.needs_reseal(old)
        assert not KEYS.needs_reseal(KEYS.seal(b"x", context=CONTEXT))

    def test_a_retired_key_does_not_open(self) -> None:
        assert SealingKeys([FIRST]).unseal(SealingKeys([SECOND]).seal(b"x", context=CONTEXT), context=CONTEXT) is None

    @pytest.mark.parametrize("sealed", [b"", b"\x02", b"\x01abc", b"garbage"])
    def test_values_not_sealed_by_the_first_key_need_resealing(self, sealed: bytes) -> None:
        assert KEYS.needs_reseal(sealed)

    def test_two_keys_with_the_same_key_id_are_both_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class SameDigest:
            def __init__(self, _: bytes) -> None:
                pass

            def digest(self) -> bytes:
                return bytes(32)

        monkeypatch.setattr("session_core.sealing.sha256", SameDigest)
        both = SealingKeys([FIRST, SECOND])
        assert both.unseal(SealingKeys([SECOND]).seal(b"x", context=CONTEXT), context=CONTEXT) == b"x"


class TestParseKeys:
    def test_generated_keys_are_accepted_with_or_without_padding_and_white_space(self) -> None:
        one, two = generate_key(), generate_key()
        keys = parse_keys(f" {one} ,\n{two}= ")
        assert [len(key) for key in keys] == [32, 32]
        assert [base64.urlsafe_b64encode(key).decode().rstrip("=") for key in keys] == [one, two]
        assert one != two

    @pytest.mark.parametrize(
        "text",
        [
            "", ",", " ", "short", "A" * 42, "A" * 44, "A" * 42 + "B", "A" * 43 + "==", "+" + "A" * 42, "/" + "A" * 42,
            "A" * 21 + " " + "A" * 21, "A" * 21 + "é" + "A" * 21, "A" * 43 + ",", "," + "A" * 43, "A" * 43 + "," + "B" * 42,
            "A" * 42 + "-", "A" * 42 + "1",
            "\uff21" * 43, "A" * 42 + "\udc80", "deadbeef" * 8,
        ],
    )  # fmt: skip
    def test_other_values_are_refused_with_a_command_and_without_the_key(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"key number [12] .*secrets\.token_urlsafe\(32\)") as caught:
            parse_keys(text)
        shown = "".join(traceback.format_exception(caught.value, limit=0))
        assert not any(part in shown for part in text.split(",") if len(part) > 4)

    def test_a_mistyped_key_is_refused(self) -> None:
        """`urlsafe_b64decode` alone skips foreign characters and ignores the last two bits."""
        assert base64.urlsafe_b64decode("A" * 21 + "!" + "A" * 22 + "=") == bytes(32)
        assert base64.urlsafe_b64decode("A" * 42 + "B" + "=") == bytes(32)
        for mistyped in ("A" * 21 + "!" + "A" * 22, "A" * 42 + "B"):
            with pytest.raises(ConfigurationError):
                parse_keys(mistyped)


@pytest.mark.attack("asvs-11.2.3")
@pytest.mark.parametrize("keys", [[], [b""], [b"x" * 31], [b"x" * 33], [FIRST, b"x" * 16], FIRST])
def test_keys_of_another_length_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(ConfigurationError, match="encryption key"):
        SealingKeys(keys)


def test_the_error_counts_keys_from_one() -> None:
    for number in (1, 2, 3):
        with pytest.raises(ConfigurationError, match=f"key number {number} "):
            SealingKeys([FIRST] * (number - 1) + [b"short"])


def test_reprs_show_no_keys() -> None:
    keys = SealingKeys(parse_keys(f"{base64.urlsafe_b64encode(FIRST).decode()},{generate_key()}"))
    assert repr(keys) == str(keys) == "SealingKeys(<2 keys>)"
