"""The environment for tests that start processes of this tree."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUR_SETTINGS = ("SESSION_", "OIDC_", "APP_", "DATABASE_", "TRUSTED_", "PUBLIC_", "LIMIT_", "LITESTAR_")


def clean_environment() -> dict[str, str]:
    """The environment without settings of this project; imports come from this tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OUR_SETTINGS)}
    return {**kept, "PYTHONPATH": str(ROOT)}
