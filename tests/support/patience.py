"""Makes stores, HTTP clients and Hypothesis wait longer by default than elsewhere: a busy machine is no outage.

A test of a timeout sets its own.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from inspect import signature
from typing import Any, Final

import httpx
from hypothesis import HealthCheck, settings

from session_core import SessionConfig

_SECONDS: Final = 60.0
_STORES: Final = {
    "document.cloudflare_kv": "CloudflareKvStore",
    "document.unstorage": "UnstorageStore",
    "redis.store": "RedisStore",
    "sql.store": "SqlStore",
    "sqlite.store": "SqliteStore",
}


def _patient_configuration() -> None:
    make: Any = SessionConfig.__init__
    defaults: tuple[Any, ...] = make.__defaults__
    names = make.__code__.co_varnames[: make.__code__.co_argcount][-len(defaults) :]
    assert "store_timeout" in names
    make.__defaults__ = tuple(_SECONDS if name == "store_timeout" else value for name, value in zip(names, defaults, strict=True))


def _patient_stores() -> None:
    for module, name in _STORES.items():
        with suppress(ImportError):  # its driver is not installed
            make = getattr(import_module(f"session_core.stores.{module}"), name).__init__
            assert "timeout" in make.__kwdefaults__
            make.__kwdefaults__["timeout"] = _SECONDS


def _patient_clients() -> None:
    timeout = signature(httpx.Client).parameters["timeout"].default
    timeout.connect = timeout.read = timeout.write = timeout.pool = _SECONDS


settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None, print_blob=True
)
settings.load_profile("tests")
_patient_configuration()
_patient_stores()
_patient_clients()
