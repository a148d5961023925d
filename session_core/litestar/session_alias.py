"""What a handler's parameters are annotated with."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from session_core.sessions.handle import SessionHandle
from session_core.sessions.manager import SessionManager

__all__ = ("Session", "Sessions")

D = TypeVar("D", bound=msgspec.Struct)

Session: TypeAlias = SkipValidation[NamedDependency[SessionHandle[D]]]
"""What a handler asks for: `async def handler(session: Session[AppSession])`. The parameter must be named `session`."""

Sessions: TypeAlias = NamedDependency[SessionManager]
"""What a handler asks for: `async def handler(sessions: Sessions)`. The parameter must be named `sessions`."""
