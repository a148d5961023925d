"""Every setting of the application: read from the environment and `.env`, checked before anything starts."""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import InstanceOf, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.settings.database_address import address_of
from app.settings.declared import GENERATE, example_of, setting
from app.settings.environment import given_names, misspelt
from app.settings.generated_secrets import CLIENT_SECRET_FILE, ENCRYPTION_KEYS_FILE, SESSION_SECRETS_FILE, read_or_create
from app.settings.provider import EMBEDDED_CLIENT_ID, EMBEDDED_ISSUER, ProviderSettings, check_address
from app.settings.providers import further_providers, numbered_names
from app.settings.report import Problem, SettingsError, as_value_error, problem_in
from session_core.errors import ConfigurationError
from session_core.oidc import NativeClient, OidcConfig, OidcProvider
from session_core.sealing import SealingKeys
from session_core.stores import open_store
from session_core.urls import base_url_of

__all__ = ("EMBEDDED_CLIENT_ID", "EMBEDDED_ISSUER", "HAS_EMBEDDED_OP", "Settings", "load_settings")

HAS_EMBEDDED_OP: Final = True
"""Whether this repository includes the provider at `EMBEDDED_ISSUER`."""
_ASYNC_DRIVERS: Final = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "mysql": "asyncmy"}
_MIN_SECRET: Final = 32
_IN_VAR: Final = "made in `var/` in development"
_COOKIE_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

Network = IPv4Network | IPv6Network
CommaSeparated = Annotated[tuple[SecretStr, ...], NoDecode]
NativeClients = Annotated[tuple[InstanceOf[NativeClient], ...], NoDecode]
Networks = Annotated[tuple[Network, ...], NoDecode]


