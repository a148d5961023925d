"""What tests need that start programs of this tree: free ports, and an environment without anybody's settings."""

from __future__ import annotations

import os
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUR_SETTINGS = ("SESSION_", "OIDC_", "APP_", "DATABASE_", "TRUSTED_", "PUBLIC_", "LITESTAR_")


def free_ports(count: int = 2) -> tuple[int, ...]:
    """Ports that nothing listens on now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = tuple(int(probe.getsockname()[1]) for probe in probes)
    for probe in probes:
        probe.close()
    return ports


def clean_environment() -> dict[str, str]:
    """The environment without our settings; imports come from this tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OUR_SETTINGS)}
    return {**kept, "PYTHONPATH": str(ROOT)}
