"""Percent-encoding of cookie values exactly as JavaScript's encodeURIComponent; knows no header and no signature."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

__all__ = ("decode_component", "encode_component")

_UNESCAPED_MARKS: Final = "-_.!~*'()"
_COMMON: Final = re.compile(rb"[A-Za-z0-9\-_.!~*'()]*(?:%(?:3A|2B|2F)[A-Za-z0-9\-_.!~*'()]*)*\Z")
"""What a signed session cookie consists of: nothing escaped but the colon of `s:` and base64's plus and slash."""


def encode_component(value: str) -> str:
    """Encode as encodeURIComponent does (ECMAScript 19.2.6.4). Raises `UnicodeEncodeError` for lone surrogates."""
    return quote(value, safe=_UNESCAPED_MARKS)


def decode_component(raw: bytes) -> str | None:
    """Decode the one text that `encode_component` gives; `None` for every other spelling of it. Never raises.

    One value must have one spelling: `%73%3A...`, lower-case hex, quotes or a bare `+` are not what was set, and a
    filter between here and the browser may have read them differently.
    """
    if _COMMON.match(raw):
        text = raw.decode("ascii")
        if "%" not in text:
            return text
        return text.replace("%3A", ":").replace("%2B", "+").replace("%2F", "/")
    try:
        value = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return None
    return value if encode_component(value).encode("ascii") == raw else None
