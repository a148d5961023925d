"""Settings: every variable of the contract, errors that name the variable but not its value, generated secrets."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.settings.generated_secrets import read_or_create
from app.settings.production import production_problems, refuse_unfit
from app.settings.reference import env_example, with_table
from app.settings.report import SettingsError
from app.settings.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = {
    "APP_ENV": "development",
    "PUBLIC_URL": "http://localhost:8000",
    "SESSION_STORE": "sqlite+aiosqlite:///var/app.db",
    "SESSION_ACCEPT_WEAK_STORE": False,
    "SESSION_IDLE_SECONDS": 3600,
    "SESSION_ABSOLUTE_SECONDS": 86400,
    "SESSION_MAX_PER_USER": 0,
    "DATABASE_URL": "sqlite+aiosqlite:///var/app.db",
    "OIDC_ISSUER": "http://127.0.0.1:9000",
    "OIDC_SCOPES": "openid profile email",
    "OIDC_LOGOUT_TOKEN_TYP": "strict",
    "OIDC_STEP_UP_PROMPT": False,
    "OIDC_VERIFY_REAUTHENTICATION": True,
    "OIDC_HTTP_TIMEOUT_SECONDS": 5,
    "TRUSTED_PROXIES": (),
}
GOOD = "Jc7Wm2xTq9Lf4RzKp8Vd1NsYb6Hg3Ea0UoIiXkQwMtB"
PRODUCTION = {
    "APP_ENV": "production",
    "PUBLIC_URL": "https://app.example.org",
    "SESSION_SECRETS": GOOD,
    "SESSION_ENCRYPTION_KEYS": GOOD,
    "OIDC_ISSUER": "https://login.example.org",
    "OIDC_CLIENT_ID": "shop",
    "OIDC_CLIENT_SECRET": GOOD,
}


def problems_of(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, str]:
    """The error for these variables, by name."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        refuse_unfit(load_settings())
    for name, value in environment.items():
        if value and ("SECRET" in name or "KEYS" in name):
            assert value not in str(caught.value)
    return {problem.name: str(problem) for problem in caught.value.problems}


def test_defaults_are_as_documented() -> None:
    settings = load_settings()
    assert {name: getattr(settings, name.lower()) for name in CONTRACT} == CONTRACT
    assert settings.session_cookie is None


