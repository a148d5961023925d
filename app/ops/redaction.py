"""Removes secrets from the log of every logger, by field name and by the pattern of values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ("redact", "redact_text")

_HIDDEN: Final = "[redacted]"
_FIELDS: Final = re.compile(
    r"cookie|authorization|password|passwd|secret|assertion|verifier|nonce|vault|session_id|"
    r"(^|_)(token|key|keys|code|state|sid|jwt|body|query|query_string)$|_token(_|$)"
)
_SAFE_FIELDS: Final = frozenset({"status_code", "error_code", "user_key"})
_VALUES: Final = (
    # A signed cookie, also percent-encoded; a JWT; what follows the name of a secret in a URL, a header or a repr.
    re.compile(r"s(?::|%3[Aa])[A-Za-z0-9_-]{16,}\.[A-Za-z0-9+/%_-]{20,}=*"),
    # A bearer token of a session.
    re.compile(r"(?<![A-Za-z0-9_~-])[A-Za-z0-9_~-]{46,240}(?:\.[0-9]{1,15})?\.[A-Za-z0-9+/]{43}(?![A-Za-z0-9+/=_-])"),
    re.compile(r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"),
    re.compile(r"(?i)(?<=bearer )[^\s\"',;]+|(?<=basic )[A-Za-z0-9+/=]{8,}"),
    re.compile(
        r"(?i)(?<![a-z])((?:code|state|nonce|sid|code_verifier|id_token_hint|(?:client|session)_secrets?|password|"
        r"(?:access|refresh|id|logout)_token)[\"']?\s?[=:]\s?[\"']?)[^\s\"'&,;}<>]+"
    ),
    re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+(?=@)"),
)
_DEPTH: Final = 6


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Return the log entry without secrets; a structlog processor, to run last before rendering."""
    del logger, method
    return {name: _value(name, value, 0) for name, value in event.items()}


def redact_text(text: str) -> str:
    """Return text in which everything that looks like a secret is hidden."""
    for pattern in _VALUES:
        text = pattern.sub(lambda match: f"{match[1] or ''}{_HIDDEN}" if match.re.groups else _HIDDEN, text)
    return text


def _value(name: str, value: Any, depth: int) -> Any:  # noqa: ANN401 - whatever is logged
    normal = name.lower().replace("-", "_")
    if normal not in _SAFE_FIELDS and _FIELDS.search(normal):
        return _HIDDEN
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _members(value, depth + 1)
    return redact_text(value.decode("latin-1") if isinstance(value, bytes | bytearray) else str(value))


def _members(value: Any, depth: int) -> Any:  # noqa: ANN401 - a collection of whatever is logged
    if depth > _DEPTH:
        return _HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _value(str(key), item, depth) for key, item in value.items()}
    return [_value("", item, depth) for item in value]
