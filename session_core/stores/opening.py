"""Opens the store of a URL; imports a driver only when its URL needs it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from session_core.clock import Clock, SystemClock
from session_core.errors import ConfigurationError
from session_core.stores.memory import MemoryStore

if TYPE_CHECKING:
    from session_core.stores.base import SessionStore

__all__ = ("open_store", "redacted")

_GOOD: Final = (
    "memory://, file:///var/sessions, sqlite:///var/app.db, postgresql+asyncpg://user@host/db, redis://localhost, "
    "unix:///run/redis.sock (Redis), dynamodb://table?region=name, s3://bucket?region=name, azure-tables://table, "
    "mongodb://host/database, "
    "memcached://host, https://host/base (unstorage), "
    "cloudflare-kv://account/namespace, keyvalue+disk:///var/sessions"
)
_EXTRAS: Final = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix"), "redis"),
    "http": "http",
    "https": "http",
    "cloudflare-kv": "http",
    "keyvalue": "keyvalue",
    **{scheme: scheme for scheme in ("azure-tables", "dynamodb", "memcached", "mongodb", "s3")},
}
"""The extra of this package that installs the driver of a scheme."""
_USER_SCHEMES: Final = frozenset({"postgresql", "postgres", "mysql", "mariadb"})
"""Schemes whose URL may have a user without a password; elsewhere that may be a token or a misplaced password."""

_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.%-]*)(?::[0-9]*)?"
_AUTHORITY: Final = re.compile(f"{_HOST}(?:,{_HOST})*", re.ASCII)


def open_store(url: str, *, clock: Clock | None = None) -> SessionStore:
    """Return the store that `url` names, not yet connected (`await store.open()` does that).

    Raises `ConfigurationError` for an unknown scheme, a malformed URL or a driver that is not installed.
    """
    scheme = url.partition("://")[0].partition("+")[0].lower() if "://" in url else ""
    opener = _OPENERS.get(scheme)
    if opener is None:
        msg = f"no session store matches {redacted(url)!r}; good examples: {_GOOD}"
        raise ConfigurationError(msg)
    if _hides_credentials(url.partition("://")[2]):
        msg = (
            f"the URL of the store {redacted(url)!r} is malformed: the user name or password holds one of / ? # or @, "
            "which has to be percent-encoded, for example / as %2F"
        )
        raise ConfigurationError(msg)
    try:
        return opener(url, clock or SystemClock())
    except ConfigurationError as error:
        if _may_hide_credentials(url.partition("://")[2]):  # what is wrong may be a part of the password
            msg = (
                f"the URL of the store {redacted(url)!r} is malformed: percent-encode an @ behind the host as %40, and also "
                "/ ? # and @ in a user name or password"
            )
            raise ConfigurationError(msg) from None
        # Without the path: in a malformed URL it may be what was meant as the password.
        scheme, _, place = redacted(url).partition("://")
        msg = f"{error} (in {scheme}://{place.partition('/')[0]})"
        raise ConfigurationError(msg) from None
    except ImportError as error:
        extra = f", which session-core[{_EXTRAS[scheme]}] installs" if _is_in_extra(scheme, error.name or "") else ""
        msg = f"the store {redacted(url)!r} needs a package that is not installed: {error.name}{extra}"
        raise ConfigurationError(msg) from error
    except ValueError:
        msg = f"the URL of the store {redacted(url)!r} is malformed: it is scheme://user:password@host:port/name"
        raise ConfigurationError(msg) from None  # the cause may quote the password


def redacted(url: str) -> str:
    """Return the URL without the password, for messages and logs."""
    head, separator, tail = url.partition("://")
    scheme = head.partition("+")[0].lower()
    if not separator:  # not a URL: it may contain a password
        return f"{head.partition(':')[0]}..." if head.partition(":")[0].partition("+")[0] in _OPENERS else "..."
    if _hides_credentials(tail):
        return f"{head}://***@{tail.rpartition('@')[2].partition('?')[0]}"
    if _may_hide_credentials(tail):
        return f"{head}://***"
    credentials, at, place = tail.partition("?")[0].rpartition("@")
    name, colon, _ = credentials.partition(":")
    if at and not colon and scheme not in _USER_SCHEMES:
        name = "***"  # a token or password in the place of the user
    authority, slash, path = place.partition("/")
    if not _AUTHORITY.fullmatch(authority):
        authority = "***"  # perhaps a user and a password without `@`
    return f"{head}://{name}{':***' if colon else ''}{at}{authority}{slash}{path}"


def _hides_credentials(tail: str) -> bool:
    """Whether an unescaped character in the user name or password turns the rest into a path, query or fragment."""
    password = _authority(tail).partition(":")[2]
    return _may_hide_credentials(tail) and bool(password) and not password.isdigit()


def _may_hide_credentials(tail: str) -> bool:
    """The same, also where what stands before may be a host and a port: a password may be a number, and a token has no colon."""
    authority = _authority(tail)
    return bool(authority) and "@" not in authority and "@" in tail


def _authority(tail: str) -> str:
    return re.split(r"[/?#]", tail, maxsplit=1)[0]


def _is_in_extra(scheme: str, package: str) -> bool:
    # The backends of py-key-value have their own extras, which the error names.
    return scheme in _EXTRAS and not package.startswith("py-key-value-aio[")


def _memory(url: str, clock: Clock) -> SessionStore:
    del url
    return MemoryStore(clock=clock)


def _sqlite(url: str, clock: Clock) -> SessionStore:
    from session_core.stores.sqlite.store import SqliteStore  # noqa: PLC0415 - a driver is imported only when asked for

    scheme, _, path = url.partition("://")
    if scheme.lower() not in {"sqlite", "sqlite+aiosqlite"} or not path.startswith("/") or "?" in path:
        msg = (
            "the URL of a SQLite file takes no host, driver or option; good examples: sqlite:///var/app.db, sqlite:////srv/app.db"
        )
        raise ConfigurationError(msg)
    return SqliteStore(unquote(path[1:]), clock=clock)


def _directory(url: str, clock: Clock) -> SessionStore:
    from session_core.stores.sqlite.store import SqliteStore  # noqa: PLC0415 - a driver is imported only when asked for

    path = url.partition("://")[2]
    if not path.startswith("/") or "?" in path:
        msg = "file:// needs the absolute path of a directory, for example file:///var/lib/app/sessions"
        raise ConfigurationError(msg)
    directory = Path(unquote(path))
    if (directory / "sessions").is_dir():
        msg = (
            f"{directory} holds one file for each session, as an earlier version kept them; sessions are now in one SQLite file. "
            "Delete the directory, which ends those sessions (their users log in again), or name another one"
        )
        raise ConfigurationError(msg)
    return SqliteStore(directory / "sessions.db", clock=clock)


def _opener(name: str) -> Callable[[str, Clock], SessionStore]:
    """Return what opens the store of this name, and imports it only then: a driver is imported only when asked for."""

    def opens(url: str, clock: Clock) -> SessionStore:
        store: SessionStore = resolve_name(f"session_core.stores.{name}")(url, clock=clock)
        return store

    return opens


_SQL: Final = _opener("sql.store:SqlStore")
_REDIS: Final = _opener("redis.store:RedisStore")
_UNSTORAGE: Final = _opener("document.unstorage:UnstorageStore")
_OPENERS: Final[dict[str, Callable[[str, Clock], SessionStore]]] = {
    "memory": _memory,
    "file": _directory,
    "sqlite": _sqlite,
    **dict.fromkeys(("postgresql", "postgres", "mysql", "mariadb"), _SQL),
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix"), _REDIS),
    **dict.fromkeys(("http", "https"), _UNSTORAGE),
    "cloudflare-kv": _opener("document.cloudflare_kv:CloudflareKvStore"),
    "keyvalue": _opener("document.keyvalue:KeyValueStore.from_url"),
    "dynamodb": _opener("conditional.dynamodb:DynamoDbStore"),
    "memcached": _opener("conditional.memcached:MemcachedStore"),
    "s3": _opener("conditional.s3:S3Store"),
    "azure-tables": _opener("conditional.azure_tables:AzureTablesStore"),
    "mongodb": _opener("conditional.mongodb:MongoDbStore"),
}
