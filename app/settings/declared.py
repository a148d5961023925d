"""Declares a setting: default, limits, and the text of its page, `.env.example` and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

if TYPE_CHECKING:
    from pydantic.config import JsonDict
    from pydantic.fields import FieldInfo

__all__ = ("GENERATE", "example_of", "otherwise", "setting", "unless_set")

GENERATE: Final = "make one with: uv run litestar sessions generate-secret"


def setting(
    default: object,
    *,
    example: str = "",
    advice: str = "",
    otherwise: str = "none",
    repr: bool = True,  # noqa: A002 - as pydantic's
    gt: float | None = None,
    ge: float | None = None,
    le: float | None = None,
) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Declare a setting. The string below it is its description, in Markdown.

    `example` is a valid value, `advice` replaces it if there is none, `otherwise` describes the behaviour if it is not set.
    """
    shown: JsonDict = {"example": example, "advice": advice, "otherwise": otherwise}
    return Field(default=default, repr=repr, json_schema_extra=shown, gt=gt, ge=ge, le=le)


def example_of(name: str, fields: Mapping[str, FieldInfo]) -> str:
    """Return the advice at the end of an error about the setting `name` (in lower case)."""
    if name not in fields:
        return "see docs/reference/settings.md"
    shown = _shown(fields[name])
    return shown["advice"] or f"for example {name.upper()}={shown['example']}"


def unless_set(field: FieldInfo) -> str:
    """Return the default in the form of `.env`; empty without one."""
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in (None, (), {}) else str(value)


def otherwise(field: FieldInfo) -> str:
    """Return a description of the behaviour if a setting without a default is not set."""
    return _shown(field)["otherwise"]


def _shown(field: FieldInfo) -> dict[str, str]:
    extra = field.json_schema_extra
    return {name: str(value) for name, value in extra.items()} if isinstance(extra, dict) else {}
