"""Reports invalid settings: name, problem and a valid example; never the value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ("Problem", "SettingsError")


@dataclass(frozen=True, slots=True)
class Problem:
    """One setting that cannot be used as it is."""

    name: str
    problem: str
    example: str

    def __str__(self) -> str:
        """Return the line for the operator."""
        return f"{self.name}: {self.problem} ({self.example})"


class SettingsError(Exception):
    """The application cannot start with these settings; one line for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"error: {problem}" for problem in problems))
        self.problems = tuple(problems)
