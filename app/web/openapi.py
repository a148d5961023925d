"""The OpenAPI document. Errors that Litestar documents in its own form are documented as what `app.web.errors` answers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import OpenAPI, Server

from app import NAME
from session_core.urls import base_url_of

if TYPE_CHECKING:
    from app.settings.settings import Settings

__all__ = ("openapi_config",)

_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
"""The problem details (RFC 9457) of an error."""
_OF_LITESTAR: Final = {"status_code", "detail", "extra"}
"""The members of an error in Litestar's own form."""


def openapi_config(settings: Settings) -> OpenAPIConfig:
    """Return what serves the document at /schema."""
    return _Config(
        title=NAME,
        version="1",
        path="/schema",
        # JSON and YAML only: Litestar's documentation pages load scripts from another host.
        render_plugins=[JsonRenderPlugin(path="/"), YamlRenderPlugin()],
        servers=[Server(url=base_url_of(settings.public_url).of("/"))],
    )


@dataclass
class _Config(OpenAPIConfig):
    def to_openapi_schema(self) -> OpenAPI:
        """Return the document, to which Litestar then adds the paths."""
        document = super().to_openapi_schema()
        return _Document(**{field.name: getattr(document, field.name) for field in fields(document)})


@dataclass
class _Document(OpenAPI):
    def to_schema(self) -> dict[str, Any]:
        """Return the document as it is served."""
        document = super().to_schema()
        for path in document["paths"].values():
            for operation in path.values():
                for response in operation.get("responses", {}).values():
                    if _is_of_litestar(response.get("content", {}).get("application/json", {}).get("schema", {})):
                        response["content"] = {"application/problem+json": {"schema": _PROBLEM}}
        return document


def _is_of_litestar(schema: dict[str, Any]) -> bool:
    """Whether Litestar documents an error so, because a handler takes parameters or names exceptions in `raises`."""
    return any(each.get("properties", {}).keys() == _OF_LITESTAR for each in schema.get("oneOf", [schema]))
