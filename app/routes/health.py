"""Liveness, readiness and metrics, for monitoring."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable
from typing import Any, Final
from urllib.parse import urlsplit

from litestar import Request, get
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.response import Response

from app.ops.metrics import CONTENT_TYPE
from app.services import Injected
from session_core import Sessions
from session_core.litestar.openapi import problem_responses

__all__ = ("handlers",)

_TIMEOUT: Final = 3.0
_NO_STORE: Final = {"cache-control": "no-store"}


@get("/health/live", tags=["health"])
async def live() -> Response[dict[str, str]]:
    """Answer that the process is alive; makes no other call, so that an outage elsewhere never restarts it."""
    return Response({"status": "ok"}, headers=_NO_STORE)


@get("/health/ready", tags=["health"], responses=problem_responses(503))
async def ready(services: Injected, sessions: Sessions) -> Response[dict[str, Any]]:
    """Answer whether requests can be served; else 503 with the names of failed services."""
    kind = urlsplit(services.settings.session_store).scheme
    names = ("session_store", "database")
    results = await asyncio.gather(_check(sessions.ping()), _check(services.database.ping()))
    checks = {name: "ok" if good else "unavailable" for name, good in zip(names, results, strict=True)}
    if all(results):
        return Response({"status": "ok", "checks": checks}, headers=_NO_STORE)
    out = [f"session store ({kind})"] * (not results[0]) + ["database"] * (not results[1])
    details = {
        "type": "about:blank",
        "title": "Not ready",
        "status": 503,
        "detail": f"unavailable: {' and '.join(out)}{f'; {services.database.misfit}' if services.database.misfit else ''}",
        "checks": checks,
    }
    return Response(details, status_code=503, media_type="application/problem+json", headers=_NO_STORE)


@get("/metrics", include_in_schema=False)
async def metrics(request: Request[Any, Any, Any], services: Injected) -> Response[bytes]:
    """Return the metrics in Prometheus' text format. 401 without the configured key, 404 if they are on another address."""
    settings = services.settings
    if settings.app_metrics_address is not None:
        raise NotFoundException
    if settings.app_metrics_key is not None:
        expected = f"Bearer {settings.app_metrics_key.get_secret_value()}"
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected.encode()):
            raise NotAuthorizedException(headers={"www-authenticate": "Bearer"})
    body = services.metrics.render()
    return Response(body, media_type=CONTENT_TYPE, headers=_NO_STORE)


async def _check(work: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT):
            await work
    except Exception:  # noqa: BLE001 - whatever is wrong, it is not ready
        return False
    return True


handlers = [live, ready, metrics]
