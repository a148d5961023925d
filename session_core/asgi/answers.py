"""The response that an error of the library gets: a redirect to the login, a page, or problem+json (RFC 9457)."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from session_core.asgi.bearer import presents_bearer
from session_core.asgi.web import HTML, PROBLEM, HasHeaders, Redirect, Response
from session_core.config import SessionConfig
from session_core.errors import (
    AmbiguousCredentialsError,
    ForbiddenError,
    LoginRequiredError,
    OidcError,
    SessionConflictError,
    SessionCoreError,
    SessionGoneError,
    SessionLimitError,
    StepUpRequiredError,
    StoreUnavailableError,
    TooManyRequestsError,
    UnknownLoginError,
)
from session_core.urls import PATH_MARKS, BaseUrl, encoded_query

__all__ = ("error_headers", "error_response", "is_browser_navigation", "login_redirect", "problem", "return_to", "wants_page")

_SKEW_SECONDS = 60
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_BROWSER_ACCEPT = "text/html,application/xhtml+xml"
"""How the `Accept` header of a navigation begins in Chromium, Firefox and WebKit."""
_ONE_BROWSER = "Begin again at {url}, and stay in the same window. "
_NO_COOKIES = "Your browser sent no cookie, and a login needs them: if it blocks cookies, allow them for this site. "
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body><main><h1>{title}</h1><p>Error {status}. {advice}<a href="{start}">Back to the start page</a></p></main></body></html>
"""


def wants_page(connection: HasHeaders, *, bearer: bool = False) -> bool:
    """Whether the client is a browser that shows the response to a person, not a program that reads it.

    `bearer`: the application takes bearer tokens, and no page that a person opens has one. Elsewhere the header is a proxy's.
    """
    mode = connection.headers.get("sec-fetch-mode")
    if "text/html" not in connection.headers.get("accept", "") or mode not in {None, "navigate"}:
        return False
    return not (bearer and presents_bearer(connection.scope["headers"]))


def is_browser_navigation(connection: HasHeaders) -> bool:
    """Whether a browser, and no other client that accepts HTML, shows the response as a page."""
    return wants_page(connection) and connection.headers.get("accept", "").startswith(_BROWSER_ACCEPT)


def problem(error: SessionCoreError) -> dict[str, Any]:
    """Return the problem details of an error (RFC 9457): its title and code, no data of the request."""
    details: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status_code,
        "code": error.code,
    }
    if isinstance(error, SessionConflictError) and error.fields:
        details["fields"] = list(error.fields)
    if isinstance(error, StepUpRequiredError):
        details["max_age"] = error.max_age
        details["acr_values"] = list(error.acr_values)
    return details


def error_headers(error: SessionCoreError, connection: HasHeaders, config: SessionConfig[Any]) -> dict[str, str]:
    """Return the headers that belong to an error, whatever form its body has.

    A required step-up is described as in RFC 9470 3, also to clients whose requests the session cookie authenticates.
    """
    if isinstance(error, StoreUnavailableError):
        return {"retry-after": "1"}
    if isinstance(error, TooManyRequestsError):
        return {"retry-after": str(error.retry_after)}
    if not isinstance(error, StepUpRequiredError):
        challenge = _challenge(error, connection) if config.bearer else None
        return {} if challenge is None else {"www-authenticate": challenge}
    params = ['error="insufficient_user_authentication"', f'error_description="{error.title}"']
    if error.max_age is not None:
        params.append(f'max_age="{error.max_age}"')
    if error.acr_values:
        params.append(f'acr_values="{" ".join(error.acr_values)}"')
    return {"www-authenticate": f"Bearer {', '.join(params)}"}


