"""Strict reading of query strings and form bodies: malformed input is refused before it is used."""

from collections import Counter
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

__all__ = ("MAX_BODY_BYTES", "MAX_PARAMETER_BYTES", "ParameterError", "Parameters", "parse_parameters")

MAX_BODY_BYTES: Final = 64 * 1024
MAX_PARAMETER_BYTES: Final = 16 * 1024
_MAX_FIELDS: Final = 64


class ParameterError(ValueError):
    """The request's parameters cannot be read; the text is safe to show (it never repeats the input)."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Single-valued parameters; a name sent twice is only in `repeated` (RFC 6749 3.1: must not happen)."""

    values: dict[str, str]
    repeated: frozenset[str] = frozenset()

    def get(self, name: str) -> str | None:
        """Return the value, or ``None`` when absent, empty or repeated."""
        return self.values.get(name)

    def require_single(self) -> "Parameters":
        """Return itself, or raise `ParameterError` when any name was repeated."""
        if self.repeated:
            message = "a parameter was sent more than once"
            raise ParameterError(message)
        return self


def parse_parameters(raw: bytes, *, limit: int = MAX_PARAMETER_BYTES) -> Parameters:
    """Parse ``application/x-www-form-urlencoded`` bytes of at most `limit` bytes.

    Empty values count as omitted (RFC 6749 3.1). Raises `ParameterError` for what is too long, not UTF-8 (lone
    surrogates included), or contains control characters (NUL, CR, LF: header and log injection).

    Litestar's own parser is not used: it decodes leniently and keeps the last 1024 bodies, passwords and
    codes included, in a process-wide cache.
    """
    if len(raw) > limit:
        message = "the parameters are too long"
        raise ParameterError(message)
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        message = "the parameters are not valid form-encoded UTF-8"
        raise ParameterError(message) from None
    if any(not text.isprintable() and _has_control(text) for pair in pairs for text in pair):
        message = "a parameter contains control characters"
        raise ParameterError(message)
    counts = Counter(name for name, _ in pairs)
    repeated = frozenset(name for name, count in counts.items() if count > 1)
    return Parameters({name: value for name, value in pairs if value and name not in repeated}, repeated)


def _has_control(text: str) -> bool:
    return any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in text)  # noqa: PLR2004 - C0, DEL, C1
