"""The compared stacks as data, one line each.

Each serves the same routes:

- `GET /read` and `GET /visits` read one value of the session.
- `POST /increment` adds one to `visits`.
- `POST /login?user=N` does the work of a login callback after the provider's response.
- `GET /public` uses no session.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias

__all__ = (
    "BARE",
    "DJANGO",
    "EXPRESS",
    "EXPRESS_POSTGRESQL",
    "LITESTAR",
    "NEAR_CACHE",
    "OURS_POSTGRESQL",
    "OURS_REDIS",
    "OURS_SQLITE",
    "STACKS",
    "STARSESSIONS",
    "Stack",
    "missing_package",
)

Engine: TypeAlias = Literal["none", "memory", "sqlite", "postgresql", "redis"]


@dataclass(frozen=True)
class Stack:
    """One server program with one session store."""

    name: str
    label: str
    program: str
    """`module:factory` for Granian, or a JavaScript file for Node."""
    engine: Engine
    package: str = ""
    """The modules that it imports."""
    interface: Literal["asgi", "wsgi"] = "asgi"
    store_options: str = ""
    """The query of the store's URL."""
    ours: bool = False
    login: str = "new id"
    """The effect of its login on the session id."""

    @property
    def sessions(self) -> bool:
        """Whether it has sessions."""
        return self.engine != "none"

    @property
    def shared(self) -> bool:
        """Whether two processes can serve the same sessions."""
        return self.engine not in {"none", "memory"}


def _ours(name: str, label: str, engine: Engine, store_options: str = "") -> Stack:
    return Stack(name, label, "benchmarks.stacks.ours:create", engine, store_options=store_options, ours=True)


BARE: Final = Stack("bare", "Litestar without sessions", "benchmarks.stacks.bare:create", "none")
LITESTAR: Final = Stack(
    "litestar", "Litestar's own sessions, Redis", "benchmarks.stacks.litestar_sessions:create", "redis", login="same id"
)
STARSESSIONS: Final = Stack(
    "starsessions", "starsessions on Starlette, Redis", "benchmarks.stacks.starsessions_redis:create", "redis", "starsessions"
)
DJANGO: Final = Stack(
    "django", "Django cached_db, SQLite + Redis", "benchmarks.stacks.django_cached_db:create", "redis", "django", "wsgi"
)
EXPRESS: Final = Stack("express", "express-session, Redis (Node)", "server.js", "redis")
EXPRESS_POSTGRESQL: Final = Stack("express-postgresql", "express-session, PostgreSQL (Node)", "server.js", "postgresql")
OURS_SQLITE: Final = _ours("sqlite", "session_core, SQLite", "sqlite")
OURS_POSTGRESQL: Final = _ours("postgresql", "session_core, PostgreSQL", "postgresql")
OURS_REDIS: Final = _ours("redis", "session_core, Redis", "redis")
NEAR_CACHE: Final = "redis-near-cache"
"""The name of the stack whose reads need no round trip."""

STACKS: Final = (
    BARE,
    LITESTAR,
    STARSESSIONS,
    DJANGO,
    EXPRESS,
    EXPRESS_POSTGRESQL,
    _ours("memory", "session_core, memory", "memory"),
    OURS_SQLITE,
    OURS_POSTGRESQL,
    OURS_REDIS,
)


def missing_package(stack: Stack) -> str | None:
    """The missing package that prevents a stack from running, or None."""
    return stack.package if stack.package and find_spec(stack.package) is None else None
