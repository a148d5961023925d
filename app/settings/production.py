"""Finds settings that are not fit for production; each finding names its variable, never its value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from app.settings.declared import example_of
from app.settings.report import Problem, SettingsError
from app.settings.settings import EMBEDDED_ISSUER, HAS_EMBEDDED_OP, Settings
from session_core.stores import open_store

if TYPE_CHECKING:
    from pydantic import SecretStr

    from app.settings.provider import ProviderSettings

__all__ = ("posture", "production_problems", "refuse_unfit")

_PLACEHOLDERS: Final = ("change", "default", "example", "secret", "password", "insecure", "development")
_MIN_DISTINCT: Final = 8
_MIN_CLIENT_SECRET: Final = 16
_WHY_NOT: Final = "it cannot compare and swap, so two processes could both use one login callback, and overwrite each other"
_REFUSED: Final = ("not_durable", "not_shared", "eventually_consistent", "late_writes")
"""Promises without which no store is for production (`StoreCapabilities.lost_promises`)."""


def production_problems(settings: Settings) -> list[Problem]:
    """Return everything that must change before these settings are fit for production."""
    problems = [Problem(name.upper(), problem, example_of(name, Settings.model_fields)) for name, problem in _findings(settings)]
    for each in settings.providers:
        problems += [Problem(each.name_of(name), why, each.example_of(name)) for name, why in _provider_findings(each)]
    return problems


def posture(settings: Settings) -> tuple[str, list[Problem], bool]:
    """Return for `litestar check` the environment, its invalid settings, and whether they are errors."""
    if not settings.is_production and not HAS_EMBEDDED_OP and settings.providers[0].oidc_issuer == EMBEDDED_ISSUER:
        unset = "is not set: name your OpenID provider, with OIDC_CLIENT_ID and OIDC_CLIENT_SECRET"
        return settings.app_env, [Problem("OIDC_ISSUER", unset, example_of("oidc_issuer", Settings.model_fields))], True
    return settings.app_env, production_problems(settings), settings.is_production


def refuse_unfit(settings: Settings) -> None:
    """Raise `SettingsError` when the settings are not fit for their environment."""
    if settings.is_production:
        problems = production_problems(settings)
    elif _is_weak(settings) and not settings.session_accept_weak_store:
        advice = "use another store, or in development SESSION_ACCEPT_WEAK_STORE=true"
        problems = [Problem("SESSION_STORE", f"the store has no atomic writes: {_WHY_NOT}", advice)]
    else:
        return
    if problems:
        raise SettingsError(problems)


def _is_weak(settings: Settings) -> bool:
    return not open_store(settings.session_store).capabilities.atomic


def _findings(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.app_debug:
        yield "app_debug", "debug pages show source code and variables to every visitor; switch it off in production"
    if not settings.public_url.startswith("https://"):
        yield "public_url", "must be https in production: anyone on the network path could read the session cookie"
    yield from _secret_findings("session_secrets", settings.session_secrets)
    yield from _secret_findings("session_encryption_keys", settings.session_encryption_keys)
    kind = urlsplit(settings.session_store).scheme
    lost = open_store(settings.session_store).capabilities.lost_promises()
    if kind == "file":
        yield "session_store", "the file store is not for production: use a database or Redis"
    elif "no_compare_and_swap" in lost:
        yield "session_store", f"the {kind} store is not for production: {_WHY_NOT}; use a database or Redis"
    elif why := next((lost[reason] for reason in _REFUSED if reason in lost), None):
        yield "session_store", f"the {kind} store is not for production: {why}; use a database or Redis"
    if settings.session_accept_weak_store:
        yield "session_accept_weak_store", f"not in production, where a weak store is refused: {_WHY_NOT}"


def _provider_findings(provider: ProviderSettings) -> Iterator[tuple[str, str]]:
    if provider.oidc_issuer.startswith("http://127.0.0.1:"):
        yield (
            "oidc_issuer",
            "the provider for development allows every visitor to sign in as any user; set your own provider in production",
        )
        return
    if not provider.oidc_issuer.startswith("https://"):
        yield "oidc_issuer", "must be https in production"
    if provider.has_shared_secret and (len(secret := provider.shared_secret()) < _MIN_CLIENT_SECRET or _is_placeholder(secret)):
        yield "oidc_client_secret", "looks like a placeholder, or is too short to be safe"


def _secret_findings(name: str, secrets: tuple[SecretStr, ...]) -> Iterator[tuple[str, str]]:
    if not secrets:
        yield name, "must be set in production: every process needs the same, and none may be generated"
    for number, secret in enumerate(secrets, 1):
        if _is_placeholder(secret.get_secret_value()):
            yield name, f"number {number} of {len(secrets)} looks like a placeholder, not like random bytes"


def _is_placeholder(secret: str) -> bool:
    # Random text has many distinct characters, almost never one of these words, and is not one repeated part.
    lowered = secret.lower()
    repeats = any(secret[period:] == secret[:-period] for period in range(1, len(secret) // 2 + 1))
    return repeats or len(set(secret)) < _MIN_DISTINCT or any(word in lowered for word in _PLACEHOLDERS)
