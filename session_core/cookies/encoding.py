"""Percent-encoding of cookie values exactly as JavaScript's encodeURIComponent; independent of headers and signatures."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

__all__ = ("decode_component", "encode_component")

_UNESCAPED_MARKS: Final = "-_.!~*'()"
_SIGNED_TEXT: Final = re.compile(r"[A-Za-z0-9\-_.!~*'():+/]*\Z")
_SIGNED_RAW: Final = re.compile(rb"[A-Za-z0-9\-_.!~*'()]*(?:%(?:3A|2B|2F)[A-Za-z0-9\-_.!~*'()]*)*\Z")
"""What a signed session id consists of, plain and encoded: only the colon of `s:` and base64's plus and slash are escaped.

Both sides of the codec have a short cut for it, since it is read with every request; the long way gives the same result.
"""


def encode_component(value: str) -> str | None:
    """Encode as encodeURIComponent does (ECMAScript 19.2.6.4); `None` where that throws, for lone surrogates."""
    if _SIGNED_TEXT.match(value):
        return value.replace(":", "%3A").replace("+", "%2B").replace("/", "%2F")
    try:
        return quote(value, safe=_UNESCAPED_MARKS)
    except UnicodeEncodeError:
        return None


def decode_component(raw: bytes) -> str | None:
    """Decode the one text that `encode_component` gives; `None` for every other spelling of it. Never raises.

    One value must have one spelling: `%73%3A...`, lower-case hex, quotes or a bare `+` are not what was set, and a
    filter between here and the browser may have read them differently.
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
