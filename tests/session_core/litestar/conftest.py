"""Runs every test of this folder with the bypasses of Litestar's internals and without them."""

from __future__ import annotations

import pytest

from session_core.litestar import internals


@pytest.fixture(params=[True, False], ids=["bypassed", "by Litestar"], autouse=True)
def bypasses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(internals, "enabled", request.param)
    return bool(request.param)
