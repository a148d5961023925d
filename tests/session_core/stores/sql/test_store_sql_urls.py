"""Parsing of PostgreSQL and MySQL URLs as hosting providers and client libraries write them; no connections."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from session_core.errors import ConfigurationError
from session_core.stores.opening import open_store
from session_core.stores.sql.store import SqlStore
from session_core.stores.sql.urls.mysql import parse_mysql_url
from session_core.stores.sql.urls.postgresql import parse_postgresql_url
from tests.session_core.stores.redis.redis_faults import certificate_for_loopback

SECRET = "verysecret"
PG = f"postgresql://user:{SECRET}@host/db"
MY = f"mysql://user:{SECRET}@host/db"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without certificates."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        f"oracle://user:{SECRET}@host/db",
        f"sqlite://{SECRET}",
        f"postgresql+psycopg2://user:{SECRET}@host/db",
        f"postgresql+nonsense://user:{SECRET}@host/db",
        f"mysql+pymysql://user:{SECRET}@host/db",
        f"postgresql://user:{SECRET}@host:port/db",
        f"postgresql://user:{SECRET}@host:99999/db",
        f"postgresql://user:{SECRET}@ho[st/db",
        f"postgresql://user:{SECRET}#x@host/db#fragment",
        f"postgresql:/user:{SECRET}@host/db",
        f"mysql://user:{SECRET}@host",
        f"mysql://user:{SECRET}@one,two/db",
        f"{PG}?port=1,2",
        f"{PG}?port={SECRET}",
        f"{PG}?sslmode={SECRET}",
        f"{PG}?{SECRET}%00=1",
        f"{PG}?nonsense={SECRET}",
    ],
)
def test_an_invalid_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SqlStore(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in str(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgres+asyncpg", "mysql", "mariadb", "mysql+asyncmy"]
)
def test_every_scheme_of_hosting_providers_is_accepted(scheme: str) -> None:
    assert isinstance(open_store(f"{scheme}://user:password@host/db"), SqlStore)


def arguments(url: str) -> dict[str, Any]:
    return parse_postgresql_url(url).arguments


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://host/db", ["host"], [5432]),
        ("postgresql://host:6543/db", ["host"], [6543]),
        ("postgresql://[::1]:6543/db", ["::1"], [6543]),
        ("postgresql://one:1,two:2/db", ["one", "two"], [1, 2]),
        ("postgresql://one,two/db?port=7", ["one", "two"], [7, 7]),
        ("postgresql://one,two/db?port=7,8", ["one", "two"], [7, 8]),
        ("postgresql:///db?host=one:1&host=two:2", ["one", "two"], [1, 2]),
        ("postgresql:///db?host=/var/run/postgresql&port=7", ["/var/run/postgresql"], [7]),
        ("postgresql://%2Fvar%2Frun/db", ["/var/run"], [5432]),
        ("postgresql:///db", None, None),
    ],
)
def test_the_address_of_a_postgresql_is_parsed(url: str, host: list[str] | None, port: list[int] | None) -> None:
    found = arguments(url)
    assert (found["host"], found["port"], found["database"]) == (host, port, "db")


@pytest.mark.parametrize(
    ("credentials", "user", "password"),
    [
        ("user:p%40ss%2F%3A", "user", "p@ss/:"),
        ("user:p@ss", "user", "p@ss"),
        ("user:a:b", "user", "a:b"),
        ("us%40er", "us@er", None),
        ("user:", "user", None),
        ("user:%2B+", "user", "++"),
    ],
)
def test_the_user_and_password_of_a_url_are_decoded(credentials: str, user: str, password: str | None) -> None:
    """A password may contain unescaped `@` and `:`."""
    found = arguments(f"postgresql://{credentials}@host/db")
    assert (found["host"], found["user"], found["password"] or None) == (["host"], user, password)
    mysql = parse_mysql_url(f"mysql://{credentials}@host/db").arguments
    assert (mysql["host"], mysql["user"], mysql["password"].decode() or None) == ("host", user, password)


def test_server_settings_are_passed_on() -> None:
    found = arguments(f"{PG}?application_name=web&options=-c%20search_path%3Dsessions")
    assert found["server_settings"] == {"application_name": "web", "options": "-c search_path=sessions"}
    assert arguments(f"{PG}?fallback_application_name=web")["server_settings"] == {"application_name": "web"}
    assert arguments(f"{PG}?fallback_application_name=a&application_name=b")["server_settings"] == {"application_name": "b"}
    assert arguments(PG)["server_settings"] == {}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        *(("sslmode=disable&ssl=true", "ssl"), ("ssl=prefer&sslmode=require", "ssl")),
        *((f"port={port}", "port") for port in (70000, 0, -1)),
        *(("sslkey=/k", "sslmode"), ("sslcrl=/c", "sslmode"), ("sslpassword=p", "sslmode")),
        *((f"{name}=x", name) for name in ("host", "user", "password", "dbname")),
        ("ssl_min_protocol_version=TLSv1.3&sslmode=prefer", "sslmode"),
    ],
)
def test_options_that_contradict_or_cannot_be_are_refused_by_name(options: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the option {name} "):
        parse_postgresql_url(f"{PG}?{options}")
    assert isinstance(arguments(f"{PG}?sslmode=require&ssl=true")["ssl"], ssl.SSLContext)
    with pytest.raises(ConfigurationError, match="client certificate"):
        parse_postgresql_url(f"{PG}?sslmode=require&sslkey=/k")


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_optional_tls_is_left_to_the_driver(mode: str) -> None:
    assert arguments(f"{PG}?sslmode={mode}")["ssl"] == mode
    assert arguments(f"{PG}?ssl={mode}")["ssl"] == mode
    assert "ssl" not in arguments(PG)


def tls_of(found: dict[str, Any]) -> tuple[ssl.VerifyMode, bool]:
    context = found["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    return context.verify_mode, context.check_hostname


def test_tls_options_are_read_as_by_libpq(home: Path) -> None:
    roots, key = certificate_for_loopback(home)
    assert tls_of(arguments(f"{PG}?sslmode=require")) == (ssl.CERT_NONE, False)
    assert tls_of(arguments(f"{PG}?sslmode=require&sslrootcert={roots}")) == (ssl.CERT_REQUIRED, False)
    assert tls_of(arguments(f"{PG}?sslmode=verify-ca&sslrootcert={roots}")) == (ssl.CERT_REQUIRED, False)
    assert tls_of(arguments(f"{PG}?sslmode=verify-full&sslrootcert={roots}")) == (ssl.CERT_REQUIRED, True)
    assert tls_of(arguments(f"{PG}?sslmode=verify-full&sslrootcert=system")) == (ssl.CERT_REQUIRED, True)
    assert tls_of(arguments(f"{PG}?sslrootcert=system")) == (ssl.CERT_REQUIRED, True)
    assert tls_of(arguments(f"{PG}?sslmode=require&sslcert={roots}&sslkey={key}")) == (ssl.CERT_NONE, False)
    assert arguments(f"{PG}?sslmode=require&sslnegotiation=direct")["direct_tls"] is True
    latest = arguments(f"{PG}?sslmode=require&ssl_min_protocol_version=TLSv1.3")["ssl"]
    assert latest.minimum_version == ssl.TLSVersion.TLSv1_3
    (home / ".postgresql").mkdir()
    Path(roots).rename(home / ".postgresql" / "root.crt")
    assert tls_of(arguments(f"{PG}?sslmode=verify-full")) == (ssl.CERT_REQUIRED, True)


def test_channel_binding_requires_a_verified_server(home: Path) -> None:
    neon = f"{PG}?sslmode=require&channel_binding=require"
    roots, _ = certificate_for_loopback(home)
    for url in (neon, f"{PG}?channel_binding=require", f"{neon}&sslrootcert={roots}"):
        assert tls_of(arguments(url)) == (ssl.CERT_REQUIRED, True)
    assert arguments(f"{neon}&sslrootcert={roots}")["ssl"].cert_store_stats()["x509"] == 1
    (home / ".postgresql").mkdir()
    Path(roots).rename(home / ".postgresql" / "root.crt")
    assert arguments(neon)["ssl"].cert_store_stats()["x509"] == 1


def test_socket_options_are_set() -> None:
    found = parse_postgresql_url(f"{PG}?keepalives_idle=30&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=1000")
    assert found.socket_options == {
        socket.TCP_KEEPIDLE: 30,
        socket.TCP_KEEPINTVL: 10,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 1000,
    }
    assert parse_postgresql_url(f"{PG}?keepalives=0").socket_options == {socket.SO_KEEPALIVE: 0}
    assert parse_postgresql_url(f"{PG}?keepalives=1").socket_options == {}


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("", None),
        ("prepared_statements=auto", None),
        ("prepared_statements=on", True),
        ("prepared_statements=off", False),
        ("pgbouncer=true", False),
        ("prepared_statement_cache_size=0", False),
        ("statement_cache_size=0", False),
        ("prepared_statement_cache_size=500", None),
    ],
)
def test_which_urls_use_prepared_statements(option: str, named: bool | None) -> None:
    assert parse_postgresql_url(f"{PG}?{option}").named_statements is named


def test_the_options_of_the_store() -> None:
    assert parse_postgresql_url(f"{PG}?connect_timeout=3&pool_size=4").timeout == 3
    assert parse_postgresql_url(f"{PG}?connect_timeout=0").timeout > 1000
    assert SqlStore(f"{PG}?pool_size=4")._database._pool_size == 4
    assert SqlStore(f"{MY}?pool_size=4", pool_size=7)._database._pool_size == 4
    assert SqlStore(MY, pool_size=7)._database._pool_size == 7


@pytest.mark.parametrize(
    "option",
    [
        "target_session_attrs=any",
        "channel_binding=prefer",
        "gssencmode=disable",
        "client_encoding=utf8",
        "sslsni=1",
        "sslmode=",
        "krbsrvname=postgres",
        "passfile=/home/user/.pgpass",
        "load_balance_hosts=disable",
    ],
)
def test_options_with_their_default_meaning_are_accepted(option: str) -> None:
    assert parse_postgresql_url(f"{PG}?{option}").arguments["host"] == parse_postgresql_url(PG).arguments["host"]


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("channel_binding=require&sslmode=disable", "channel_binding"),
        ("channel_binding=require&sslmode=prefer", "channel_binding"),
        ("channel_binding=sometimes", "channel_binding"),
        ("gssencmode=require", "gssencmode"),
        ("require_auth=scram-sha-256", "require_auth"),
        ("hostaddr=127.0.0.1", "hostaddr"),
        ("replication=database", "replication"),
        ("sslmode=verify-full", "sslmode"),
        ("sslmode=verify_full", "sslmode"),
        ("sslmode=require&sslmode=disable", "sslmode"),
        ("sslmode=prefer&sslrootcert=/ca.pem", "sslmode"),
        ("sslmode=require&sslrootcert=system", "sslrootcert"),
        ("sslmode=require&sslcert=/missing.pem", "client certificate"),
        ("sslmode=verify-full&sslrootcert=/missing.pem", "certificate authorities"),
        ("ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version"),
        ("client_encoding=latin1", "client_encoding"),
        ("target_session_attrs=nonsense", "target_session_attrs"),
        ("connect_timeout=soon", "connect_timeout"),
        ("keepalives=perhaps", "keepalives"),
        ("keepalives_idle=-5", "keepalives_idle"),
        ("pool_size=0", "pool_size"),
        ("prepared_statements=sometimes", "prepared_statements"),
        ("connection_limit=1", "connection_limit"),
        ("schema=sessions", "schema"),
        ("command_timeout=5", "command_timeout"),
        ("foo=1", "foo"),
    ],
)
def test_options_unsupported_by_the_driver_are_refused_by_name(home: Path, option: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        SqlStore(f"{PG}?{option}")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("ssl=true", (ssl.CERT_REQUIRED, True)),
        ("sslaccept=strict", (ssl.CERT_REQUIRED, True)),
        ("sslaccept=accept_invalid_certs", (ssl.CERT_NONE, False)),
        ("ssl-mode=REQUIRED", (ssl.CERT_NONE, False)),
        ("ssl-mode=VERIFY_CA", (ssl.CERT_REQUIRED, False)),
        ("ssl_mode=verify_identity", (ssl.CERT_REQUIRED, True)),
        ('ssl={"rejectUnauthorized":true}', (ssl.CERT_REQUIRED, True)),
        ("ssl=%7B%22rejectUnauthorized%22%3Afalse%7D", (ssl.CERT_NONE, False)),
        ("ssl_verify_cert=true", (ssl.CERT_REQUIRED, False)),
        ("ssl_verify_cert=true&ssl_verify_identity=true", (ssl.CERT_REQUIRED, True)),
        ("sslaccept=accept_invalid_certs&ssl-mode=VERIFY_IDENTITY", (ssl.CERT_REQUIRED, True)),
    ],
)
def test_tls_options_of_mysql_decide_the_verification(option: str, expected: tuple[ssl.VerifyMode, bool]) -> None:
    """The strictest of the given options applies."""
    assert tls_of(parse_mysql_url(f"{MY}?{option}").arguments) == expected


@pytest.mark.parametrize("option", ["sslaccept=strict", 'ssl={"rejectUnauthorized":true}'])
def test_the_url_shown_by_planetscale_is_accepted_and_verified(option: str) -> None:
    arguments = parse_mysql_url(f"mysql://name:pscale_pw_secret@aws.connect.psdb.cloud/shop?{option}").arguments
    assert (arguments["host"], arguments["port"], arguments["database"]) == ("aws.connect.psdb.cloud", 3306, "shop")
    assert tls_of(arguments) == (ssl.CERT_REQUIRED, True)


def test_certificates_for_mysql_are_loaded(tmp_path: Path) -> None:
    roots, key = certificate_for_loopback(tmp_path)
    assert tls_of(parse_mysql_url(f"{MY}?ssl_ca={roots}").arguments) == (ssl.CERT_REQUIRED, True)
    assert tls_of(parse_mysql_url(f"{MY}?ssl-ca={roots}&ssl-mode=VERIFY_CA").arguments) == (ssl.CERT_REQUIRED, False)
    assert tls_of(parse_mysql_url(f"{MY}?ssl_cert={roots}&ssl_key={key}").arguments) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("option", ["", "ssl=false", "ssl-mode=DISABLED"])
def test_mysql_without_tls_options_uses_no_tls(option: str) -> None:
    assert parse_mysql_url(f"{MY}?{option}").arguments["ssl"] is None


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("ssl-mode=PREFERRED", "ssl-mode"),
        ("ssl=maybe", "ssl"),
        ("ssl-key=/k", "client certificate"),
        ('ssl={"ca":"x"}', "ssl"),
        ("sslaccept=perhaps", "sslaccept"),
        ("ssl_ca=/missing.pem", "certificate authorities"),
        ("charset=latin1", "charset"),
        ("connect_timeout=0", "connect_timeout"),
        ("foo=1", "foo"),
    ],
)
def test_options_unsupported_by_the_mysql_driver_are_refused_by_name(option: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        SqlStore(f"{MY}?{option}")


@pytest.mark.parametrize("url", [f"{PG}?sslmode=require", f"{MY}?ssl=true"])
def test_no_repr_shows_the_password(url: str) -> None:
    store = SqlStore(url)
    address = store._database.driver._address  # type: ignore[attr-defined]
    assert SECRET not in repr(address) + repr(store) + repr(store._database.driver)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://app:hunter2@db.example:5432/web?no_such_option=hunter2", "postgresql://app:***@db.example:5432"),
        ("mysql://app:hunter2@db.example/web?ssl_mode=hunter2", "mysql://app:***@db.example"),
        ("redis://:hunter2@cache.example/hunter2", "redis://:***@cache.example"),
        ("valkey://hunter2@cache.example/0", "valkey://***@cache.example"),
        ("redis://app:hunter2@cache.example:port/0", "redis://app:***@***"),
        ("mongodb://app:hunter2@/web", "mongodb://app:***@"),
    ],
)
def test_a_refused_url_is_quoted_without_its_password_and_path(url: str, shown: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_store(url)
    assert str(refused.value).endswith(f"(in {shown})")
    assert "hunter2" not in str(refused.value)
