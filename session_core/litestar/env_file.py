"""Changes one line of a settings file, whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from session_core.errors import ConfigurationError

__all__ = ("rotate_secret",)


def rotate_secret(env_file: str, name: str, secret: str, *, keep: int) -> int:
    """Put `secret` first in the comma-separated `name` of `env_file` and keep `keep` of those before; return how many were kept.

    The file is replaced in one step, readable by its owner alone. Raises `ConfigurationError` when it cannot be written.
    """
    path = Path(env_file)
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        form = re.compile(rf"\s*(?:export\s+)?{re.escape(name)}\s*=\s*(?P<value>.*?)\s*\Z")
        matches = [(number, match) for number, line in enumerate(lines) if (match := form.match(line))]
        value = matches[-1][1]["value"].strip("\"'") if matches else ""
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
