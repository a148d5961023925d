"""Shared by tests of several processes: real stores, and processes that use one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.session_core.oidc.token_nodes import Nodes, nodes_on
from tests.session_core.stores import conftest as engines

postgres, postgres_url, database = engines.postgres, engines.postgres_url, engines.database
_valkey, valkey = engines._valkey, engines.valkey


@pytest.fixture(params=["sqlite", "postgres", "valkey"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    if request.param == "postgres":
        return str(request.getfixturevalue("database"))
    return str(request.getfixturevalue("valkey").url)


@pytest.fixture
async def nodes(store: str) -> AsyncIterator[Nodes]:
    async with nodes_on(store) as made:
        yield made
