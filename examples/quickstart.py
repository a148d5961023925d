"""A typed session in ten lines: `uv run granian --interface asgi examples.quickstart:app`, then POST to /visit."""

import msgspec
from litestar import Litestar, post

from session_core import Session, SessionConfig, SessionPlugin


class AppSession(msgspec.Struct):
    visits: int = 0


@post("/visit")
async def visit(session: Session[AppSession]) -> dict[str, int]:
    def bump(data: AppSession) -> None:
        data.visits += 1

    return {"visits": (await session.update(bump)).visits}


app = Litestar([visit], plugins=[SessionPlugin(SessionConfig(AppSession))])
