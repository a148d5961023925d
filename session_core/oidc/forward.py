"""Forwards requests of the application's own pages to APIs, with the user's access token: the page never holds a token."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import quote

import httpx2
from litestar import HttpMethod, Litestar, Request, route
from litestar.config.app import AppConfig
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import InitPlugin
from litestar.response import Stream
from litestar.types import Guard

from session_core.asgi.same_origin import cross_site_reason
from session_core.errors import ConfigurationError, CrossSiteRequestError, UpstreamError, UpstreamTimeoutError
from session_core.litestar.access import session_of
from session_core.litestar.plugin import plugin_of
from session_core.oidc.plugin import OidcPlugin
from session_core.urls import party_origin

__all__ = ("ForwardPlugin", "Upstream")

_REQUEST_HEADERS: Final = ("accept", "accept-language", "content-type", "if-match", "if-none-match", "if-modified-since", "range")
_RESPONSE_HEADERS: Final = ("content-type", "content-language", "content-range", "etag", "last-modified", "retry-after")
_NEVER: Final = frozenset({
    "authorization", "cookie", "set-cookie", "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    "proxy-authorization", "proxy-authenticate", "proxy-connection", "content-length", "content-encoding", "accept-encoding",
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "location", "clear-site-data",
})  # fmt: skip
"""Headers that belong to one hop, to our own origin or to the client library (RFC 9110 7.6.1)."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_-]+)+")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\\%?#]")
_DOTS: Final = re.compile(r"[.\s]*(?:;.*)?")
"""A segment that an API could take for `..` or for none: Java servers drop parameters (`..;x`), Windows drops trailing spaces."""
_QUERY: Final = re.compile(rb"[!-~]*")
_ENCODED_SEPARATOR: Final = re.compile(rb"%(?:2f|5c)", re.IGNORECASE)
_REDIRECTS: Final = range(300, 400)
_NOT_MODIFIED: Final = 304


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """An API to which requests are forwarded. Raises `ConfigurationError` for what cannot work or would be unsafe."""

    path: str
    """The local path, for example `/api/orders`; the rest of a request's path is appended to the API's URL."""
    url: str
    """The API's URL, for example `https://orders.example.org/v1`: ASCII, without query and user name."""
    methods: Sequence[str] = ("GET", "HEAD")
    """The methods that are forwarded."""
    request_headers: Sequence[str] = _REQUEST_HEADERS
    """The headers of a request that are forwarded."""
    response_headers: Sequence[str] = _RESPONSE_HEADERS
    """The headers of a response that are forwarded."""
    timeout_seconds: float = 30.0
    """The longest time without data from the API."""

    def __post_init__(self) -> None:
        """Check what can be checked without a request."""
        if not _PATH.fullmatch(self.path):
            msg = f"path must be a plain path, for example /api/orders, not {self.path!r}"
            raise ConfigurationError(msg)
        if party_origin(self.url) is None or _UNSAFE.search(self.url) or ".." in self.url:
            msg = (
                f"url of the upstream {self.path} is http(s)://host[:port] and may have a path, in ASCII and without percent "
                "signs, user name, query and fragment, for example https://orders.example.org/v1"
            )
            raise ConfigurationError(msg)
        if not self.methods or not set(self.methods) <= _METHODS:
            msg = f"methods must be a selection of {', '.join(sorted(_METHODS))}"
            raise ConfigurationError(msg)
        for name in (*self.request_headers, *self.response_headers):
            if name.lower() in _NEVER:
                msg = f"the header {name} cannot be forwarded"
                raise ConfigurationError(msg)

    def target(self, path: str, query: bytes) -> httpx2.URL:
        """Return the URL of a request at the API. 404 for a path that the API could decode to another one."""
        rest = path.removeprefix(self.path)
        segments = rest.removeprefix("/").split("/") if rest not in {"", "/"} else []
        # The path was decoded once. A slash, dot or percent sign that is still encoded could be decoded again by the API.
        named = segments[:-1] if segments and not segments[-1] else segments  # the path may end with a slash
        if not all(map(_is_plain, named)) or not _QUERY.fullmatch(query) or b"#" in query:
            raise NotFoundException
        base = httpx2.URL(self.url)
        joined = base.path.rstrip("/") + "".join(f"/{quote(segment, safe='-._~!$&()*+,;=:@')}" for segment in segments)
        return base.copy_with(raw_path=(joined or "/").encode("ascii") + (b"?" + query if query else b""))


