"""The claim checks that ID tokens and logout tokens share. Independent of signatures.

Each takes the error to raise, with a reason slug; errors never contain a claim's value. A required claim that is missing or
malformed is refused. An optional one that is null, empty or malformed counts as absent: many providers send these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from session_core.errors import IdTokenError, OidcError
from session_core.ids import SecretStruct
from session_core.oidc.claim_path import claim_at

__all__ = (
    "MAX_SKEW_SECONDS", "ExpectedToken", "audiences_of",
    "check_audience", "check_issuer", "check_times", "check_type", "number",
    "optional_number", "optional_sid", "optional_text", "subject_of", "text",
)  # fmt: skip

MAX_SKEW_SECONDS: Final = 300
"""The largest configurable tolerance between a provider's clock and ours, in seconds."""
MAX_TEXT: Final = 255
"""The longest subject (OpenID Connect Core 2), and the longest of other identifiers here."""
MAX_SID: Final = 2048
"""The longest `sid`: no specification limits it, and idpyoidc puts its own state into it, encrypted."""
_MAX_NUMBER: Final = 2**53


class ExpectedToken(SecretStruct, frozen=True, kw_only=True):
    """The expected values of a signed token. `now` is Unix time in seconds.

    `issuer_of` returns the issuer that given claims must name, or None if no issuer is admitted; `several_issuers`: keys of one
    issuer must not sign for another.
    """

    issuer_of: Callable[[Mapping[str, Any]], str | None]
    several_issuers: bool
    client_id: str
    algorithms: frozenset[str]
    jwks_uri: str
    now: float
    skew: int


def check_type(typ: str | None, expected: str, *, required: bool, error: type[OidcError]) -> None:
    """Check the `typ` header, ignoring case and the prefix `application/` (RFC 7515 4.1.9)."""
    if typ is None and not required:
        return
    if typ is None or typ.lower().removeprefix("application/") != expected:
        raise error("typ_header")


def check_issuer(claims: dict[str, Any], issuer: str | None, error: type[OidcError]) -> str:
    """Check `iss`, character for character, and return it. `issuer` is None for a tenant that is not admitted."""
    if issuer is None:
        raise error("tenant_not_admitted")
    if claims.get("iss") != issuer:
        raise error("iss_mismatch")
    return issuer


def check_audience(claims: dict[str, Any], client_id: str, error: type[OidcError]) -> None:
    """Check that the token is meant for us (OpenID Connect Core 3.1.3.7, 3 to 5).

    `azp` never replaces `aud`: a token for another client must not log in here.
    """
    audiences = audiences_of(claims)
    if not audiences:
        raise error("aud_missing")
    if client_id not in audiences:
        raise error("aud_mismatch")
    azp = claims.get("azp")
    if isinstance(azp, str) and azp:
        if azp != client_id:
            raise error("azp_mismatch")
    elif any(each != client_id for each in audiences):
        raise error("azp_mismatch")


def audiences_of(claims: Mapping[str, Any]) -> list[str]:
    """Return `aud` as a list (RFC 7519 4.1.3), an empty one if it is missing or malformed."""
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    return audiences if isinstance(audiences, list) and all(isinstance(each, str) and each for each in audiences) else []


def check_times(
    claims: dict[str, Any],
    *,
    now: float,
    max_age: int,
    skew: int,
    error: type[OidcError],
    exp_required: bool = True,
) -> int:
    """Check `exp`, `iat` (required) and `nbf`; `now` in Unix seconds, `max_age` is the oldest acceptable `iat`.

    `skew` is the clock tolerance in seconds. Returns `iat` in whole seconds.
    """
    expires = number(claims, "exp", error) if exp_required else optional_number(claims, "exp")
    issued = number(claims, "iat", error)
    if expires is not None and now >= expires + skew:
        raise error("expired")
    if issued > now + skew:
        raise error("iat_in_future")
    if issued < now - max_age - skew:
        raise error("iat_too_old")
    not_before = optional_number(claims, "nbf")
    if not_before is not None and not_before > now + skew:
        raise error("nbf_in_future")
    return int(issued)


def number(claims: dict[str, Any], name: str, error: type[OidcError]) -> float:
    """Return a required NumericDate (RFC 7519 2)."""
    value = optional_number(claims, name)
    if value is None:
        raise error(f"{name}_malformed" if name in claims else f"{name}_missing")
    return value


def optional_number(claims: dict[str, Any], name: str) -> float | None:
    """Return a NumericDate, or None if it is absent or malformed."""
    value: Any = claims.get(name)
    # type(), not isinstance: True is an int to Python. The comparison also refuses NaN and Infinity.
    return float(value) if type(value) in {int, float} and 0 <= value <= _MAX_NUMBER else None


def text(claims: dict[str, Any], name: str, error: type[OidcError]) -> str:
    """Return a required identifier: 1 to 255 printable ASCII characters."""
    value = optional_text(claims.get(name))
    if value is None:
        raise error(f"{name}_malformed" if name in claims else f"{name}_missing")
    return value


def optional_text(value: object, max_chars: int = MAX_TEXT) -> str | None:
    """Return an identifier, or None unless it is 1 to `max_chars` printable ASCII characters."""
    fit = isinstance(value, str) and 0 < len(value) <= max_chars and value.isascii() and value.isprintable()
    return value if fit else None  # type: ignore[return-value]


def optional_sid(value: object) -> str | None:
    """Return the name of a session at the provider, None when it is anything else (Back-Channel Logout 1.0, 2.1)."""
    return optional_text(value, MAX_SID)


def subject_of(claims: Mapping[str, Any], path: str) -> str:
    """Return the subject at `path`: text, or a whole number as text. Raises `IdTokenError`.

    Booleans and floats are refused, although Python treats `True` as a number and 1.0 as equal to 1.
    """
    value = claim_at(claims, path)
    if value is None:
        raise IdTokenError("sub_missing")
    subject = optional_text(str(value) if type(value) is int else value)
    if subject is None:
        raise IdTokenError("sub_malformed")
    return subject
