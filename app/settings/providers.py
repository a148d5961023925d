"""Further identity providers: numbered variables (`OIDC_2_ISSUER`), or the tables of a TOML file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values
from pydantic import ValidationError

from app.settings.provider import ProviderSettings, problem_of
from app.settings.report import Problem, SettingsError

__all__ = ("further_providers", "numbered_names")

_NUMBERED: Final = re.compile(r"OIDC_([1-9][0-9]?)_([A-Z][A-Z_]*)\Z")
_FIELDS: Final = tuple(name.removeprefix("oidc_") for name in ProviderSettings.model_fields)
_FILE: Final = "OIDC_PROVIDERS_FILE"


def numbered_names(given: Iterable[str]) -> set[str]:
    """Return all valid names of numbered variables, for the numbers that occur in `given`."""
    numbers = {match[1] for name in given if (match := _NUMBERED.match(name.upper()))}
    return {f"OIDC_{number}_{field.upper()}" for number in numbers for field in _FIELDS}


def further_providers(env_file: Path | None, file: Path | None) -> tuple[ProviderSettings, ...]:
    """Return the providers of the numbered variables in the order of their numbers, then those of `file`.

    Raises `SettingsError`, which names each setting that cannot be used.
    """
    found: list[ProviderSettings] = []
    problems: list[Problem] = []
    for place, values in [*_of_variables(env_file), *_of_file(file)]:
        try:
            found.append(_read(place, values))
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(problems)
    return tuple(found)


def _read(place: str, values: Mapping[str, Any]) -> ProviderSettings:
    blank = ProviderSettings().at(place)
    problems = [
        Problem(
            f"{place}{name}", "is no setting of a provider", f"did you mean {get_close_matches(name, _FIELDS, n=1, cutoff=0)[0]}?"
        )
        for name in values
        if name not in _FIELDS
    ]
    try:
        settings = ProviderSettings(**{f"oidc_{name}": value for name, value in values.items() if name in _FIELDS}).at(place)
    except ValidationError as error:
        raise SettingsError([*problems, *(problem_of(each, blank) for each in error.errors(include_url=False))]) from None
    absent = [*(["oidc_id"] if "oidc_id" not in settings.model_fields_set else []), *settings.missing()]
    problems += [
        Problem(blank.name_of(name), "is needed for each of several providers", blank.example_of(name)) for name in absent
    ]
    if problems:
        raise SettingsError(problems)
    return settings


def _of_variables(env_file: Path | None) -> list[tuple[str, dict[str, str]]]:
    given: dict[str, str | None] = dict(dotenv_values(env_file)) if env_file is not None and env_file.is_file() else {}
    given |= os.environ
    numbered: dict[int, dict[str, str]] = {}
    for raw, value in given.items():
        match = _NUMBERED.match(raw.upper())
        # Other names were refused, or are set by Kubernetes for a service of such a name.
        if match and value and (field := match[2].lower()) in _FIELDS:
            numbered.setdefault(int(match[1]), {})[field] = value
    return [(f"OIDC_{number}_", numbered[number]) for number in sorted(numbered)]


def _of_file(file: Path | None) -> list[tuple[str, dict[str, Any]]]:
    if file is None:
        return []
    good = 'a file with tables such as [[provider]] id = "partner"'
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        # Without the parser's message: it may quote a line with a secret.
        raise SettingsError([Problem(_FILE, f"cannot be read as TOML ({type(error).__name__})", good)]) from None
    tables = document.get("provider")
    if not isinstance(tables, list) or not tables or len(document) > 1 or not all(isinstance(each, dict) for each in tables):
        raise SettingsError([Problem(_FILE, "must hold [[provider]] tables and nothing else", good)])
    return [(f"{file.name}, provider {number}: ", table) for number, table in enumerate(tables, 1)]
