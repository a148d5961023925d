"""Runs every test of this folder with the bypasses of Litestar's internals and without them.

Without them only in the long run, except for `test_session_http.py`.
"""

from __future__ import annotations

import pytest

from session_core.litestar import internals


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.long)], ids=["bypassed", "by Litestar"], autouse=True)
def bypasses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(internals, "enabled", request.param)
    return bool(request.param)
