"""A single-page application with plain `fetch` and no build step: this serves its three files and one protected API.

    uv run litestar --app examples.single_page.app:create_app run

The provider is named by OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET; SESSION_ENCRYPTION_KEYS has the keys for its tokens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from litestar import Litestar, get, post
from litestar.datastructures import ResponseHeader
from litestar.response import File, ServerSentEvent

from session_core import Session, SessionConfig, SessionPlugin
from session_core.guards import requires_login
from session_core.oidc import OidcConfig, OidcPlugin, OidcProvider
from session_core.sealing import SealingKeys, parse_keys

HERE = Path(__file__).parent
PUBLIC = {"exclude_from_auth": True}
POLICY = ResponseHeader(name="content-security-policy", value="default-src 'self'; frame-ancestors 'none'; base-uri 'none'")


class AppSession(msgspec.Struct):
    notes: list[str] = []


@get("/", opt=PUBLIC, response_headers=[POLICY])
async def index() -> File:
    return File(HERE / "index.html", media_type="text/html", content_disposition_type="inline")


@get("/app.js", opt=PUBLIC)
async def script() -> File:
    return File(HERE / "app.js", media_type="text/javascript", content_disposition_type="inline")


@get("/signed-in", opt=PUBLIC, response_headers=[POLICY])
async def signed_in() -> File:
    """Where a login in a popup ends: the page tells the others and closes itself."""
    return File(HERE / "signed_in.html", media_type="text/html", content_disposition_type="inline")


@get("/signed-in.js", opt=PUBLIC)
async def signed_in_script() -> File:
    return File(HERE / "signed_in.js", media_type="text/javascript", content_disposition_type="inline")


@post("/api/notes")
async def add_note(session: Session[AppSession]) -> list[str]:
    def add(data: AppSession) -> None:
        data.notes.append(f"note {len(data.notes) + 1}")

    return (await session.update(add)).notes


@get("/events", opt={"touch": False})
async def events(session: Session[AppSession]) -> ServerSentEvent:
    """A stream that the library closes when the session ends, whatever ends it."""

    async def beats() -> AsyncIterator[str]:
        while True:
            yield "logged in"
            await asyncio.sleep(15)

    return ServerSentEvent(beats())


def create_app(sessions: SessionConfig[AppSession] | None = None, login: OidcConfig | None = None) -> Litestar:
    """Return the application. Its configuration comes from the environment where none is given."""
    sessions = sessions or SessionConfig(AppSession)
    login = login or OidcConfig(
        providers=[
            OidcProvider(
                issuer=os.environ["OIDC_ISSUER"],
                client_id=os.environ["OIDC_CLIENT_ID"],
                client_secret=os.environ["OIDC_CLIENT_SECRET"],
                allow_http=True,  # on loopback, for development
            )
        ],
        public_url=sessions.public_url,
        sealing=SealingKeys(parse_keys(os.environ["SESSION_ENCRYPTION_KEYS"])),
    )
    return Litestar(
        [index, script, signed_in, signed_in_script, add_note, events],
        guards=[requires_login],
        plugins=[SessionPlugin(sessions), OidcPlugin(login)],
    )
