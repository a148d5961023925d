"""Parses the URL of a MySQL or MariaDB, in the dialects of several hosters.

    mysql://user:password@host:3306/database?ssl-mode=VERIFY_IDENTITY

`mariadb://` and `mysql+asyncmy://` are the same. TLS is asked for by the option of the MySQL client (`ssl-mode`), of Prisma and
PlanetScale (`sslaccept`), of Node (`ssl={"rejectUnauthorized":true}`) or of Python's drivers (`ssl_ca`, `ssl_verify_identity`).
`pool_size` is the store's own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from session_core.errors import ConfigurationError
from session_core.stores.sql.urls.parts import Options, malformed, split_url
from session_core.stores.sql.urls.tls import ENCRYPTED, VERIFIED_CA, VERIFIED_HOST, client_context

if TYPE_CHECKING:
    import ssl

__all__ = ("MysqlAddress", "parse_mysql_url")

_EXAMPLE: Final = "mysql://user:password@host/database?ssl-mode=VERIFY_IDENTITY"
_DATABASE: Final = "MySQL"
_PORT: Final = 3306
_NEVER: Final = 1e9
_MODES: Final = {"DISABLED": None, "REQUIRED": ENCRYPTED, "VERIFY_CA": VERIFIED_CA, "VERIFY_IDENTITY": VERIFIED_HOST}
_ACCEPT: Final = {"strict": VERIFIED_HOST, "accept_invalid_certs": ENCRYPTED}
_ADVICE: Final = {
    "connection_limit": "is Prisma's; pool_size bounds the connections of a process",
    "read_timeout": "is not needed: SessionConfig.store_timeout bounds every statement",
}


class MysqlAddress(msgspec.Struct, frozen=True):
    """The address and connection options of a MySQL or MariaDB."""

    arguments: dict[str, Any]
    """The arguments of the driver's `connect`."""
    timeout: float
    """Seconds for connecting, unless the store's timeout is shorter."""
    pool_size: int | None

    def __repr__(self) -> str:
        """Hide the password."""
        return "MysqlAddress()"


def parse_mysql_url(text: str) -> MysqlAddress:
    """Read a URL. Raises `ConfigurationError` for one that is malformed, or that asks for what the driver cannot do."""
    url = split_url(text, example=_EXAMPLE)
    if url.driver not in {"", "asyncmy"}:
        msg = f"the session store does not use {url.driver}; write mysql://, or mysql+asyncmy://"
        raise ConfigurationError(msg)
    if len(url.hosts) > 1:
        msg = "the driver of MySQL accepts only one host; give the address of a proxy or of the primary"
        raise ConfigurationError(msg)
    if not url.database:
        raise malformed(_EXAMPLE)
    options = Options(url.options, _DATABASE)
    host, port = url.hosts[0] if url.hosts else ("localhost", None)
    place: dict[str, Any] = {"host": host, "port": port or _PORT}
    if (path := options.take("unix_socket") or options.take("socket")) is not None:
        place = {"unix_socket": path}
    options.take("socket")
    options.take_one_of("charset", "utf8mb4", "utf8", "ascii")  # what is sent is ASCII
    arguments = {
        **place,
        "user": url.user,
        "password": (url.password or "").encode(),  # as text the driver takes Latin-1 alone
        "database": url.database,
        "ssl": _tls(options),
    }
    timeout = options.take_number("connect_timeout", least=1)
    address = MysqlAddress(arguments, timeout or _NEVER, options.take_number("pool_size", least=1))
    options.end(_ADVICE)
    return address


def _tls(options: Options) -> ssl.SSLContext | None:
    authorities = options.take("ssl_ca") or options.take("ssl-ca") or options.take("sslcert")
    certificate = options.take("ssl_cert") or options.take("ssl-cert")
    key = options.take("ssl_key") or options.take("ssl-key")
    levels = [*_levels(options)]
    # The strictest of the given options; authorities alone mean that certificates are verified.
    level = max(levels) if levels else (VERIFIED_HOST if authorities or certificate or key else None)
    if level is None:
        return None
    return client_context(level, authorities=authorities, certificate=certificate, key=key)


def _levels(options: Options) -> list[int]:
    found: list[int | None] = []
    for name in ("ssl-mode", "ssl_mode", "sslmode"):
        value = options.take(name)
        if value is not None:
            if value.upper() not in _MODES:
                options.refuse(name, f"must be one of {', '.join(_MODES)}: there is no falling back to an open connection")
            found.append(_MODES[value.upper()])
    accepted = options.take_one_of("sslaccept", *_ACCEPT)
    found.append(_ACCEPT[accepted] if accepted is not None else None)
    found.append(_node_or_flag(options))
    if options.take_flag("ssl_verify_cert"):
        found.append(VERIFIED_CA)
    if options.take_flag("ssl_verify_identity"):
        found.append(VERIFIED_HOST)
    return [level for level in found if level is not None]


def _node_or_flag(options: Options) -> int | None:
    """`ssl=true`, or the object that Node's drivers take."""
    text = options.take("ssl")
    if text is None or text.lower() in {"false", "0"}:
        return None
    if text.lower() in {"true", "1"}:
        return VERIFIED_HOST
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict) or set(given) - {"rejectUnauthorized"}:
        options.refuse("ssl", 'must be true, false or {"rejectUnauthorized":true}')
    return ENCRYPTED if given.get("rejectUnauthorized") is False else VERIFIED_HOST
