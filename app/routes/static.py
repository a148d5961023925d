"""The packaged stylesheet and images: read once, served by exact name, cached by browsers without expiry."""

from __future__ import annotations

from typing import Final

from litestar import get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery
from litestar.response import Response

from app.web.pages import STATIC, asset_version

__all__ = ("handlers",)

_TYPES: Final = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png", ".js": "text/javascript"}
# By name from a dictionary: paths of clients never reach the file system.
_ASSETS: Final = {file.name: (file.read_bytes(), _TYPES[file.suffix]) for file in STATIC.iterdir() if file.suffix in _TYPES}


@get("/static/{name:str}", include_in_schema=False)
async def asset(name: FromPath[str], v: FromQuery[str | None] = None) -> Response[bytes]:
    """Return one file. An address with its version never changes."""
    found = _ASSETS.get(name)
    if found is None:
        raise NotFoundException
    lasting = v is not None and v == asset_version(name)
    caching = "public, max-age=31536000, immutable" if lasting else "public, max-age=300"
    return Response(found[0], media_type=found[1], headers={"cache-control": caching})


@get("/favicon.ico", include_in_schema=False)
async def favicon() -> Response[bytes]:
    """Return the logo, which browsers request for pages without an icon, such as JSON or a page of the library."""
    content, media_type = _ASSETS["logo.svg"]
    return Response(content, media_type=media_type, headers={"cache-control": "public, max-age=86400"})


handlers = [asset, favicon]
