"""Reports invalid settings: name, problem and a valid example; never the value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from session_core.errors import ConfigurationError

__all__ = ("Problem", "SettingsError", "as_value_error", "problem_in")


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


@contextmanager
def as_value_error() -> Iterator[None]:
    """Turn an error of the library into one for pydantic, which names the setting itself."""
    try:
        yield
    except ConfigurationError as error:
        raise ValueError(problem_in(error)) from None


def problem_in(error: ConfigurationError) -> str:
    """Return the message without the name of the library's option."""
    return str(error).removeprefix(f"{error.option} ")
