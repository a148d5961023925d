"""A struct whose repr hides its content: for tokens, codes and other secrets."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ("SecretStruct",)


class SecretStruct(msgspec.Struct, frozen=True):
    """Base of structs that hold secrets: reprs, rich's included, end up in logs and tracebacks."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show nothing in rich tracebacks either; msgspec would show every field."""
        return []