def _is_plain(segment: str) -> bool:
    """Whether no server can read a decoded segment as another one, also if it normalises characters (full-width dots)."""
    normal = unicodedata.normalize("NFKC", segment)
    return not (_DOTS.fullmatch(normal) or _UNSAFE.search(segment) or "/" in normal or "\\" in normal)


class ForwardPlugin(InitPlugin):
    """Adds a route for each API. Needs a `SessionPlugin` and an `OidcPlugin` before it.

    `guards` protect the routes, in addition to the required login. `transport` replaces the network, for tests.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        guards: Sequence[Guard] = (),
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._upstreams = upstreams
        self._guards = list(guards)
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes. Raises `ConfigurationError` without an `OidcPlugin`."""
        login = next((plugin for plugin in app_config.plugins if isinstance(plugin, OidcPlugin)), None)
        if login is None:
            msg = "ForwardPlugin needs an OidcPlugin in the same application: plugins=[SessionPlugin(...), OidcPlugin(...), ...]"
            raise ConfigurationError(msg)
        app_config.route_handlers.extend(self._route(upstream, login) for upstream in self._upstreams)
        app_config.lifespan.append(self._lifespan)
        return app_config

    def _route(self, upstream: Upstream, login: OidcPlugin) -> HTTPRouteHandler:
        async def forward(request: Request[Any, Any, Any]) -> Stream:
            return await self._forward(request, upstream, login)

        return route(
            [upstream.path, f"{upstream.path}/{{rest:path}}"],
            http_method=[HttpMethod(method) for method in upstream.methods],
            status_code=200,
            guards=self._guards,
            opt={"session": True},
            include_in_schema=False,
        )(forward)

    async def _forward(self, request: Request[Any, Any, Any], upstream: Upstream, login: OidcPlugin) -> Stream:
        sessions = plugin_of(request)
        headers = request.scope["headers"]
        # Every method counts as state-changing, also GET: pages of other sites must not read the user's data from the API.
        reason = cross_site_reason("POST", headers, public_origin=sessions.config.base.origin)
        if reason is not None:
            await sessions.events.emit("request.cross_site", reason=reason)
            raise CrossSiteRequestError
        session = await session_of(request)
        # In `path` a server has decoded it: `a%2Fb` is one segment, and would become two.
        if _ENCODED_SEPARATOR.search((request.scope.get("raw_path") or b"").partition(b"?")[0]):
            raise NotFoundException
        url = upstream.target(request.scope["path"], request.scope["query_string"])
        wanted = {name.lower() for name in upstream.request_headers}
        given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name.decode("latin-1") in wanted]
        client = self._open()
        outgoing = client.build_request(
            request.method,
            url,
            headers=[*given, ("accept-encoding", "identity")],
            content=await request.body() or None,
            timeout=upstream.timeout_seconds,
        )
        try:
            answer = await client.send(outgoing, auth=login.tokens.auth(session, upstream.url), stream=True)
        except httpx2.TimeoutException:
            raise UpstreamTimeoutError from None
        except httpx2.HTTPError:  # not chained: it holds the request, with the token in its headers
            raise UpstreamError from None
        if answer.status_code in _REDIRECTS and answer.status_code != _NOT_MODIFIED:
            await answer.aclose()
            raise UpstreamError
        return self._response(answer, upstream)

    def _response(self, answer: httpx2.Response, upstream: Upstream) -> Stream:
        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_bytes():
                    yield chunk
            finally:
                await answer.aclose()

        kept = {name.lower() for name in upstream.response_headers}
        headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() in kept}
        media_type = headers.pop("content-type", "application/octet-stream")
        # Responses of the API must not run scripts on our origin.
        headers |= {"content-security-policy": "default-src 'none'; sandbox", "x-content-type-options": "nosniff"}
        return Stream(body(), status_code=answer.status_code, media_type=media_type, headers=headers)

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                transport=self._transport,
                follow_redirects=False,
                trust_env=False,
                # One API that does not answer must not keep requests for the others waiting: clients limit the connections.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
                # All users share this client.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return self._client

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        del app
        try:
            yield
        finally:
            client, self._client = self._client, None
            if client is not None:
                await client.aclose()