def test_env_example_and_the_reference_are_generated_from_the_settings() -> None:
    text = env_example()
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == text, "run: uv run just settings"
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert page == with_table(page), "run: uv run just settings"
    for name, field in Settings.model_fields.items():
        assert (field.description or "").endswith("."), f"{name} has no description"
    assert sorted(re.findall(r"(?m)^#?([A-Z_]+)=", text)) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("APP_ENV", "prod", "'development' or 'production'"),
        ("PUBLIC_URL", "localhost:8000", "http or https"),
        ("PUBLIC_URL", "http://localhost:8000/a//b", "letters, digits"),
        ("PUBLIC_URL", "http://user:hunter2@localhost", "without user name"),
        ("PUBLIC_URL", "http://localhost:99999", "http or https"),
        ("SESSION_STORE", "nosuch://user:hunter2@host/x", "no session store matches"),
        ("SESSION_STORE", "memory", "no session store matches"),
        ("SESSION_SECRETS", "too-short-a-secret", "18 bytes, at least 32"),
        ("SESSION_ENCRYPTION_KEYS", "not-a-key-of-32-bytes", "not 32 bytes in base64url"),
        ("SESSION_COOKIE", "a b", "no valid cookie name"),
        ("SESSION_COOKIE", "__Host-session", "PUBLIC_URL is http"),
        ("SESSION_IDLE_SECONDS", "an hour", "integer"),
        ("SESSION_IDLE_SECONDS", "0", "greater than 0"),
        ("SESSION_ABSOLUTE_SECONDS", "316224001", "less than or equal to 316224000"),
        ("SESSION_ABSOLUTE_SECONDS", "-1", "greater than 0"),
        ("SESSION_MAX_PER_USER", "-1", "greater than or equal to 0"),
        ("DATABASE_URL", "oracle://user:hunter2@host/x", "must begin with one of"),
        ("DATABASE_URL", "postgresql+psycopg2://host/x", "must begin with one of"),
        ("DATABASE_URL", "sqlite+aiosqlite://", "must name a file"),
        ("DATABASE_URL", "postgresql://user:hunter2@host/x?schema=hunter2", "the option schema in the URL is Prisma's"),
        ("DATABASE_URL", "mysql+asyncmy://user:hunter2@host/x?nosuch=hunter2", "the option nosuch in the URL is not known"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2@host:port/x", "must begin with one of"),
        ("OIDC_PROXY", "http://user:hunter2@proxy.example:99999", "address of an HTTP proxy"),
        ("OIDC_PROXY", "http://pröxy.example", "address of an HTTP proxy"),
        ("OIDC_CA_FILE", "absent.pem", "readable file of certificates"),
        ("OIDC_METADATA_URL", "https://login.example.org:99999/", "must be an https URL"),
        ("OIDC_END_SESSION_ENDPOINT", "https://login.example.org/ä", "must be an https URL"),
        ("NATIVE_CLIENTS", "desktop", "pairs of id and redirect URI"),
        ("NATIVE_CLIENTS", "desktop http://localhost/callback", "redirect URIs of the native client desktop"),
        ("OIDC_ISSUER", "login.example.org", "http or https"),
        ("OIDC_SCOPES", "profile email", "must contain the scope openid"),
        ("OIDC_LOGOUT_TOKEN_TYP", "lax", "'strict' or 'if_present'"),
        ("OIDC_HTTP_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,proxy", "addresses or networks"),
    ],
)
def test_an_invalid_value_is_refused_by_name_with_a_valid_example(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    refused = problems_of(monkeypatch, **{name: value})
    assert list(refused) == [name]
    assert words in refused[name]
    assert re.search(r"for example [A-Z_]+=|make one with", refused[name])
    assert "hunter2" not in refused[name]


def test_a_native_client_must_not_lead_back_to_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    own = "https://app.example.org"
    refused = problems_of(monkeypatch, PUBLIC_URL=own, NATIVE_CLIENTS=f"mobile {own}/callback")
    assert list(refused) == ["NATIVE_CLIENTS"]
    assert "must not be on the application itself" in refused["NATIVE_CLIENTS"]


def test_a_driver_that_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.settings.settings.find_spec", lambda name: None if name == "asyncpg" else name)
    refused = problems_of(monkeypatch, DATABASE_URL="postgresql://app:hunter2@db.example.org/app")
    assert refused["DATABASE_URL"].startswith("DATABASE_URL: needs the package asyncpg: uv sync --extra postgresql (")
    assert "hunter2" not in refused["DATABASE_URL"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SESSION_SECRET", "SESSION_SECRETS"),
        ("SESSION_IDLE", "SESSION_IDLE_SECONDS"),
        ("OIDC_CLIENTID", "OIDC_CLIENT_ID"),
        ("APP_ENVIRONMENT", "APP_ENV"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_misspelt_name_is_refused_in_environment_and_file(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str, place: str
) -> None:
    if place == ".env":
        Path(".env").write_text(f"{name}=value-of-the-setting\n")
        refused = problems_of(monkeypatch)
    else:
        refused = problems_of(monkeypatch, **{name: "value-of-the-setting"})
    assert list(refused) == [name]
    assert f"did you mean {meant}?" in refused[name]
    assert "value-of-the-setting" not in refused[name]


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SESSION_MANAGER", "APP_SERVICE_HOST", "APP_PORT", "OIDC_PORT_9000_TCP_ADDR", "HOME_URL", "DATABASE"):
        monkeypatch.setenv(name, "x")
    assert load_settings().app_env == "development"


def test_the_env_file_is_read_and_the_environment_has_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SESSION_MAX_PER_USER=3\nPUBLIC_URL=http://localhost:8001\n")
    monkeypatch.setenv("SESSION_MAX_PER_USER", "5")
    settings = load_settings()
    assert (settings.session_max_per_user, settings.public_url) == (5, "http://localhost:8001")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"PUBLIC_URL\n"])
def test_an_unreadable_env_file_is_reported_in_one_line(content: bytes) -> None:
    Path(".env").write_bytes(content)
    with pytest.raises(SettingsError):
        load_settings()


def test_an_external_provider_needs_a_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = problems_of(monkeypatch, OIDC_ISSUER="https://login.example.org")
    assert list(refused) == ["OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"]


def test_secrets_are_generated_once_and_kept_private() -> None:
    first, second = load_settings(), load_settings()
    assert first.session_secrets == second.session_secrets
    assert first.session_encryption_keys == second.session_encryption_keys
    for file in Path("var").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path("var").stat().st_mode) == 0o700
    shown = repr(first) + str(first)
    assert first.session_secrets[0].get_secret_value() not in shown


def test_workers_that_start_together_share_one_secret(tmp_path: Path) -> None:
    file = tmp_path / "var" / "secret"
    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(lambda _: read_or_create(file), range(64)))
    assert len(secrets) == 1
    assert [entry.name for entry in file.parent.iterdir()] == ["secret"]


