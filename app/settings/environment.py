"""Reads the names of variables in the environment and `.env`, and finds misspelt ones. Independent of their meaning."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from app.settings.report import Problem, SettingsError

__all__ = ("given_names", "misspelt")

_PREFIXES: Final = ("APP_", "SESSION_", "OIDC_", "LIMIT_")
_FOREIGN: Final = frozenset({"SESSION_MANAGER"})
"""Set by X11 desktops for every program."""
_KUBERNETES: Final = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PORT|PROTO|ADDR))?)?)$")
"""Variables that Kubernetes sets in every pod for a service called `app`, `session-...` or `oidc-...`."""
_CLOSE: Final = 0.85


def given_names(env_file: Path | None) -> dict[str, str]:
    """Return every variable set in the environment or `env_file`, with its source.

    Raises `SettingsError` when the file cannot be read as UTF-8 text.
    """
    found = dict.fromkeys(os.environ, "the environment")
    if env_file is not None and env_file.is_file():
        try:
            for name, value in dotenv_values(env_file, interpolate=False).items():
                if value is None:
                    message = f"{env_file} has it without a value"
                    raise SettingsError([Problem(name, message, f"{name}=value")])
                found.setdefault(name, str(env_file))
        except (OSError, UnicodeDecodeError) as error:
            problem = Problem(str(env_file), f"cannot be read ({type(error).__name__})", "a text file in UTF-8")
            raise SettingsError([problem]) from None
    return found


def misspelt(given: Mapping[str, str], known: Collection[str]) -> list[Problem]:
    """Return a problem for each unknown variable with our prefix or a name close to one of ours.

    A misspelt setting must not be ignored silently: SESSION_IDLE=60 would leave the default of an hour.
    """
    problems: list[Problem] = []
    for raw, place in given.items():
        name = raw.upper()
        if name in known or name in _FOREIGN or _KUBERNETES.search(name):
            continue
        if name.startswith(_PREFIXES) or get_close_matches(name, known, n=1, cutoff=_CLOSE):
            hint = f"did you mean {_meant(name, known)}?"
            problems.append(Problem(raw, f"is set in {place} but is no setting of this application", hint))
    return problems


def _meant(name: str, known: Collection[str]) -> str:
    """Return the most likely setting for a wrong name: one that begins with it, or the most similar."""
    continued = [setting for setting in sorted(known) if setting.startswith(name) or name.startswith(setting)]
    return [*continued, *get_close_matches(name, known, n=1, cutoff=0)][0]
