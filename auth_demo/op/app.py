"""Builds the embedded OpenID provider. Independent of servers, command lines and relying parties."""

import os
import time
from urllib.parse import urlsplit

import httpx2
from litestar import Litestar, head
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from auth_demo.op.loopback import refuse_unsafe
from auth_demo.op.provider import EmbeddedOp
from auth_demo.op.settings import OpSettings
from auth_demo.op.state.expiring import Clock
from auth_demo.op.web.authorize import authorize, authorize_by_post
from auth_demo.op.web.discovery import jwks, openid_configuration
from auth_demo.op.web.end_session import confirm_end_session, end_session, end_session_by_post
from auth_demo.op.web.home import auto_submit, home, icon, stylesheet
from auth_demo.op.web.login import log_in
from auth_demo.op.web.parameters import MAX_BODY_BYTES, ParameterError
from auth_demo.op.web.token import revoke, token
from auth_demo.op.web.userinfo import userinfo
from auth_demo.op.web.web import (
    add_security_headers,
    on_http_error,
    on_parameter_error,
    on_unexpected_error,
    op_of,
    refuse_foreign_host,
)

__all__ = ("create_op", "op_of")


@head(["/authorize", "/end_session"], media_type="text/plain")
async def without_effect() -> None:
    """Answer without a code, and without a sign-out: link scanners send HEAD (RFC 9110 9.2.1)."""


_HANDLERS = (
    home,
    stylesheet,
    icon,
    auto_submit,
    openid_configuration,
    jwks,
    authorize,
    authorize_by_post,
    log_in,
    token,
    revoke,
    userinfo,
    end_session,
    end_session_by_post,
    confirm_end_session,
    without_effect,
)


def create_op(settings: OpSettings, *, clock: Clock = time.time, transport: httpx2.AsyncBaseTransport | None = None) -> Litestar:
    """Return the provider as an ASGI application for one process with one event loop.

    `clock` returns seconds since the epoch. `transport` replaces the network for back-channel logout, for
    tests. `op_of(app)` gives the running provider. Raises `UnsafeProviderError` when ``APP_ENV`` is production or
    the issuer's host is not loopback: every visitor may sign in as any user.
    """
    refuse_unsafe(os.environ.get("APP_ENV", "development"), urlsplit(settings.issuer).hostname or "")
    op = EmbeddedOp(settings, clock, transport)

    async def close() -> None:
        await op.close()

    return Litestar(
        route_handlers=list(_HANDLERS),
        state=State({"op": op}),
        openapi_config=None,
        before_request=refuse_foreign_host,
        before_send=[add_security_headers],
        on_shutdown=[close],
        request_max_body_size=MAX_BODY_BYTES,
        exception_handlers={
            ParameterError: on_parameter_error,
            HTTPException: on_http_error,
            Exception: on_unexpected_error,
        },
        debug=False,
        # Litestar would reconfigure the root logger of the application that embeds the provider.
        logging_config=None,
    )