def test_valid_production_settings_pass_and_generate_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert production_problems(settings) == []
    refuse_unfit(settings)
    assert not Path("var").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PUBLIC_URL", "http://app.example.org", "must be https"),
        ("SESSION_SECRETS", "", "must be set"),
        ("SESSION_SECRETS", "change-me-change-me-change-me-change-me", "placeholder"),
        ("SESSION_SECRETS", "12345678901234567890123456789012", "placeholder"),
        ("SESSION_SECRETS", "a" * 64, "placeholder"),
        ("SESSION_SECRETS", f"{GOOD},my-secret-my-secret-is-quite-long-yes", "number 2 of 2"),
        ("SESSION_SECRETS", "short", "at least 32"),
        ("SESSION_ENCRYPTION_KEYS", "", "must be set"),
        ("SESSION_ENCRYPTION_KEYS", "A" * 43, "placeholder"),
        ("SESSION_STORE", "memory://", "memory store is not for production: sessions may be gone"),
        ("SESSION_STORE", "memcached://cache.example.org", "memcached store is not for production: sessions may be gone"),
        ("SESSION_STORE", "keyvalue+memory://", "cannot compare and swap"),
        ("SESSION_STORE", "file:///tmp/sessions", "file store"),
        ("SESSION_STORE", "https://storage.example.org/sessions", "cannot compare and swap"),
        ("SESSION_STORE", "keyvalue+disk:///tmp/sessions", "cannot compare and swap"),
        ("SESSION_ACCEPT_WEAK_STORE", "true", "not in production"),
        ("OIDC_ISSUER", "", "provider for development"),
        ("OIDC_ISSUER", "http://127.0.0.1:9000", "provider for development"),
        ("OIDC_ISSUER", "http://login.example.org", "must be https"),
        ("OIDC_CLIENT_SECRET", "change-me-please-now", "placeholder"),
        ("OIDC_CLIENT_SECRET", "s3cr3t", "placeholder"),
        ("APP_DEBUG", "true", "switch it off"),
        ("LITESTAR_DEBUG", "1", "switch it off"),
    ],
)
def test_unfit_settings_are_refused_in_production(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    refused = problems_of(monkeypatch, **{**PRODUCTION, name: value})
    expected = "APP_DEBUG" if name == "LITESTAR_DEBUG" else name
    assert list(refused) == [expected]
    assert words in refused[expected]


@pytest.mark.parametrize(
    "store",
    ["dynamodb://sessions?region=eu-central-1", "s3://bucket/sessions", "azure-tables://sessions", "mongodb://db.example.org/app",
     "redis://redis.example.org", "postgresql://app@db.example.org/app", "sqlite:///var/app.db"],
)  # fmt: skip
def test_production_accepts_the_stores_that_keep_every_guarantee(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    for name, value in {**PRODUCTION, "SESSION_STORE": store}.items():
        monkeypatch.setenv(name, value)
    assert production_problems(load_settings()) == []


WEAK = [
    "https://storage.example.org/sessions",
    "keyvalue+filetree:///tmp/sessions",
    "cloudflare-kv://:token@0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("store", WEAK)
def test_a_weak_store_in_development_must_be_accepted_explicitly(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    refused = problems_of(monkeypatch, SESSION_STORE=store)
    assert list(refused) == ["SESSION_STORE"]
    assert "SESSION_ACCEPT_WEAK_STORE=true" in refused["SESSION_STORE"]
    monkeypatch.setenv("SESSION_ACCEPT_WEAK_STORE", "true")
    refuse_unfit(load_settings())


@pytest.mark.parametrize("store", WEAK)
def test_production_refuses_a_weak_store_even_when_accepted(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    given = {**PRODUCTION, "SESSION_STORE": store, "SESSION_ACCEPT_WEAK_STORE": "true"}
    assert list(problems_of(monkeypatch, **given)) == ["SESSION_STORE", "SESSION_ACCEPT_WEAK_STORE"]


SERVE = ["-c", "from app.cli import serve; raise SystemExit(serve([]))"]


@pytest.mark.parametrize("command", [["-m", "litestar", "--app", "app:create_app", "routes"], SERVE])
def test_a_refused_setting_is_one_line_without_traceback(tmp_path: Path, command: list[str]) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "SESSION_IDEL_SECONDS": "60"}
    result = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert result.returncode == 1
    line = (
        "error: SESSION_IDEL_SECONDS: is set in the environment but is no setting of this application "
        "(did you mean SESSION_IDLE_SECONDS?)"
    )
    assert result.stderr.splitlines() == [line]
