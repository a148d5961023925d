"""Which store a URL means; imports a driver only when its URL asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from session_core.clock import Clock, SystemClock
from session_core.errors import ConfigurationError
from session_core.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_core.stores.base import SessionStore

__all__ = ("open_store", "redacted")

_GOOD = "memory://, file:///var/sessions, sqlite+aiosqlite:///var/app.db, postgresql+asyncpg://user@host/db, redis://localhost"


def open_store(url: str, *, clock: Clock | None = None) -> SessionStore:
    """Return the store that `url` names, not yet connected (`await store.open()` does that).

    Raises `ConfigurationError` for an unknown scheme, a malformed URL or a driver that is not installed.
    """
    scheme = urlsplit(url).scheme if "://" in url else ""
    opener = _OPENERS.get(scheme.partition("+")[0])
    if opener is None:
        msg = f"no session store answers to {redacted(url)!r}; good examples: {_GOOD}"
        raise ConfigurationError(msg)
    try:
        return opener(url, clock or SystemClock())
    except ImportError as error:
        msg = f"the store {redacted(url)!r} needs a package that is not installed: {error.name}"
        raise ConfigurationError(msg) from error


def redacted(url: str) -> str:
    """Return the URL without the password, for messages and logs."""
    head, separator, tail = url.partition("?")[0].partition("://")
    if not separator:
        return f"{head.partition(':')[0]}..."  # no URL: what follows may be anything, a password too
    credentials, at, place = tail.rpartition("@")
    name, colon, _ = credentials.partition(":")
    return f"{head}{separator}{name}{':***' if colon else ''}{at}{place}"


def _memory(url: str, clock: Clock) -> SessionStore:
    del url
    return MemoryStore(clock=clock)


def _file(url: str, clock: Clock) -> SessionStore:
    from session_core.stores.file import FileStore  # noqa: PLC0415 - a driver is imported only when asked for

    path = urlsplit(url).path
    if not path or urlsplit(url).netloc:
        msg = "a file store needs an absolute path, for example file:///var/lib/app/sessions"
        raise ConfigurationError(msg)
    return FileStore(path, clock=clock)


def _sql(url: str, clock: Clock) -> SessionStore:
    from session_core.stores.sql import SqlStore  # noqa: PLC0415 - a driver is imported only when asked for

    return SqlStore(url, clock=clock)


def _redis(url: str, clock: Clock) -> SessionStore:
    from session_core.stores.redis import RedisStore  # noqa: PLC0415 - a driver is imported only when asked for

    return RedisStore(url, clock=clock)


_OPENERS: dict[str, Callable[[str, Clock], SessionStore]] = {
    "memory": _memory,
    "file": _file,
    "sqlite": _sql,
    "postgresql": _sql,
    "mysql": _sql,
    "redis": _redis,
    "rediss": _redis,
}
