"""The capabilities of the backends of py-key-value, and the URLs of some.

    keyvalue+memory://                       keyvalue+redis://..., keyvalue+rediss://...
    keyvalue+disk:///directory               keyvalue+mongodb://..., keyvalue+mongodb+srv://...?db=name
    keyvalue+filetree:///directory           keyvalue+memcached://host:11211
    keyvalue+rocksdb:///directory            keyvalue+dynamodb://table?region=...&endpoint_url=...
                                             keyvalue+s3://bucket?region=...&endpoint_url=...

Credentials of AWS come from where its own library finds them. Any other backend is given to `KeyValueStore` as an object.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import msgspec

from session_core.errors import ConfigurationError

if TYPE_CHECKING:
    from key_value.aio.protocols.key_value import AsyncKeyValue

__all__ = ("BACKENDS", "UNKNOWN", "Backend", "backend_of_url")


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """The capabilities of a backend; see `StoreCapabilities`."""

    shared: bool
    durable: bool
    native_expiry: bool
    consistent: bool = True


UNKNOWN: Final = Backend(shared=False, durable=False, native_expiry=False, consistent=False)
BACKENDS: Final = {
    "MemoryStore": Backend(shared=False, durable=False, native_expiry=True),
    "DiskStore": Backend(shared=True, durable=True, native_expiry=True),
    "FileTreeStore": Backend(shared=True, durable=True, native_expiry=True),
    "RedisStore": Backend(shared=True, durable=True, native_expiry=True),
    "ValkeyStore": Backend(shared=True, durable=True, native_expiry=True),
    "MongoDBStore": Backend(shared=True, durable=True, native_expiry=True),
    # The library reads without ConsistentRead.
    "DynamoDBStore": Backend(shared=True, durable=True, native_expiry=True, consistent=False),
    "MemcachedStore": Backend(shared=True, durable=False, native_expiry=True),
    "S3Store": Backend(shared=True, durable=True, native_expiry=False),
    "AzureTablesStore": Backend(shared=True, durable=True, native_expiry=False),
    "FirestoreStore": Backend(shared=True, durable=True, native_expiry=False),
    "VaultStore": Backend(shared=True, durable=True, native_expiry=False),
    "RocksDBStore": Backend(shared=False, durable=True, native_expiry=False),
}
"""By class name, so that no backend is imported to look it up."""

_WHAT: Final = "the key-value session store"
_SCHEMES: Final = {
    "memory": ("memory", "MemoryStore"),
    "disk": ("disk", "DiskStore"),
    "filetree": ("filetree", "FileTreeStore"),
    "rocksdb": ("rocksdb", "RocksDBStore"),
    "redis": ("redis", "RedisStore"),
    "rediss": ("redis", "RedisStore"),
    "mongodb": ("mongodb", "MongoDBStore"),
    "mongodb+srv": ("mongodb", "MongoDBStore"),
    "memcached": ("memcached", "MemcachedStore"),
    "dynamodb": ("dynamodb", "DynamoDBStore"),
    "s3": ("s3", "S3Store"),
}
_DIRECTORIES: Final = {"disk": "directory", "filetree": "data_directory", "rocksdb": "path"}
_AWS: Final = {"dynamodb": "table_name", "s3": "bucket_name"}
_AWS_OPTIONS: Final = {"region": "region_name", "endpoint_url": "endpoint_url"}
_MEMCACHED_PORT: Final = 11211


def backend_of_url(url: str) -> tuple[Callable[[], AsyncKeyValue], Backend]:
    """Return what makes the backend that a URL names, and what is known of it.

    Raises `ConfigurationError` for a URL it cannot use and `ImportError` when the backend's package is not installed.
    """
    inner = url.removeprefix("keyvalue+")
    scheme = inner.partition("://")[0]
    if inner == url or scheme not in _SCHEMES:
        names = ", ".join(f"keyvalue+{name}" for name in _SCHEMES)
        _refuse(f"its scheme is none of {names}; any other backend is given to KeyValueStore as an object")
    module, name = _SCHEMES[scheme]
    arguments = _arguments(scheme, inner)
    try:
        kind: Any = getattr(import_module(f"key_value.aio.stores.{module}"), name)
    except ImportError as error:
        missing = f"py-key-value-aio[{module}]"
        raise ImportError(str(error), name=missing) from error
    return lambda: kind(**arguments), BACKENDS[name]


def _arguments(scheme: str, inner: str) -> dict[str, Any]:
    if scheme in {"redis", "rediss"}:
        return {"url": inner}
    if scheme.startswith("mongodb"):
        return _mongodb(inner)
    parts = urlsplit(inner)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := options.keys() - _options(scheme):
        _refuse(f"there is no option {min(unknown)!r}")
    if parts.fragment or parts.username is not None:
        _refuse("it has no place for a user or a fragment")
    if scheme in _DIRECTORIES:
        return {_DIRECTORIES[scheme]: _directory(scheme, parts.netloc, parts.path)}
    if scheme == "memory":
        if parts.netloc or parts.path.strip("/"):
            _refuse("keyvalue+memory:// is the whole of it")
        return {}
    if not parts.netloc or parts.path.strip("/"):
        _refuse(f"it names one host, table or bucket, for example keyvalue+{scheme}://name")
    if scheme == "memcached":
        return {"host": parts.hostname, "port": _port(inner)}
    return {_AWS[scheme]: parts.netloc, **{_AWS_OPTIONS[name]: value for name, value in options.items()}}


def _directory(scheme: str, host: str, path: str) -> str:
    if host or not path.strip("/"):
        _refuse(f"a directory is an absolute path, for example keyvalue+{scheme}:///var/lib/app/sessions")
    return unquote(path)


def _options(scheme: str) -> set[str]:
    return set(_AWS_OPTIONS) if scheme in _AWS else set()


def _mongodb(inner: str) -> dict[str, Any]:
    head, _, query = inner.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    names = [value for name, value in options if name == "db"]
    rest = urlencode([pair for pair in options if pair[0] != "db"])
    return {"url": f"{head}?{rest}" if rest else head, **({"db_name": names[0]} if names else {})}


def _port(inner: str) -> int:
    try:
        return urlsplit(inner).port or _MEMCACHED_PORT
    except ValueError:
        _refuse("the port is a number up to 65535")


def _refuse(problem: str) -> NoReturn:
    msg = f"the URL of {_WHAT} is malformed: {problem}"
    raise ConfigurationError(msg) from None
