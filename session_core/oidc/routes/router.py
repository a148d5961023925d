"""The routes under /auth for Litestar."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from litestar import Request, Router
from litestar import Response as LitestarResponse
from litestar.enums import ScopeType
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Reference, Schema
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from session_core.asgi.application import SessionApplication
from session_core.litestar.openapi import PublicOperation, problem_responses
from session_core.litestar.problem import litestar_response
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.routes.all_routes import oidc_routes
from session_core.oidc.routes.auth_headers import with_auth_headers
from session_core.oidc.routes.route import NoSuchProviderError, Route
from session_core.stores.deadlines import open_request_time

__all__ = ("oidc_router",)


class AuthHeaders(ASGIMiddleware):
    """See `with_auth_headers`."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Call the application with a wrapped `send`."""
        open_request_time()  # a logout by the provider makes several store calls, but loads no session
        await next_app(scope, receive, with_auth_headers(scope, send))


def oidc_router(relying_parties: RelyingParties, application: SessionApplication[Any]) -> Router:
    """Return the routes under /auth."""
    return Router(
        path="/auth",
        route_handlers=[litestar_handler(route, relying_parties, application) for route in oidc_routes(relying_parties)],
        middleware=[AuthHeaders()],
        # Login routes are public, even if the application has guards on all routes.
        opt={"exclude_from_auth": True},
        tags=["login"],
    )


def litestar_handler(route: Route, relying_parties: RelyingParties, application: SessionApplication[Any]) -> HTTPRouteHandler:
    """Return a Litestar handler for a route of the relying party."""

    async def answer(request: Request[Any, Any, Any], provider_id: str | None) -> LitestarResponse[Any]:
        web_request = application.web_request(request.scope, request.receive)
        try:
            response = await route.endpoint(web_request, relying_parties, provider_id)
        except NoSuchProviderError:
            raise NotFoundException from None
        return litestar_response(response)

    async def plain(request: Request[Any, Any, Any]) -> LitestarResponse[Any]:
        return await answer(request, None)

    async def of_provider(request: Request[Any, Any, Any], provider_id: FromPath[str]) -> LitestarResponse[Any]:
        return await answer(request, provider_id)

    handler: Any = of_provider if route.by_provider else plain
    handler.__name__ = f"{route.endpoint.__name__}_of" if route.by_provider else route.endpoint.__name__
    handler.__doc__ = route.endpoint.__doc__
    return HTTPRouteHandler(
        f"{route.path}/{{provider_id:str}}" if route.by_provider else route.path,
        http_method=route.method,
        status_code=route.status,
        # Without the session no cookie is read, so cross-site requests are harmless.
        opt={"session": True} if route.session else {"session": False, "cross_site": route.method == "POST"},
        summary=route.summary or None,
        include_in_schema=bool(route.summary),
        operation_class=_operation(route),
        responses=problem_responses(*route.errors, *([404] if route.by_provider else [])),
    )(handler)


def _operation(route: Route) -> type[PublicOperation]:
    """Return the class of the route's OpenAPI operation, with its responses that are none of its errors."""

    class RouteOperation(PublicOperation):  # a dataclass by inheritance; making each one anew takes long
        def __post_init__(self) -> None:
            super().__post_init__()
            answers: dict[str, OpenAPIResponse | Reference] = {
                str(status): OpenAPIResponse(
                    description=HTTPStatus(status).phrase,
                    content={media.partition(";")[0]: OpenAPIMediaType(schema=Schema()) for media in media_types} or None,
                )
                for status, media_types in route.answers.items()
            }
            errors = {status: response for status, response in (self.responses or {}).items() if status >= "4"}
            self.responses = errors | answers

    return RouteOperation
