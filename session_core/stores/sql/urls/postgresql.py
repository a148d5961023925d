"""Parses the URL of a PostgreSQL: options of libpq are translated for asyncpg, or refused by name.

    postgresql://user:password@host:5432/database?sslmode=verify-full&sslrootcert=system

`postgres://` and `postgresql+asyncpg://` are the same. Beside libpq's there are two options of the store's own: `pool_size`, and
`prepared_statements` (`auto`, `on` or `off`; `pgbouncer=true` means `off`).
"""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import msgspec

from session_core.errors import ConfigurationError
from session_core.stores.sql.urls.parts import MAX_PORT, Options, UrlParts, split_hosts, split_url
from session_core.stores.sql.urls.tls import ENCRYPTED, VERIFIED_CA, VERIFIED_HOST, client_context

__all__ = ("PostgresqlAddress", "parse_postgresql_url")

_EXAMPLE: Final = "postgresql://user:password@host/database?sslmode=require"
_DATABASE: Final = "PostgreSQL"
_NEVER: Final = 1e9
_TARGETS: Final = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_MODES: Final = {"require": ENCRYPTED, "verify-ca": VERIFIED_CA, "verify-full": VERIFIED_HOST}
_SERVER_SETTINGS: Final = ("application_name", "options")
_PASSED_ON: Final = ("passfile", "service", "krbsrvname", "gsslib")
_TLS_VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
_TCP: Final = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}
"""By the names of the socket options, which not every system has."""
_AS_IT_IS: Final = {
    "gssencmode": (("disable", "prefer"), "; the driver encrypts by TLS alone"),
    "client_encoding": (("utf8", "UTF8", "utf-8", "UTF-8", "auto"), ""),
    "load_balance_hosts": (("disable",), "; the hosts are tried in order"),
    "sslcompression": (("0",), ""),
    "sslsni": (("1",), ""),
    "sslcertmode": (("allow",), ""),
    "gssdelegation": (("0",), ""),
    "min_protocol_version": (("3.0",), ""),
    "max_protocol_version": (("3.0", "3.2", "latest"), ""),
}
"""Options of libpq that change nothing here, with the values that ask for no more than that."""
_ADVICE: Final = {
    "connection_limit": "is Prisma's; pool_size bounds the connections of a process",
    "command_timeout": "is not needed: SessionConfig.store_timeout bounds every statement",
    "timeout": "is not needed: SessionConfig.store_timeout bounds every statement",
    "schema": "is Prisma's; options=-c%20search_path%3Dname is PostgreSQL's own",
    "hostaddr": "is not supported by the driver; give the address as the host",
    "require_auth": "is not supported by the driver",
}


class PostgresqlAddress(msgspec.Struct, frozen=True):
    """The address and connection options of a PostgreSQL."""

    arguments: dict[str, Any]
    """The arguments of the driver's `connect`."""
    timeout: float
    """Seconds for connecting, unless the store's timeout is shorter."""
    socket_options: dict[int, int]
    named_statements: bool | None
    """Whether the server is to keep prepared statements; None: where no pooler is between."""
    pool_size: int | None

    def __repr__(self) -> str:
        """Hide the password."""
        return "PostgresqlAddress()"


def parse_postgresql_url(text: str) -> PostgresqlAddress:
    """Read a URL. Raises `ConfigurationError` for one that is malformed, or that asks for what the driver cannot do."""
    url = split_url(text, example=_EXAMPLE)
    if url.driver not in {"", "asyncpg"}:
        msg = f"the session store does not use {url.driver}; write postgresql://, or postgresql+asyncpg://"
        raise ConfigurationError(msg)
    options = Options(url.options, _DATABASE, repeatable="host")
    arguments: dict[str, Any] = {name: value for name in _PASSED_ON if (value := options.take(name)) is not None}
    arguments |= _place(url, options) | _tls(options)
    # A former primary may return as a standby: it would answer reads without the newest logouts.
    arguments["target_session_attrs"] = options.take_one_of("target_session_attrs", *_TARGETS) or "primary"
    arguments["server_settings"] = _settings(options)
    for name, (values, why) in _AS_IT_IS.items():
        options.take_one_of(name, *values, why=why)
    address = PostgresqlAddress(
        arguments,
        timeout=options.take_number("connect_timeout", least=-1) or 0,
        socket_options=_socket_options(options),
        named_statements=_named_statements(options),
        pool_size=options.take_number("pool_size", least=1),
    )
    options.end(_ADVICE)
    return address if address.timeout > 0 else msgspec.structs.replace(address, timeout=_NEVER)


