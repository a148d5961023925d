"""What a Redis URL means: which servers, as whom, how secured; connects to none.

    redis://[[user]:password@]host[:port][/db]              one server
    redis+sentinel://host[:port],host[:port]/service[/db]   the primary of a service that Sentinels watch
    redis+cluster://host[:port],host[:port]                 a cluster; any of its nodes will do
    redis+unix://[[user]:password@]/path[?db=number]        one server, by its Unix socket; also unix://

`rediss` instead of `redis` means TLS; `valkey` and `valkeys` mean the same as `redis` and `rediss`. Options, after `?`: `prefix`
(of all keys, `sc:`), `timeout` (seconds, 2), `db` (with a Unix socket alone), `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`
(paths), `ssl_cert_reqs` (`required`; `none` is for tests), `ssl_check_hostname` (`true`), `sentinel_user` and
`sentinel_password`. Users, passwords and paths are percent-encoded, as in every URL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote

import msgspec
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from session_core.errors import ConfigurationError

__all__ = ("Address", "RedisTarget", "parse_redis_url")

Address = tuple[str, int]

_EXAMPLES: Final = {
    "": "redis://user:password@localhost:6379/0",
    "sentinel": "redis+sentinel://user:password@host1:26379,host2:26379/mymaster/0",
    "cluster": "redis+cluster://user:password@host1:6379,host2:6379",
    "unix": "redis+unix:///run/redis/redis-server.sock?db=0",
}
_PORTS: Final = {"": 6379, "sentinel": 26379, "cluster": 6379}
_PATHS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS: Final = {
    *_PATHS,
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "prefix",
    "timeout",
    "db",
    "sentinel_user",
    "sentinel_password",
}
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z", re.ASCII)
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?\Z", re.ASCII)
_URL: Final = re.compile(
    r"(?:(?P<unix>unix)|(?:redis|valkey)(?P<tls>s?)(?:\+(?P<kind>sentinel|cluster|unix))?)"
    r"://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?\Z"
)
_MAX_PORT: Final = 65535


class RedisTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where the sessions are."""

    kind: str
    """Empty for one server, else `sentinel`, `cluster` or `unix`, whose one address is the path of the socket."""
    addresses: tuple[Address, ...]
    service: str = ""
    db: int = 0
    tls: bool = False
    prefix: str
    timeout: float
    credentials: dict[str, str]
    sentinel_credentials: dict[str, str]
    tls_options: dict[str, Any]

    def __repr__(self) -> str:
        """Hide the passwords."""
        return f"RedisTarget(kind={self.kind!r}, addresses={self.addresses!r}, db={self.db})"

    def connection(self, address: Address) -> AbstractConnection:
        """Return a redis-py connection to a server, not yet connected."""
        return self._connection(address, {"db": self.db, **self.credentials})

    def sentinel_connection(self, address: Address) -> AbstractConnection:
        """Return a redis-py connection to a Sentinel, not yet connected."""
        return self._connection(address, self.sentinel_credentials)

    def _connection(self, address: Address, more: Mapping[str, Any]) -> AbstractConnection:
        host, port = address
        # RESP2: a push out of turn would shift all replies after it.
        options: dict[str, Any] = {"protocol": 2, "socket_timeout": self.timeout, **more}
        if self.kind == "unix":
            return UnixDomainSocketConnection(path=host, **options)
        options |= {"host": host, "port": port}
        return SSLConnection(**options, **self.tls_options) if self.tls else Connection(**options)


