"""Checks an option that takes one of a few words, so that a misspelt word is not taken for the default."""

from __future__ import annotations

from session_core.errors import ConfigurationError

__all__ = ("check_choice",)


def check_choice(options: object, name: str, *choices: str) -> None:
    """Raise `ConfigurationError` unless the attribute `name` of `options` is one of `choices`."""
    if getattr(options, name) not in choices:
        *others, last = map(repr, choices)
        msg = f"{name} must be {', '.join(others)} or {last}"
        raise ConfigurationError(msg)