def _place(url: UrlParts, options: Options) -> dict[str, Any]:
    hosts = list(url.hosts)
    twice = {"host": hosts, "user": url.user, "password": url.password, "dbname": url.database}
    for name, place in twice.items():
        if place and options.has(name):
            options.refuse(name, "is given before the question mark as well")
    for value in options.take_all("host"):
        hosts += split_hosts(value, _EXAMPLE)
    ports = (options.take("port") or "").split(",")
    if not all(port == "" or (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= MAX_PORT) for port in ports):
        options.refuse("port", "must be a number from 1 to 65535")
    if len(ports) == 1:
        ports *= max(len(hosts), 1)
    if hosts and len(ports) != len(hosts):
        options.refuse("port", "must be one port, or one for each host")
    default = None if hosts else (int(ports[0]) if ports[0] else None)
    return {
        "host": [name for name, _ in hosts] or None,
        "port": [port or int(given or 5432) for (_, port), given in zip(hosts, ports, strict=False)] or default,
        "user": url.user or options.take("user"),
        "password": url.password or options.take("password"),
        "database": url.database or options.take("dbname"),
    }


def _tls(options: Options) -> dict[str, Any]:
    """As libpq reads it: `require` verifies where there are authorities to verify with."""
    names = ("sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl")
    roots, certificate, key, password, revoked = (options.take(name) for name in names)
    least = options.take_one_of("ssl_min_protocol_version", *_TLS_VERSIONS)
    most = options.take_one_of("ssl_max_protocol_version", *_TLS_VERSIONS)
    direct = options.take_one_of("sslnegotiation", "postgres", "direct") == "direct"
    mode, roots = _with_channel_binding(options, _mode(options), roots)
    if roots == "system":
        if mode not in {None, "verify-full"}:
            options.refuse("sslrootcert", "may be system with sslmode=verify-full alone")
        mode = "verify-full"
    if mode not in _MODES:
        if any((roots, certificate, key, password, revoked, least, most, direct)):
            options.refuse("sslmode", "must be require, verify-ca or verify-full where other options of TLS are given")
        return {"ssl": mode} if mode else {}
    level = _MODES[mode]
    home = _own_authorities()
    if level == ENCRYPTED and roots:
        level = VERIFIED_CA
    if level > ENCRYPTED and not roots:
        if not home.exists():
            options.refuse("sslmode", f"needs sslrootcert: the path of a file, or system for the system's authorities ({mode})")
        roots = str(home)
    context = client_context(
        level,
        authorities=None if roots == "system" else roots,
        certificate=certificate,
        key=key,
        password=password,
        revoked=revoked,
    )
    context.set_alpn_protocols(["postgresql"])  # needed for sslnegotiation=direct
    if least is not None:
        context.minimum_version = ssl.TLSVersion[least.replace(".", "_")]
    if most is not None:
        context.maximum_version = ssl.TLSVersion[most.replace(".", "_")]
    return {"ssl": context, "direct_tls": True} if direct else {"ssl": context}


def _mode(options: Options) -> str | None:
    """Return `sslmode`, which the driver and SQLAlchemy call `ssl`."""
    mode = options.take_one_of("sslmode", "disable", "allow", "prefer", *_MODES)
    same = options.take_one_of("ssl", "disable", "allow", "prefer", *_MODES, "true", "false")
    same = {"true": "verify-full", "false": "disable"}.get(same or "", same)
    if mode and same and (mode in _MODES) is not (same in _MODES):
        options.refuse("ssl", "contradicts sslmode; leave it out")
    return mode or same


def _with_channel_binding(options: Options, mode: str | None, roots: str | None) -> tuple[str | None, str | None]:
    """Return `sslmode` and `sslrootcert` that do what `channel_binding=require` is for, since the driver has none.

    It is to show that no other server is in between; so does the server's certificate.
    """
    if options.take_one_of("channel_binding", "disable", "prefer", "require") != "require":
        return mode, roots
    if mode not in {None, *_MODES}:
        options.refuse("channel_binding", "needs TLS: leave it out, or say sslmode=verify-full")
    return "verify-full", roots or (None if _own_authorities().exists() else "system")


def _own_authorities() -> Path:
    return Path.home() / ".postgresql" / "root.crt"


def _settings(options: Options) -> dict[str, str]:
    """The settings sent at the start of a connection. A pooler knows `application_name` alone, and refuses others."""
    fallback = options.take("fallback_application_name")
    settings = {name: value for name in _SERVER_SETTINGS if (value := options.take(name)) is not None}
    return {"application_name": fallback, **settings} if fallback else settings


def _socket_options(options: Options) -> dict[int, int]:
    found: dict[int, int] = {}
    for name, constant in _TCP.items():
        if value := options.take_number(name):
            if not hasattr(socket, constant):
                options.refuse(name, "is not known to this operating system")
            found[getattr(socket, constant)] = value
    if options.take_flag("keepalives") is False:
        found[socket.SO_KEEPALIVE] = 0
    return found


def _named_statements(options: Options) -> bool | None:
    own = options.take_one_of("prepared_statements", "auto", "on", "off")
    sizes = [options.take_number(name) for name in ("prepared_statement_cache_size", "statement_cache_size")]
    if options.take_flag("pgbouncer") or 0 in sizes or own == "off":
        return False
    return True if own == "on" else None
