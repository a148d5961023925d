"""Changes one line of a settings file, whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from session_core.errors import ConfigurationError

__all__ = ("is_overridden", "rotate_secret")


def is_overridden(env_file: str, name: str) -> bool:
    """Whether the environment sets `name` to something else than `env_file` does: a change of the file would have no effect."""
    given = os.environ.get(name)
    if not given:
        return False
    path = Path(env_file)
    matches = _settings(path.read_text(), name) if path.exists() else []
    return not matches or _unquoted(matches[-1][1]) != given


def _settings(text: str, name: str) -> list[tuple[int, re.Match[str]]]:
    """Return the lines that set `name`, with their numbers."""
    form = re.compile(rf"\s*(?:export\s+)?{re.escape(name)}\s*=\s*(?P<value>.*?)\s*\Z")
    return [(number, match) for number, line in enumerate(text.splitlines()) if (match := form.match(line))]


def _unquoted(match: re.Match[str]) -> str:
    return match["value"].strip("\"'")


def rotate_secret(env_file: str, name: str, secret: str, *, keep: int) -> int:
    """Put `secret` first in the comma-separated `name` of `env_file` and keep `keep` of those before; return how many were kept.

    The file is replaced in one step, readable by its owner alone. Raises `ConfigurationError` when it cannot be written.
    """
    path = Path(env_file)
    try:
        text = path.read_text() if path.exists() else ""
        lines, matches = text.splitlines(), _settings(text, name)
        value = _unquoted(matches[-1][1]) if matches else ""
        old = [part.strip() for part in value.split(",") if part.strip()][:keep]
        line = f"{name}={','.join([secret, *old])}"
        if matches:
            lines[matches[-1][0]] = line
        else:
            lines.append(line)
        _replace(path, "\n".join(lines) + "\n")
    except (OSError, UnicodeError) as error:
        msg = f"cannot change {name} in {env_file}: {type(error).__name__}"
        raise ConfigurationError(msg) from error
    return len(old)


def _replace(path: Path, text: str) -> None:
    # mkstemp makes the file 0600 from the start: a secret must not be readable by others even for a moment.
    descriptor, temporary = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
