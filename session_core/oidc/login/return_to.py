r"""Decides where a login may send the browser afterwards: to a page of this site, or to the default.

An open redirect after login helps phishing, and every blacklist of bad URLs has been bypassed by another spelling (`//e`, `/\e`,
`/%09/e`, full-width slashes). So a small grammar defines local paths, and everything else becomes the default:

    return-to = path [ "?" query ] [ "#" fragment ]       at most 2048 characters as browsers send them
    path      = "/" [ segment *( "/" segment ) [ "/" ] ]  no empty segment: nothing begins with, or contains, "//"
    segment   = 1*char; after a leading "." a letter      no dot segments to resolve

A path has ASCII letters, digits, `-._~!$&'()*+,=:` and percent-encoded octets that are valid UTF-8; decoded, these may
add visible characters of any script, a space and `"<>[]^`{|};@%`, but nothing that could be read as a slash, a
backslash or a dot, no percent sign that begins another encoded octet, and no control character. The query may hold more (no
backslash, no control character in any spelling, none that changes the direction of the text); what browsers leave as it is in it
(`[]^`{|}`, a lone `%`) is encoded in the result. A parameter named `next` in it must be a local path or not a URL.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote, unquote

from session_core.urls import PATH_MARKS, QUERY_MARKS, encoded_query, packed

__all__ = ("local_return_to",)

_MAX_CHARS: Final = 2048
_MAX_LAYERS: Final = 4
_ENCODED_IN_QUERY: Final = "[]^`{|}%"
"""Browsers send these unencoded; the result has them percent-encoded."""
_PATH_CHAR: Final = rf"(?:[A-Za-z0-9{re.escape(PATH_MARKS)}]|[^\x00-\x7f]|%[0-9A-Fa-f]{{2}})"
_QUERY_CHAR: Final = rf"(?:[A-Za-z0-9{re.escape(QUERY_MARKS + _ENCODED_IN_QUERY)}]|[^\x00-\x7f])"
_SEGMENT: Final = rf"(?!\.(?![A-Za-z0-9_])){_PATH_CHAR}+"
_RETURN_TO: Final = re.compile(
    rf"(?P<path>/(?:{_SEGMENT}(?:/{_SEGMENT})*/?)?)(?:\?(?P<query>{_QUERY_CHAR}*))?(?:\#{_QUERY_CHAR}*)?\Z"
)
_HIDDEN_IN_PATH: Final = re.compile(r"%(?:[01][0-9a-f]|7f|2e|2f|5c)", re.IGNORECASE)
_ENCODED_TWICE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_JOINERS: Final = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Persian and Indic spelling, and many emoji, need them."""
_PATH_CATEGORIES: Final = frozenset({"L", "M", "N", "P", "S", "Cn"})
"""Of Unicode: letters, marks, numbers, punctuation, symbols, and what is newer than Python's tables, such as emoji."""
_DIRECTIONS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
_MISREAD: Final = frozenset("/\\.%?#@:; \u2044\u2215\u2216\u29f5\u29f8\u29f9\u3002")
"""With the slashes, backslashes and the full stop of other scripts."""
_HIDDEN_IN_QUERY: Final = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_NESTED: Final = re.compile(r"(?:^|[?&;#])next=([^&;#]*)", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"[\x00-\x20]*(?:[/\\]|[a-z][a-z0-9+.-]*:)", re.IGNORECASE)


def local_return_to(
    next: object,  # noqa: A002 - the parameter's name on the wire
    *,
    default: str = "/",
    forbidden_prefixes: tuple[str, ...] = ("/auth/",),
) -> str:
    """Return `next` when it is a local path by the grammar above, else `default`. Never raises.

    The result is ASCII (other scripts percent-encoded as UTF-8) and safe in a Location header; it is a fixed point: what
    was accepted once is accepted again, unchanged. The fragment is dropped. A path under one of `forbidden_prefixes` is
    refused, also without its last slash: returning to the login would loop, returning to the logout would log out.
    """
    return _local(next, forbidden_prefixes, _MAX_LAYERS) or default


def _local(address: object, forbidden_prefixes: tuple[str, ...], layers: int) -> str | None:
    """Return the local path, None for anything else. `layers`: how many addresses may be nested in it."""
    if not isinstance(address, str) or len(address) > 3 * _MAX_CHARS:  # each character may be percent-encoded
        return None
    parts = _RETURN_TO.match(address)
    if parts is None:
        return None
    path = parts["path"]
    try:
        address.encode()
    except UnicodeError:
        return None
    query = encoded_query(parts["query"] or "")
    if not _is_plain_path(path, forbidden_prefixes) or not _is_plain_query(query, forbidden_prefixes, layers):
        return None
    target = quote(path, safe=PATH_MARKS + "/%")
    if query:
        target += "?" + query
    return target if len(packed(target)) <= _MAX_CHARS else None


def _is_plain_path(path: str, forbidden_prefixes: tuple[str, ...]) -> bool:
    # An encoded slash, dot or backslash is harmless to the browser but not to the next server that decodes the path;
    # an encoded percent sign may hide any of them from a server that decodes twice.
    if _HIDDEN_IN_PATH.search(path):
        return False
    decoded = _decoded(path)
    if decoded is None or _ENCODED_TWICE.search(decoded) or not all(char.isascii() or _is_path_char(char) for char in decoded):
        return False
    # Case-insensitive: a proxy or a router in front may be as well.
    folded = decoded.casefold() + "/"
    return not any(folded.startswith(prefix.casefold()) for prefix in forbidden_prefixes)


def _is_plain_query(query: str, forbidden_prefixes: tuple[str, ...], layers: int) -> bool:
    if _HIDDEN_IN_QUERY.search(query):
        return False
    decoded = unquote(query, errors="replace")
    if not all(char.isascii() or _is_query_char(char) for char in decoded):
        return False
    # A page that redirects to its own `next` must not lead to a URL that this function refuses.
    for _ in range(_MAX_LAYERS):
        if any(_leads_elsewhere(value, forbidden_prefixes, layers) for value in _NESTED.findall(decoded)):
            return False
        again = unquote(decoded)
        if again == decoded:
            return True
        decoded = again
    return False


def _leads_elsewhere(value: str, forbidden_prefixes: tuple[str, ...], layers: int) -> bool:
    """Whether a nested `next` is a URL that is not allowed; one that is nested too deeply is not: checking it costs too much."""
    return _ADDRESS.match(value) is not None and (not layers or _local(value, forbidden_prefixes, layers - 1) is None)


def _is_query_char(char: str) -> bool:
    if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or char == "\N{LANGUAGE TAG}":
        return False
    return unicodedata.bidirectional(char) not in _DIRECTIONS


def _decoded(text: str) -> str | None:
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()
    except UnicodeError:
        return None
    return decoded


def _is_path_char(char: str) -> bool:
    category = unicodedata.category(char)
    if char not in _JOINERS and not {category, category[0]} & _PATH_CATEGORIES:
        return False
    # A server that normalises reads a full-width slash as a slash, and U+2100 as "a/c".
    return _MISREAD.isdisjoint(unicodedata.normalize("NFKC", char))
