"""Percent-encoding of cookie values exactly as JavaScript's encodeURIComponent; independent of headers and signatures."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

__all__ = ("decode_component", "encode_component")

_UNESCAPED_MARKS: Final = "-_.!~*'()"
_SIGNED_TEXT: Final = re.compile(r"[A-Za-z0-9\-_.!~*'():+/]*\Z")
_SIGNED_RAW: Final = re.compile(rb"[A-Za-z0-9\-_.!~*'()]*(?:%(?:3A|2B|2F)[A-Za-z0-9\-_.!~*'()]*)*\Z")
"""The characters of a signed session id, plain and encoded: only the colon of `s:` and base64's plus and slash are escaped.

Encoding and decoding have a fast path for them, because every request needs it; the general path gives the same result.
"""


def encode_component(value: str) -> str | None:
    """Encode as encodeURIComponent does (ECMAScript 19.2.6.4); `None` for lone surrogates, where that throws."""
    if _SIGNED_TEXT.match(value):
        return value.replace(":", "%3A").replace("+", "%2B").replace("/", "%2F")
    try:
        return quote(value, safe=_UNESCAPED_MARKS)
    except UnicodeEncodeError:
        return None


def decode_component(raw: bytes) -> str | None:
    """Decode text exactly as `encode_component` writes it; `None` for every other spelling. Never raises.

    One value must have one spelling: we never set `%73%3A...`, lower-case hex, quotes or a bare `+`, and a filter in front of the
    application may read them differently.
    """
    if _SIGNED_RAW.match(raw):
        text = raw.decode("ascii")
        if "%" not in text:
            return text
        return text.replace("%3A", ":").replace("%2B", "+").replace("%2F", "/")
    try:
        value = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return None
    return value if encode_component(value) == raw.decode("latin-1") else None
