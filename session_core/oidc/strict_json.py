"""Parses untrusted JSON strictly, refusing input that two parsers could read differently. Independent of tokens."""

from __future__ import annotations

import json
from typing import Any

import msgspec

__all__ = ("parse_json", "parse_object")


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`. Raises `ValueError` for anything else."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise _malformed()
    return value


def parse_json(raw: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON value in `raw`.

    Raises `ValueError` for invalid JSON, and for input that parsers read differently: duplicate members (RFC 8259 4), NaN and
    Infinity, lone surrogates, another encoding than UTF-8.
    """
    try:
        # Two passes: the first is strict about syntax and Unicode, the second sees duplicate members.
        msgspec.json.decode(raw)
        return json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, msgspec.MsgspecError, RecursionError):  # msgspec raises no ValueError before 0.21
        pass
    # Not chained: the message of a decoding error quotes its input, which may be a token.
    raise _malformed()


def _malformed() -> ValueError:
    return ValueError("not JSON of the expected form with unique members")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        msg = "duplicate member"
        raise ValueError(msg)
    return members


def _refuse_constant(name: str) -> Any:  # noqa: ANN401 - json's own signature
    msg = f"{name} is not JSON"
    raise ValueError(msg)
