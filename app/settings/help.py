"""A good value for every setting, as shown when a bad one is refused."""

from __future__ import annotations

from typing import Final

__all__ = ("EXAMPLES",)

_GENERATE: Final = "make one with: uv run litestar sessions generate-secret"
EXAMPLES: Final = {
    "app_env": "for example APP_ENV=production",
    "app_debug": "for example APP_DEBUG=false",
    "app_log_level": "for example APP_LOG_LEVEL=INFO",
    "app_audit_days": "for example APP_AUDIT_DAYS=90",
    "app_traces": "for example APP_TRACES=true, with OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.example.org:4318",
    "app_metrics_key": _GENERATE,
    "app_metrics_address": "for example APP_METRICS_ADDRESS=127.0.0.1:9464",
    "app_count_seconds": "for example APP_COUNT_SECONDS=60, or 0 to count no sessions",
    "public_url": "for example PUBLIC_URL=https://app.example.org",
    "session_store": "for example SESSION_STORE=postgresql+asyncpg://app@db.example.org/app",
    "session_accept_weak_store": "for example SESSION_ACCEPT_WEAK_STORE=false",
    "session_secrets": _GENERATE,
    "session_encryption_keys": _GENERATE,
    "session_cookie": "for example SESSION_COOKIE=__Host-session",
    "session_idle_seconds": "for example SESSION_IDLE_SECONDS=3600",
    "session_absolute_seconds": "for example SESSION_ABSOLUTE_SECONDS=86400",
    "session_max_per_user": "for example SESSION_MAX_PER_USER=5, or 0 for no limit",
    "database_url": "for example DATABASE_URL=postgresql+asyncpg://app@db.example.org/app",
    "oidc_issuer": "for example OIDC_ISSUER=https://login.example.org",
    "oidc_client_id": "for example OIDC_CLIENT_ID=reference-app",
    "oidc_client_secret": "the secret that the provider issued with OIDC_CLIENT_ID",
    "oidc_scopes": "for example OIDC_SCOPES=openid profile email",
    "oidc_roles_claim": "for example OIDC_ROLES_CLAIM=realm_access.roles",
    "oidc_logout_token_typ": "for example OIDC_LOGOUT_TOKEN_TYP=strict",
    "oidc_step_up_prompt": "for example OIDC_STEP_UP_PROMPT=true",
    "oidc_verify_reauthentication": "for example OIDC_VERIFY_REAUTHENTICATION=false",
    "oidc_http_timeout_seconds": "for example OIDC_HTTP_TIMEOUT_SECONDS=5",
    "oidc_refresh_tokens_key": "make one with: uv run litestar sessions generate-secret",
    "limit_logins": "for example LIMIT_LOGINS=60, or 0 for no limit",
    "limit_forms": "for example LIMIT_FORMS=600, or 0 for no limit",
    "limit_anonymous": "for example LIMIT_ANONYMOUS=10000, or 0 for no limit",
    "limit_exempt": "for example LIMIT_EXEMPT=192.0.2.0/24",
    "trusted_proxies": "for example TRUSTED_PROXIES=10.0.0.0/8,192.0.2.7",
}
