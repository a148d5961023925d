"""Builds the application from its settings, for servers, the command line and tests.

    settings -> database, users, audit -> sessions -> login -> routes -> headers, access log

A clone that adds a page adds a module to `app.routes` and its handlers here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestar import Router
from litestar.di import Provide
from pydantic import SecretStr

from app.application import Application, HeadRoutes
from app.data.audit import COMMAND_LINE, acting
from app.data.database import DatabaseUnavailableError, migrate, newest_revision
from app.data.users import AccountDisabledError
from app.ops.access_log import AccessLog
from app.ops.live_sessions import count_sessions
from app.ops.log import configure_logging
from app.ops.stopping import GracefulStop
from app.routes import account, admin, health, home, session_api, static, user_api
from app.routes.account import RECENT_MINUTES
from app.services import Services
from app.session_data import AppSession
from app.settings.production import posture, production_problems, refuse_unfit
from app.settings.report import SettingsError
from app.settings.settings import Settings, load_settings
from app.user_commands import UserCommands
from app.web.errors import exception_handlers
from app.web.form_limit import limit_forms
from app.web.form_user import refuse_form_of_other_user
from app.web.messages import announce_logout
from app.web.openapi import openapi_config
from app.web.public_address import PublicAddress
from app.web.request_context import client_address, user_agent
from app.web.security_headers import SecurityHeaders
from session_core import (
    Clock,
    ConfigurationError,
    CookieConfig,
    Device,
    Identity,
    Impersonation,
    SessionConfig,
    SessionHandle,
    SessionManager,
    SessionPlugin,
    SystemClock,
    Timeouts,
)
from session_core.errors import OidcError
from session_core.litestar.online import OnlineCheck
from session_core.oidc import BatchRefresh, OidcConfig, OidcPlugin
from session_core.sealing import SealingKeys, generate_key, parse_keys

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection

__all__ = ("create_app",)

_MAX_BODY = 64 * 1024
_FLUSH_SECONDS = 0.75
_COMMAND_SECONDS = 10.0
_CLOCK_SECONDS = 10
"""Seconds of clock difference to report; from a minute on, tokens are refused."""


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> Application:
    """Return the application.

    By default settings are read from the environment and `.env`; if some are invalid, the process ends with one line for each,
    without a traceback.
    """
    try:
        settings = settings or load_settings()
        if _only_checked():
            app = _assemble(_assemblable(settings), clock or SystemClock(), judged=settings)
            app.only_for_check = True
            return app
        refuse_unfit(settings)
        return _assemble(settings, clock or SystemClock(), judged=settings)
    except (SettingsError, ConfigurationError) as error:
        sys.exit(str(error) if isinstance(error, SettingsError) else f"error: {error}")


def _only_checked() -> bool:
    """Whether this is `litestar check`, which prints invalid settings together with the routes.

    Another command must not run with placeholders: it would end sessions, or disable a user, in another store or database.
    """
    program = Path(sys.argv[0])
    named = program.parent.name if program.stem == "__main__" else program.stem
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument in {"--app", "--app-dir"}:
            next(arguments, None)
        elif not argument.startswith("-"):
            return named == "litestar" and argument == "check"
    return False


def _assemblable(settings: Settings) -> Settings:
    """Return settings from which `litestar check` can build the routes, even if those given are invalid."""
    if not settings.is_production or not production_problems(settings):
        return settings
    missing = {"app_env": "development", "oidc_client_secret": settings.oidc_client_secret or SecretStr(generate_key())}
    return settings.model_copy(update=missing)


def _assemble(settings: Settings, clock: Clock, *, judged: Settings) -> Application:
    configure_logging(level=settings.app_log_level, as_json=settings.is_production)
    services = Services(settings, clock)
    kept, login = SessionPlugin(_session_config(services)), OidcPlugin(_oidc_config(services))
    app = Application(
        route_handlers=[
            Router(
                "/",
                route_handlers=[*home.handlers, *account.handlers, *admin.handlers],
                guards=[limit_forms, refuse_form_of_other_user],
            ),
            *user_api.handlers,
            *session_api.handlers,
            *health.handlers,
            *static.handlers,
        ],
        plugins=[kept, login, HeadRoutes(), UserCommands()],
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        exception_handlers=exception_handlers(),
        before_send=[announce_logout],
        lifespan=[lambda _: _running(services, login, kept.sessions)],
        openapi_config=openapi_config(settings),
        request_max_body_size=_MAX_BODY,
        logging_config=None,
        debug=settings.app_debug,
        opt={
            "posture_check": lambda: posture(judged),
            "command_context": lambda: _commanding(services),
            "online_check": lambda: _check_online(services),
        },
    )
    app.state["services"] = services
    app.prepare = partial(_prepare, services)
    # Outside Litestar, not as its middleware: Litestar answers 404 and 405 outside its middleware.
    logged = AccessLog(
        SecurityHeaders(PublicAddress(app.asgi_handler, settings), settings),
        services.metrics,
        settings.trusted_proxies,
        loud=settings.is_production,
        traces=services.traces,
    )
    app.graceful_stop = app.asgi_handler = GracefulStop(logged, flush=partial(services.audit.finish, _FLUSH_SECONDS))
    return app


def _session_config(services: Services) -> SessionConfig[AppSession]:
    settings = services.settings

    def device(connection: ASGIConnection[Any, Any, Any, Any]) -> Device:
        scope = connection.scope
        return Device(ip=client_address(scope, settings.trusted_proxies), user_agent=user_agent(scope))

    async def roles(session: SessionHandle[AppSession]) -> tuple[str, ...]:
        user = await services.user_of(session)
        return user.roles if user else ()

    return SessionConfig(
        AppSession,
        store=settings.session_store,
        accept_weak_store=settings.session_accept_weak_store,
        secrets=[secret.get_secret_value() for secret in settings.session_secrets],
        public_url=settings.public_url,
        cookie=CookieConfig(name=settings.session_cookie),
        bearer=bool(settings.native_clients),
        timeouts=Timeouts(idle=settings.session_idle_seconds, absolute=settings.session_absolute_seconds),
        max_sessions_per_user=settings.session_max_per_user,
        max_anonymous_per_client=settings.limit_anonymous,
        exempt_clients=[str(network) for network in settings.limit_exempt],
        on_event=[services.metrics.happened, services.audit.record],
        observers=[services.metrics, *([services.traces.calls] if services.traces else [])],
        roles=roles,
        is_active=services.users.is_active,
        impersonation=_impersonation(services),
        device=device,
        clock=services.clock,
    )


def _impersonation(services: Services) -> Impersonation | None:
    seconds = services.settings.app_impersonation_seconds
    if not seconds:
        return None
    return Impersonation(allow=services.may_act_as, seconds=seconds, login_within=RECENT_MINUTES * 60)


def _oidc_config(services: Services) -> OidcConfig:
    settings = services.settings
    refresh_key, proxy = settings.oidc_refresh_tokens_key, settings.oidc_proxy
    roles_claims = {each.oidc_id: each.oidc_roles_claim for each in settings.providers}

    async def remember_user(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[AppSession]) -> None:
        del session
        provider = config.provider_of(identity.issuer)
        roles_claim = roles_claims[provider.id] if provider is not None else "roles"
        user = await services.users.remember(identity, claims, roles_claim=roles_claim)
        if user.disabled:
            raise AccountDisabledError

    # Missing only in `litestar check`: development generates them, and production is refused.
    keys = [key.get_secret_value() for key in settings.session_encryption_keys] or [generate_key()]
    config = OidcConfig(
        providers=[each.provider(allow_http=not settings.is_production) for each in settings.providers],
        public_url=settings.public_url,
        sealing=SealingKeys(parse_keys(",".join(keys))),
        http_timeout_seconds=settings.oidc_http_timeout_seconds,
        batch_refresh=BatchRefresh(key=refresh_key.get_secret_value() if refresh_key else None),
        proxy=proxy.get_secret_value() if proxy else None,
        ca_file=settings.oidc_ca_file,
        native_clients=settings.native_clients,
        choice_page=services.pages.choice,
        on_login=remember_user,
        requests_per_minute=settings.limit_logins,
    )
    return config


async def _prepare(services: Services) -> None:
    """Open the database; in development it is migrated automatically."""
    database, settings = services.database, services.settings
    await database.open()
    if settings.is_production or await database.revision() == newest_revision():
        return
    try:
        await asyncio.to_thread(migrate, settings.database_url)
    except DatabaseUnavailableError as error:
        await database.close()
        sys.exit(f"error: DATABASE_URL: {error}")


@asynccontextmanager
async def _running(services: Services, login: OidcPlugin, sessions: SessionManager) -> AsyncIterator[None]:
    """Run the background work of the application, after `_prepare`."""
    await services.audit.open()
    # Fetch the provider's metadata in advance, for the first login and for pages with a logout. An outage of the provider is
    # ignored.
    asking_provider = asyncio.create_task(_ask_provider(login))
    counting = asyncio.create_task(count_sessions(services.metrics, sessions, services.settings.app_count_seconds))
    try:
        yield
    finally:
        asking_provider.cancel()
        counting.cancel()
        await services.audit.close()
        if services.traces is not None:
            await services.traces.close()
        await services.database.close()


@asynccontextmanager
async def _commanding(services: Services) -> AsyncIterator[None]:
    """Record the actions of a command, with the command line as actor."""
    await services.database.open()
    await services.audit.open(trims=False)
    try:
        with acting(COMMAND_LINE):
            yield
    finally:
        await services.audit.close(_COMMAND_SECONDS)
        await services.database.close()


async def _check_online(services: Services) -> list[OnlineCheck]:
    """Check that the database answers, is migrated and has the same time."""
    database = services.database
    await database.open()
    try:
        await database.ping()
        checks = [OnlineCheck("database", good=True, detail=f"revision {await database.revision()}")]
        if (now := await database.now()) is not None:
            ahead = services.clock.now() / 1000 - now
            checks.append(OnlineCheck("clock", good=abs(ahead) <= _CLOCK_SECONDS, detail=f"{ahead:+.0f} s from the database"))
    except DatabaseUnavailableError as error:
        checks = [OnlineCheck("database", good=False, detail=str(error))]
    finally:
        await database.close()
    return checks


async def _ask_provider(login: OidcPlugin) -> None:
    for party in login.relying_parties:
        with suppress(OidcError):
            await party.connection.discovery.metadata()