class Settings(ProviderSettings, BaseSettings):
    """The settings, by the names of their variables in lower case, declared once; `just settings` writes the pages."""

    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, frozen=True, use_attribute_docstrings=True
    )

    app_env: Literal["development", "production"] = setting("development", example="production")
    """`development` or `production`. `production` refuses what is [unfit](#production)."""
    app_debug: bool = setting(default=False, example="false")
    """Error pages with source code and variables; in development only."""
    app_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting("INFO", example="INFO")
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    app_audit_days: int = setting(90, gt=0, example="90")
    """Days after which audit entries are removed, while the application runs."""
    app_traces: bool = setting(default=False, example="true, with OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.example.org:4318")
    """Send [traces](../how-to/telemetry.md#traces) to the collector that the `OTEL_...` variables name; needs the
    dependency group `app-telemetry`."""
    app_metrics_key: SecretStr | None = setting(None, advice=GENERATE)
    """`/metrics` asks for this key as a bearer token; 32 characters or more."""
    app_metrics_address: str | None = setting(None, example="127.0.0.1:9464")
    """`serve` answers `/metrics` on this `host:port` alone."""
    app_count_seconds: int = setting(60, ge=0, example="60, or 0 to count no sessions")
    """How often one of the workers counts the live sessions for `/metrics`, which reads all of them; 0 never."""
    public_url: str = setting("http://localhost:8000", example="https://app.example.org")
    """Scheme, host, port and path under which browsers reach the application. Decides redirect URIs and cookie security."""
    session_store: str = setting(
        "sqlite+aiosqlite:///var/app.db", repr=False, example="postgresql+asyncpg://app@db.example.org/app"
    )
    """Any [store URL](stores.md): `sqlite:///var/app.db`, `postgresql+asyncpg://...`, `redis://...`, `memory://`."""
    session_accept_weak_store: bool = setting(default=False, example="false")
    """In development, also take a [store without compare-and-swap](stores.md#without-compare-and-swap). Production refuses
    it."""
    session_secrets: CommaSeparated = setting((), advice=GENERATE, otherwise=_IN_VAR)
    """Comma-separated, 32 bytes or more each: the first signs, all verify. Made by `uv run litestar sessions
    generate-secret`."""
    session_encryption_keys: CommaSeparated = setting((), advice=GENERATE, otherwise=_IN_VAR)
    """Comma-separated, 32 random bytes in base64url each: the first encrypts, all decrypt. Made by the same command."""
    session_cookie: str | None = setting(
        None,
        example="__Host-session",
        otherwise="`__Host-session` on https, `session-` and the port of `PUBLIC_URL` on http; a path of `PUBLIC_URL` is added",
    )
    """[Cookie name](../explanation/cookie.md#its-attributes)."""
    session_idle_seconds: int = setting(3600, gt=0, example="3600")
    """A session ends after this long without use."""
    session_absolute_seconds: int = setting(86400, gt=0, le=316_224_000, example="86400")
    """A session ends this long after it began."""
    session_max_per_user: int = setting(0, ge=0, example="5, or 0 for no limit")
    """A login above it ends the user's oldest session; 0 sets no limit of yours (the library's is 1,000)."""
    app_impersonation_seconds: int = setting(900, ge=0, le=3600, example="900, or 0 for never")
    """How long an administrator may [act as a user](../how-to/impersonate.md), an hour at most; 0 is never."""
    database_url: str = setting(
        "sqlite+aiosqlite:///var/app.db", repr=False, example="postgresql+asyncpg://app@db.example.org/app"
    )
    """Users and audit trail. Options are those of a [store URL](stores.md). Migrated by `uv run alembic upgrade head`."""
    oidc_http_timeout_seconds: float = setting(5, gt=0, le=60, example="5")
    """For every call to the provider, at most 60."""
    oidc_proxy: SecretStr | None = setting(None, example="http://proxy.example.org:3128", otherwise="`HTTPS_PROXY`")
    """A forward proxy for these calls; none for a provider on loopback."""
    oidc_ca_file: Path | None = setting(None, example="/etc/ssl/company-ca.pem")
    """Certificate authorities in PEM, trusted for these calls beside the usual ones."""
    oidc_providers_file: Path | None = setting(None, example="providers.toml")
    """A TOML file with [further providers](#providers)."""
    native_clients: NativeClients = setting((), example="desktop http://127.0.0.1/callback, mobile com.example.app:/login")
    """Comma-separated [native applications](../how-to/native.md) that may log users in, each as its id and a redirect URI; with
    several redirect URIs its id comes again. With one, sessions also come by bearer token."""
    oidc_refresh_tokens_key: SecretStr | None = setting(None, advice=GENERATE)
    """The key for [`POST /auth/refresh-tokens`](routes.md#machines), 32 characters or more; without it there is no such
    address."""
    trusted_proxies: Networks = setting((), example="10.0.0.0/8,192.0.2.7")
    """Comma-separated networks whose `X-Forwarded-For` names the client: in the audit trail, in device lists and for the
    limits."""
    limit_logins: int = setting(60, ge=0, example="60, or 0 for no limit")
    """Logins, callbacks and logout tokens, each, of one client address in a minute, over all workers; [429 above
    that](../how-to/limits.md), 0 is no limit."""
    limit_forms: int = setting(600, ge=0, example="600, or 0 for no limit")
    """Forms of one client address in a minute."""
    limit_anonymous: int = setting(10_000, ge=0, example="10000, or 0 for no limit")
    """Sessions without a login that one client address may begin in an hour."""
    limit_exempt: Networks = setting((), example="192.0.2.0/24")
    """Comma-separated networks that no limit applies to: a provider that sends many logout tokens, a monitor, an office."""

    _further: tuple[ProviderSettings, ...] = PrivateAttr(default=())

    @property
    def providers(self) -> tuple[ProviderSettings, ...]:
        """Where users log in: the provider that OIDC_ISSUER names, then further ones; the embedded one only where no other is."""
        return self._further if self._further and "oidc_issuer" not in self.model_fields_set else (self, *self._further)

    @property
    def is_production(self) -> bool:
        """Whether `APP_ENV` is production."""
        return self.app_env == "production"

    @property
    def uses_embedded_op(self) -> bool:
        """Whether logins use a provider for development, on loopback."""
        return any(each.oidc_issuer.startswith("http://127.0.0.1:") for each in self.providers)

    @field_validator("session_secrets", "session_encryption_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value

    @field_validator("session_secrets")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, secret in enumerate(value, 1):
            if (size := len(secret.get_secret_value().encode())) < _MIN_SECRET:
                message = f"secret {number} of {len(value)} has {size} bytes, at least {_MIN_SECRET} are needed"
                raise ValueError(message)
        return value

    @field_validator("oidc_refresh_tokens_key", "app_metrics_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value else None
        if text is not None and (len(text) < _MIN_SECRET or not text.isascii() or not text.isprintable()):
            message = f"must be {_MIN_SECRET} printable ASCII characters or more"
            raise ValueError(message)
        return value

    @field_validator("session_encryption_keys")
    @classmethod
    def _keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(value, 1):
            text = key.get_secret_value().rstrip("=")
            good = re.fullmatch(r"[A-Za-z0-9_-]{43}", text)
            if not good or len(urlsafe_b64decode(text + "=")) != _MIN_SECRET:
                message = f"key {number} of {len(value)} is not 32 bytes in base64url (43 characters)"
                raise ValueError(message)
        return value

    @field_validator("trusted_proxies", "limit_exempt", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            message = "must be addresses or networks (no host bits set), separated by commas"
            raise ValueError(message) from None

    @field_validator("native_clients", mode="before")
    @classmethod
    def _clients(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [tuple(part.split()) for part in value.split(",")]
        if not all(len(pair) == 2 for pair in pairs):  # noqa: PLR2004 - id and redirect URI
            message = "must be pairs of id and redirect URI, separated by commas"
            raise ValueError(message)
        redirect_uris: dict[str, list[str]] = {}
        for client_id, redirect_uri in pairs:
            redirect_uris.setdefault(client_id, []).append(redirect_uri)
        with as_value_error():
            return tuple(NativeClient(client_id, given) for client_id, given in redirect_uris.items())

    @field_validator("app_metrics_address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(f"//{value}")
            good = parts.netloc == value and bool(parts.hostname) and bool(parts.port) and "@" not in value
        except ValueError:
            good = False
        if not good:
            message = "must be host:port"
            raise ValueError(message)
        return value

    @field_validator("public_url")
    @classmethod
    def _origin(cls, value: str) -> str:
        with as_value_error():
            return base_url_of(check_address(value)).url

    @field_validator("session_cookie")
    @classmethod
    def _cookie_name(cls, value: str | None) -> str | None:
        if value is not None and not _COOKIE_NAME.fullmatch(value):
            message = "is no valid cookie name (letters, digits, - and _; no spaces, at most 64)"
            raise ValueError(message)
        return value

    @field_validator("session_store")
    @classmethod
    def _store(cls, value: str) -> str:
        with as_value_error():
            open_store(value)
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            url = make_url("malformed://")
        driver = _ASYNC_DRIVERS.get(url.get_backend_name())
        if driver is None or url.drivername not in {url.get_backend_name(), f"{url.get_backend_name()}+{driver}"}:
            message = f"must begin with one of {', '.join(f'{name}+{d}://' for name, d in _ASYNC_DRIVERS.items())}"
            raise ValueError(message)
        if find_spec(driver) is None:
            message = f"needs the package {driver}: uv sync --extra {url.get_backend_name()}"
            raise ValueError(message)
        if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
            message = "must name a file: an in-memory SQLite database is visible to one connection only"
            raise ValueError(message)
        try:
            address_of(value)
        except ConfigurationError as error:
            raise ValueError(re.sub(r"of the \w+ session store ", "", str(error))) from None
        return f"{url.get_backend_name()}+{driver}:{value.partition(':')[2]}"

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.session_cookie or "").startswith(("__Host-", "__Secure-")) and self.public_url.startswith("http:"):
            message = "SESSION_COOKIE|browsers refuse a __Host- or __Secure- cookie while PUBLIC_URL is http"
            raise ValueError(message)
        try:
            OidcConfig(
                providers=[OidcProvider(issuer="https://any.example", client_id="any", client_secret=str)],
                public_url=self.public_url,
                sealing=SealingKeys([bytes(_MIN_SECRET)]),
                native_clients=self.native_clients,
                proxy=self.oidc_proxy.get_secret_value() if self.oidc_proxy else None,
                ca_file=self.oidc_ca_file,
            )
        except ConfigurationError as error:
            name = error.option if error.option in type(self).model_fields else f"oidc_{error.option}"
            message = f"{str(name).upper()}|{problem_in(error)}"
            raise ValueError(message) from None
        return self


def load_settings(env_file: Path | None = Path(".env"), **overrides: Any) -> Settings:  # noqa: ANN401 - any setting
    """Read the settings; `overrides` of a command line take precedence. In development, missing secrets are created in `var/`.

    Raises `SettingsError` naming each variable that is misspelt or invalid.
    """
    given = given_names(env_file)
    problems = misspelt(given, {name.upper() for name in Settings.model_fields} | numbered_names(given))
    debug = os.environ.get("LITESTAR_DEBUG", "0") == "1"  # set by `litestar run --debug`
    if debug:
        overrides.setdefault("app_debug", True)
    options: dict[str, Any] = {**overrides, "_env_file": env_file, "_env_file_encoding": "utf-8"}
    try:
        settings = Settings(**options)
        settings._further = further_providers(env_file, settings.oidc_providers_file)  # noqa: SLF001 - its own module
    except ValidationError as error:
        raise SettingsError([*problems, *map(_problem, error.errors(include_url=False, include_input=False))]) from None
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from None
    problems += _provider_problems(settings)
    if problems:
        raise SettingsError(problems)
    if settings.is_production:
        return settings
    settings = _with_generated_secrets(settings)
    for each in settings.providers:
        each.provider(allow_http=True)  # the embedded one too, now that it has a secret
    return settings


def _provider_problems(settings: Settings) -> list[Problem]:
    """Return the problems of the providers' settings."""
    problems: list[Problem] = []
    if settings.oidc_issuer != EMBEDDED_ISSUER:
        why = "is needed for the provider that OIDC_ISSUER names"
        problems += [Problem(name.upper(), why, example_of(name, Settings.model_fields)) for name in settings.missing()]
    elif settings.providers[0] is not settings:
        why = "is for the provider that OIDC_ISSUER names, and there is none beside the further ones"
        stray = sorted(set(ProviderSettings.model_fields) & settings.model_fields_set)
        problems += [Problem(name.upper(), why, example_of("oidc_issuer", Settings.model_fields)) for name in stray]
    if problems:
        return problems
    for each in settings.providers:
        # Production refuses the embedded provider; in development its secret is made later.
        if each.oidc_issuer != EMBEDDED_ISSUER:
            try:
                each.provider(allow_http=True)
            except SettingsError as error:
                problems += error.problems
    return problems


def _with_generated_secrets(settings: Settings) -> Settings:
    generated: dict[str, object] = {}
    try:
        if not settings.session_secrets:
            generated["session_secrets"] = (SecretStr(read_or_create(SESSION_SECRETS_FILE)),)
        if not settings.session_encryption_keys:
            generated["session_encryption_keys"] = (SecretStr(read_or_create(ENCRYPTION_KEYS_FILE)),)
        if settings.oidc_client_secret is None and settings.oidc_issuer == EMBEDDED_ISSUER:
            generated["oidc_client_secret"] = SecretStr(read_or_create(CLIENT_SECRET_FILE))
    except OSError as error:
        message = f"none is set and none can be made in var/ ({error.strerror or error})"
        raise SettingsError([Problem("SESSION_SECRETS", message, GENERATE)]) from None
    return settings.model_copy(update=generated)


def _problem(error: Any) -> Problem:  # noqa: ANN401 - pydantic's ErrorDetails
    """Convert an error of pydantic; its own text may repeat the value."""
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if error["loc"]:
        name = str(error["loc"][0])
    else:
        variable, _, message = message.partition("|")
        name = variable.lower()
    return Problem(name.upper(), message[:1].lower() + message[1:], example_of(name, Settings.model_fields))