def parse_redis_url(url: str, *, timeout: float, prefix: str) -> RedisTarget:
    """Return what the URL means; its options win over `timeout` and `prefix`.

    Raises `ConfigurationError` with a good example, never with what was found where a password may be.
    """
    match = _URL.match(url)
    if match is None:
        _refuse("", "it has another form")
    kind = match["unix"] or match["kind"] or ""
    options = _options(kind, match["query"] or "")
    tls = bool(match["tls"])
    if kind == "unix":
        service, db, addresses = "", _database(kind, options.pop("db", "0")), _socket(match["hosts"], match["path"], tls=tls)
    else:
        (service, db), addresses = _path(kind, match["path"]), _addresses(kind, match["hosts"])
    user, colon, password = (match["user"] or "").partition(":")
    if user and not colon:
        _refuse(kind, "a user needs a password after a colon; a password alone is written :password@")
    prefix = options.get("prefix", prefix)
    if not _PREFIX.match(prefix):
        _refuse(kind, "the prefix may hold letters, digits and . : _ - only, for example ?prefix=shop:")
    target = RedisTarget(
        kind=kind,
        addresses=addresses,
        service=service,
        db=db,
        tls=tls,
        prefix=prefix,
        timeout=_seconds(kind, options.get("timeout", str(timeout))),
        credentials=_credentials(unquote(user), unquote(password)),
        sentinel_credentials=_credentials(options.get("sentinel_user", ""), options.get("sentinel_password", "")),
        tls_options=_tls_options(kind, options, tls=tls),
    )
    try:
        connection = target.connection(target.addresses[0])
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
    except (RedisError, OSError, ValueError):
        _refuse(kind, "the files named by ssl_ca_certs, ssl_certfile and ssl_keyfile cannot be used")
    return target


def _refuse(kind: str, problem: str) -> NoReturn:
    msg = f"the URL of the Redis session store is malformed: {problem}; a good example: {_EXAMPLES[kind]}"
    raise ConfigurationError(msg) from None


def _options(kind: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        _refuse(kind, f"there is no option {unknown[0]!r}; the options are {', '.join(sorted(_OPTIONS))}")
    if kind != "sentinel" and not options.keys().isdisjoint({"sentinel_user", "sentinel_password"}):
        _refuse(kind, "only redis+sentinel:// has sentinel_user and sentinel_password")
    if kind != "unix" and "db" in options:
        _refuse(kind, "the database is the path, not an option")
    return options


def _socket(hosts: str, path: str, *, tls: bool) -> tuple[Address, ...]:
    if hosts or not path.strip("/"):
        _refuse("unix", "a Unix socket needs an absolute path, and no host")
    if tls:
        _refuse("unix", "a Unix socket has no TLS")
    return ((unquote(path), 0),)


def _addresses(kind: str, hosts: str) -> tuple[Address, ...]:
    addresses: list[Address] = []
    for host in hosts.split(",") if hosts else ["localhost"]:
        match = _HOST.match(host)
        port = int(match["port"] or _PORTS[kind]) if match else 0
        if match is None or not 0 < port <= _MAX_PORT:
            _refuse(kind, "each host is a name or an address, with a port after a colon where it is not the usual one")
        addresses.append((match["ipv6"] or match["name"], port))
    if not kind and len(addresses) > 1:
        _refuse("cluster", "several hosts are for redis+cluster:// and redis+sentinel://")
    return tuple(addresses)


def _path(kind: str, path: str) -> tuple[str, int]:
    parts = [unquote(part) for part in path.strip("/").split("/")] if path.strip("/") else []
    service = parts.pop(0) if kind == "sentinel" and parts else ""
    if kind == "sentinel" and not service:
        _refuse(kind, "the path must name the service that the Sentinels watch")
    if kind == "cluster" and parts not in ([], ["0"]):
        _refuse(kind, "a cluster has one database")
    if len(parts) > 1:
        _refuse(kind, "the path has too many parts")
    return service, _database(kind, parts[0] if parts else "0")


def _database(kind: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        _refuse(kind, "the database is a number")
    return int(text)


def _credentials(user: str, password: str) -> dict[str, str]:
    return {name: value for name, value in (("username", user), ("password", password)) if value}


def _seconds(kind: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        _refuse(kind, "timeout is a positive number of seconds, for example ?timeout=2")
    return seconds


def _tls_options(kind: str, options: dict[str, str], *, tls: bool) -> dict[str, Any]:
    chosen: dict[str, Any] = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if chosen and not tls:
        _refuse(kind, "the ssl_ options are for rediss://")
    if chosen.get("ssl_cert_reqs", "required") not in {"required", "none"}:
        _refuse(kind, "ssl_cert_reqs is required or none")
    if chosen.get("ssl_check_hostname", "true") not in {"true", "false"}:
        _refuse(kind, "ssl_check_hostname is true or false")
    if "ssl_check_hostname" in chosen:
        chosen["ssl_check_hostname"] = chosen["ssl_check_hostname"] == "true"
    return chosen
