"""Signed values: only signed values verify, under any secret that is still listed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_core.cookies import CookieSigner, parse_secrets, sign_cookie, unsign_cookie
from session_core.errors import ConfigurationError
from session_core.ids import new_session_id

NEW = "new-secret-new-secret-new-secret-new"
OLD = "old-secret-old-secret-old-secret-old"
RETIRED = "retired-secret-retired-secret-retired"
ID = "Zk3v0S1xkq7yT2b-9_uWQm5cJr8LhN4pXaEoIdGfVtY"

any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates included
utf8_text = st.text(st.characters(codec="utf-8"))
secrets_lists = st.lists(st.binary(min_size=32, max_size=80), min_size=1, max_size=4, unique=True)


@given(utf8_text, secrets_lists, st.data())
@settings(deadline=None)
def test_every_listed_secret_verifies_and_only_the_first_counts_as_current(
    value: str, secrets: list[bytes], data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(secrets) - 1))
    unsigned = CookieSigner(secrets).unsign(CookieSigner([secrets[position]]).sign(value))
    assert unsigned is not None
    assert unsigned.value == value
    assert unsigned.by_first_secret == (position == 0)


@given(any_text)
@settings(deadline=None)
def test_unsigning_anything_never_raises(cookie: str) -> None:
    signer = CookieSigner([NEW, OLD])
    assert signer.unsign(cookie) is None
    assert unsign_cookie("s:" + cookie, [NEW]) is None
    assert signer.unsign(f"s:{ID}.{cookie}") is None
    assert signer.unsign(f"s:{cookie}.{'A' * 43}") is None


@pytest.mark.parametrize("cookie", ["s:a\udc80." + "A" * 43, "s:a." + "A" * 42 + "\udc80", "s:\udc80.\udc80"])
def test_a_lone_surrogate_never_verifies_and_raises_nothing(cookie: str) -> None:
    assert CookieSigner([NEW]).unsign(cookie) is None
    assert unsign_cookie(cookie, [NEW]) is None


def mutations(cookie: bytes) -> list[bytes]:
    """Every byte changed to several others, dropped or doubled, and every truncation."""
    found = [cookie[:end] for end in range(len(cookie))]
    for at in range(len(cookie)):
        found += [cookie[:at] + bytes([cookie[at] ^ bit]) + cookie[at + 1 :] for bit in (1, 2, 4, 8, 16, 32, 64, 128)]
        found += [cookie[:at] + cookie[at + 1 :], cookie[:at] + cookie[at : at + 1] + cookie[at:]]
        found += [cookie[:at] + junk + cookie[at:] for junk in (b" ", b"=", b".", b"\0", b"\xff", b"%00")]
    return [mutation for mutation in found if mutation != cookie]


@pytest.mark.attack("50")
def test_a_value_with_any_byte_changed_is_refused() -> None:
    signer = CookieSigner([NEW, OLD])
    cookie = signer.sign(ID).encode()
    for mutation in mutations(cookie):
        assert signer.unsign(mutation.decode("latin-1")) is None, mutation


def test_the_tampering_test_detects_a_comparison_of_decoded_bytes() -> None:
    """Base64 decoders ignore unused bits, padding and foreign characters, so a cookie would have several valid spellings."""

    def lenient_unsign(cookie: str) -> str | None:
        value, _, signature = cookie.removeprefix("s:").rpartition(".")
        expected = hmac.digest(NEW.encode(), value.encode(), "sha256")
        return value if base64.b64decode(signature + "=" * (-len(signature) % 4)) == expected else None

    def accepts(mutation: bytes) -> bool:
        try:
            return lenient_unsign(mutation.decode("latin-1")) is not None
        except ValueError:
            return False

    cookie = sign_cookie(ID, NEW)
    assert any(accepts(mutation) for mutation in mutations(cookie.encode()))


@pytest.mark.attack("51")
def test_a_retired_secret_no_longer_verifies() -> None:
    cookie = sign_cookie(ID, RETIRED)
    assert CookieSigner([NEW, OLD]).unsign(cookie) is None
    assert CookieSigner([NEW, OLD, RETIRED]).unsign(cookie) is not None


@pytest.mark.attack("50")
def test_a_value_signed_for_another_cookie_never_verifies_as_the_session() -> None:
    session = CookieSigner([NEW, OLD])
    login, device = (CookieSigner.for_cookie(name, [NEW, OLD]) for name in ("login", "device"))
    assert session.unsign(login.sign(ID)) is None
    assert login.unsign(session.sign(ID)) is None
    assert device.unsign(login.sign(ID)) is None
    mine = login.unsign(login.sign(ID))
    assert mine is not None
    assert mine.value == ID


@pytest.mark.parametrize("length", [32, 63, 64, 65, 100])
def test_a_signer_of_several_secrets_signs_with_the_first(length: int) -> None:
    """HMAC hashes keys of more than 64 bytes."""
    assert CookieSigner(["n" * length, OLD]).sign(ID) == sign_cookie(ID, "n" * length)


def test_derived_keys_rotate_like_plain_ones() -> None:
    unsigned = CookieSigner.for_cookie("login", [NEW, OLD]).unsign(CookieSigner.for_cookie("login", [OLD]).sign("x"))
    assert unsigned is not None
    assert not unsigned.by_first_secret


def test_derived_signatures_are_stable_across_versions() -> None:
    extracted = hmac.digest(bytes(32), NEW.encode(), "sha256")
    key = hmac.digest(extracted, b"session_core signed cookie\0login\x01", "sha256")
    assert CookieSigner.for_cookie("login", [NEW]).sign("x") == sign_cookie("x", key)


def test_the_value_ends_at_the_last_dot() -> None:
    unsigned = unsign_cookie(sign_cookie("a.b.", NEW), [NEW])
    assert unsigned is not None
    assert unsigned.value == "a.b."


def test_the_signature_is_hmac_sha256_in_unpadded_base64() -> None:
    expected = base64.b64encode(hmac.new(NEW.encode(), ID.encode(), hashlib.sha256).digest()).decode().rstrip("=")
    assert sign_cookie(ID, NEW) == f"s:{ID}.{expected}"


@pytest.mark.attack("58")
def test_a_lone_surrogate_is_not_signed_and_the_error_hides_the_value() -> None:
    value = ID + "\ud800"
    for sign in (CookieSigner([NEW]).sign, lambda value: sign_cookie(value, NEW)):
        with pytest.raises(ValueError, match="UTF-8") as caught:
            sign(value)
        assert caught.value.__context__ is None
        assert ID not in "".join(traceback.format_exception(caught.value))


def test_reprs_show_neither_secrets_nor_values() -> None:
    signer = CookieSigner([NEW, OLD])
    unsigned = signer.unsign(signer.sign(ID))
    assert unsigned is not None
    shown = f"{signer!r} {signer} {unsigned!r} {unsigned} {unsigned.__rich_repr__()}"
    assert not any(hidden in shown for hidden in (NEW, OLD, ID))
    assert "2 secrets" in shown


class TestParseSecrets:
    def test_secrets_are_split_at_commas_and_stripped(self) -> None:
        assert parse_secrets(f" {NEW} ,\n{OLD}") == (NEW, OLD)

    @pytest.mark.parametrize(
        "text",
        ["", " ", ",", f"{NEW},", f",{NEW}", f"{NEW},,{OLD}", "s3cr3t-but-short", f"{NEW},s3cr3t-but-short", "é" * 15],
    )
    def test_empty_and_short_secrets_are_refused_without_being_shown(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"secret number [12]") as caught:
            parse_secrets(text)
        assert not any(part in str(caught.value) for part in text.replace(" ", "").split(",") if part)
        assert "secrets.token_urlsafe" in str(caught.value)

    def test_length_is_counted_in_bytes(self) -> None:
        assert parse_secrets("é" * 16) == ("é" * 16,)

    def test_a_secret_with_a_lone_surrogate_is_refused_without_being_shown(self) -> None:
        text = NEW + "\udcff"
        with pytest.raises(ConfigurationError) as caught:
            parse_secrets(text)
        assert caught.value.__context__ is None
        assert NEW not in "".join(traceback.format_exception(caught.value))


@pytest.mark.attack("asvs-11.2.3")
@pytest.mark.parametrize("secrets", [[], (), NEW, NEW.encode()])
def test_a_signer_without_a_list_of_secrets_is_refused(secrets: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CookieSigner(secrets)
    assert NEW not in str(caught.value)


@pytest.mark.attack("asvs-11.2.3")
@pytest.mark.parametrize("weak", ["short", "", b"", "x" * 31, b"x" * 31])
def test_a_weak_secret_is_refused_and_its_position_named(weak: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match=f"secret number 1 has {len(weak)} bytes"):
        CookieSigner([weak])
    with pytest.raises(ConfigurationError, match=f"secret number 2 has {len(weak)} bytes") as caught:
        CookieSigner([NEW, weak])
    assert NEW not in str(caught.value)


def test_an_empty_secret_signs_nothing() -> None:
    with pytest.raises(ConfigurationError):
        sign_cookie(ID, "")
    with pytest.raises(ConfigurationError):
        unsign_cookie("s:x.y", [""])


def test_new_ids_survive_signing() -> None:
    signer = CookieSigner([NEW])
    for _ in range(50):
        session_id = new_session_id()
        unsigned = signer.unsign(signer.sign(session_id))
        assert unsigned is not None
        assert unsigned.value == session_id
