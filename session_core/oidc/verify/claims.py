"""The checks that ID tokens and logout tokens have in common; knows claims, and no signature.

Each takes the error to raise, with a reason slug; none repeats a claim's value in it.
"""

# ruff: noqa: EM101, EM102 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from session_core.errors import OidcError

__all__ = ("SKEW_SECONDS", "check_audience", "check_issuer", "check_times", "check_type", "number", "optional_text", "text")

SKEW_SECONDS: Final = 60
"""How far a provider's clock may be from ours."""
MAX_TEXT: Final = 255
"""The longest subject (OpenID Connect Core 2), and the longest of other identifiers here."""
_MAX_NUMBER: Final = 2**53


def check_type(typ: str | None, expected: str, *, required: bool, error: type[OidcError]) -> None:
    """Check the `typ` header without regard to case and to the prefix `application/` (RFC 7515 4.1.9)."""
    if typ is None and not required:
        return
    if typ is None or typ.lower().removeprefix("application/") != expected:
        raise error("typ_header")


def check_issuer(claims: dict[str, Any], issuer: str, error: type[OidcError]) -> None:
    """Check `iss`, character for character."""
    if claims.get("iss") != issuer:
        raise error("iss_mismatch")


def check_audience(claims: dict[str, Any], client_id: str, error: type[OidcError]) -> None:
    """Check that the token is meant for us (OpenID Connect Core 3.1.3.7, 3 to 5).

    `azp` never stands in for `aud`: a token for another client, asked for by us, is not ours to log in with.
    """
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not audiences or not all(isinstance(each, str) for each in audiences):
        raise error("aud_missing")
    if client_id not in audiences:
        raise error("aud_mismatch")
    azp = claims.get("azp")
    if (azp is not None and azp != client_id) or (azp is None and any(each != client_id for each in audiences)):
        raise error("azp_mismatch")


def check_times(claims: dict[str, Any], *, now: float, max_age: int, error: type[OidcError]) -> int:
    """Check `exp`, `iat` (both required) and `nbf`; `now` in Unix seconds, `max_age` is the oldest acceptable `iat`.

    Returns `iat` in whole seconds.
    """
    expires, issued = number(claims, "exp", error), number(claims, "iat", error)
    if expires is None or now >= expires + SKEW_SECONDS:
        raise error("exp_missing" if expires is None else "expired")
    if issued is None or issued > now + SKEW_SECONDS:
        raise error("iat_missing" if issued is None else "iat_in_future")
    if issued < now - max_age - SKEW_SECONDS:
        raise error("iat_too_old")
    not_before = number(claims, "nbf", error)
    if not_before is not None and not_before > now + SKEW_SECONDS:
        raise error("nbf_in_future")
    return int(issued)


def number(claims: dict[str, Any], name: str, error: type[OidcError]) -> float | None:
    """Return a NumericDate (RFC 7519 2), None when absent; raises when it is anything else but a sane number."""
    if name not in claims:
        return None
    value: Any = claims[name]
    # type(), not isinstance: True is an int to Python. The comparison also refuses NaN and Infinity.
    if type(value) not in {int, float} or not 0 <= value <= _MAX_NUMBER:
        raise error(f"{name}_malformed")
    return float(value)


def text(claims: dict[str, Any], name: str, error: type[OidcError]) -> str:
    """Return a required identifier: 1 to 255 printable ASCII characters."""
    value = optional_text(claims, name, error)
    if value is None:
        raise error(f"{name}_missing")
    return value


def optional_text(claims: dict[str, Any], name: str, error: type[OidcError]) -> str | None:
    """Return an identifier, None when absent; raises when it is present and not 1 to 255 printable ASCII characters."""
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isascii() or not value.isprintable():
        raise error(f"{name}_malformed")
    return value
