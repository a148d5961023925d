"""Names the extra of this distribution that installs a missing package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("extra",)


@contextmanager
def extra(name: str, *packages: str, wanted: str) -> Iterator[None]:
    """Wrap the imports of an extra's packages: their `ModuleNotFoundError` then names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in packages:
            raise
        msg = f"{wanted} needs {error.name}, which session-core[{name}] installs"
        raise ModuleNotFoundError(msg, name=error.name) from error