def _challenge(error: SessionCoreError, connection: HasHeaders) -> str | None:
    """Return the challenge of RFC 6750 3 where the error has one: with an error code only where a token was presented."""
    code = None
    if isinstance(error, AmbiguousCredentialsError):
        code = "invalid_request"
    elif presents_bearer(connection.scope["headers"]):
        code = "insufficient_scope" if isinstance(error, ForbiddenError) else "invalid_token"
    elif isinstance(error, ForbiddenError):
        return None
    if not isinstance(error, LoginRequiredError | SessionGoneError | ForbiddenError | AmbiguousCredentialsError):
        return None
    return "Bearer" if code is None else f'Bearer error="{code}", error_description="{error.title}"'


def login_redirect(connection: HasHeaders, error: SessionCoreError, config: SessionConfig[Any]) -> Response | None:
    """Return the redirect that sends a person to the login and back here, or None when another response is due."""
    if not isinstance(error, LoginRequiredError | StepUpRequiredError) or not wants_page(connection, bearer=config.bearer):
        return None
    base = config.base.at(connection.scope)
    query: dict[str, str] = {"next": return_to(connection, base)}
    if isinstance(error, StepUpRequiredError):
        if error.max_age is not None:
            # Less than the guard will require: if the clocks differ a little, the provider would accept the login as recent,
            # the guard would not, and the browser would be redirected forever.
            query["max_age"] = str(max(0, error.max_age - _SKEW_SECONDS))
        if error.acr_values:
            query["acr_values"] = " ".join(error.acr_values)
    if connection.scope.get("method", "GET") not in _SAFE_METHODS:
        # The content of the form is not kept. Its page gets `unsent=1` and says that the form was not processed.
        query["unsent"] = "1"
    if is_browser_navigation(connection) and connection.headers.get("sec-fetch-site", "same-origin") == "same-origin":
        # This may be the response to a form of ours, and `form-action` would block a redirect to the provider: send a page
        # instead.
        query["page"] = "1"
    return Redirect(f"{_login_address(config, base)}{urlencode(query, quote_via=quote)}")


def _login_address(config: SessionConfig[Any], base: BaseUrl) -> str:
    """Return the address of the login, to which a query is added."""
    login = base.of(config.login_path) if config.login_path.startswith("/") else config.login_path
    return f"{login}{'&' if '?' in login else '?'}"


def error_response(connection: HasHeaders, error: SessionCoreError, config: SessionConfig[Any]) -> Response:
    """Return the response to an error in a form that the client accepts."""
    redirect = login_redirect(connection, error, config)
    if redirect is not None:
        return redirect
    headers = {"cache-control": "no-store", **error_headers(error, connection, config)}
    if wants_page(connection, bearer=config.bearer):
        base = config.base.at(connection.scope)
        advice = _ONE_BROWSER.format(url=escape(config.base.url)) if isinstance(error, UnknownLoginError) else ""
        if advice and "cookie" not in connection.headers:
            advice = _NO_COOKIES + advice
        is_known = isinstance(error, OidcError | SessionLimitError) and error.return_to is not None
        if is_known or isinstance(error, UnknownLoginError):
            asked = {"next": error.return_to, "provider": error.provider}
            query = urlencode({name: value for name, value in asked.items() if value is not None}, quote_via=quote)
            again = f"{_login_address(config, base)}{query}"
            advice += f'<a href="{escape(again)}">Try again</a>. '
        start = escape(base.of("/"))
        page = _PAGE.format(title=error.title, status=error.status_code, start=start, advice=advice)
        return Response(page, status_code=error.status_code, media_type=HTML, headers=headers)
    return Response(problem(error), status_code=error.status_code, media_type=PROBLEM, headers=headers)


def return_to(connection: HasHeaders, base: BaseUrl) -> str:
    """Return the page to redirect a person to after the login: this one or, after a form post, the one with the form."""
    if connection.scope.get("method", "GET") in _SAFE_METHODS:
        return base.page(connection.scope)
    try:
        referer = urlsplit(connection.headers.get("referer", ""))
    except ValueError:
        return base.of("/")
    if f"{referer.scheme}://{referer.netloc}" != base.origin:
        return base.of("/")
    path = quote(referer.path, safe=PATH_MARKS + "/%") or "/"
    return f"{path}?{encoded_query(referer.query)}" if referer.query else path
