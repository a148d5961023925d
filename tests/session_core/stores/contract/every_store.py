"""Every store of the library on a real engine in turn, for guarantees that hold on each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from session_core.clock import Clock
from session_core.stores.base import SessionStore
from session_core.stores.opening import open_store

__all__ = ("CONDITIONAL", "STORES", "MakeStore", "make_store")

STORES = ("memory", "sqlite", "postgres", "mariadb", "valkey", "valkey_cluster")
CONDITIONAL = ("memcached", "dynamodb")
"""For `parametrize("make_store", ..., indirect=True)`, in modules that import the fixtures `memcached` and `moto`."""

MakeStore = Callable[[Clock], SessionStore]
"""Makes one more store on the same engine, not yet opened; the engine was empty when the test began."""


@pytest.fixture(params=STORES)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """A function that opens several stores on one engine."""
    kind: str = request.param
    shared: list[SessionStore] = []

    def make(clock: Clock) -> SessionStore:
        if kind == "memory":
            # Its nodes share one store with different clocks.
            store = open_store("memory://", clock=clock)
            if shared:
                store.__dict__.update({name: value for name, value in shared[0].__dict__.items() if name != "_clock"})
            shared.append(store)
            return store
        return open_store(url, clock=clock)

    url = "" if kind == "memory" else _url(request, kind, tmp_path)  # empties the engine
    return make


def _url(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/sessions.db"
    if kind == "memcached":
        engine = request.getfixturevalue("memcached")
        return f"memcached://{engine.address}?prefix={engine.name()}:"
    if kind == "dynamodb":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            request.getfixturevalue("monkeypatch").setenv(name, "testing")
        engine = request.getfixturevalue("moto")
        return f"dynamodb://sessions?prefix={engine.name()}:&region=eu-central-1&endpoint={engine.address}"
    if kind in {"postgres", "mariadb"}:
        return str(request.getfixturevalue({"postgres": "database", "mariadb": "mariadb_url"}[kind]))
    return str(request.getfixturevalue(kind).url)
