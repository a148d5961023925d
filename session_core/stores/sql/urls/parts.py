"""Splits the URL of a database. Independent of drivers."""

from __future__ import annotations

import re
from typing import Final, NoReturn
from urllib.parse import unquote

import msgspec

from session_core.errors import ConfigurationError

__all__ = ("MAX_PORT", "Options", "UrlParts", "malformed", "split_url")

_URL: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9]*)(?:\+(?P<driver>[a-z0-9]+))?://(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^/?#]*))?@)?"
    r"(?P<hosts>[^@/?#]*)(?:/(?P<database>[^?#]*))?(?:\?(?P<options>[^#]*))?\Z",
    re.ASCII,
)
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5})?)?\Z", re.ASCII)
MAX_PORT: Final = 65535
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def malformed(example: str) -> ConfigurationError:
    """Return the error for a URL that cannot be read; it quotes nothing, since any part may be the password."""
    return ConfigurationError(f"the URL of the session store is malformed; a good example: {example}")


class Options:
    """The options after `?`. Each is taken once, by name; options left over are refused.

    Raises `ConfigurationError` with the name of an option, never its value: that may be a password.
    """

    def __init__(self, text: str, database: str, *, repeatable: str = "") -> None:
        self._database = database
        self._given: dict[str, list[str]] = {}
        for part in filter(None, text.split("&")):
            name, _, value = part.partition("=")
            # As libpq reads it: a plus sign is no space.
            self._given.setdefault(unquote(name), []).append(unquote(value))
        for name, values in self._given.items():
            if len(values) > 1 and name != repeatable:
                self.refuse(name, "may be given once")

    def has(self, name: str) -> bool:
        """Whether an option was given and is not yet taken."""
        return name in self._given

    def take(self, name: str) -> str | None:
        """Return the value of an option; None where it is not given, or empty."""
        values = self._given.pop(name, None)
        return values[-1] or None if values else None

    def take_all(self, name: str) -> list[str]:
        """Return the values of an option that may be repeated."""
        return [value for value in self._given.pop(name, ()) if value]

    def take_one_of(self, name: str, *values: str, why: str = "") -> str | None:
        """Return the value of an option that must be one of `values`."""
        value = self.take(name)
        if value is not None and value not in values:
            self.refuse(name, f"must be one of {', '.join(values)}{why}")
        return value

    def take_flag(self, name: str) -> bool | None:
        """Return whether an option is switched on."""
        value = self.take(name)
        if value is None:
            return None
        if value.lower() not in _TRUE | _FALSE:
            self.refuse(name, "must be true or false")
        return value.lower() in _TRUE

    def take_number(self, name: str, *, least: int = 0) -> int | None:
        """Return the whole number of an option."""
        value = self.take(name)
        if value is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII) or int(value) < least:
            self.refuse(name, f"must be a whole number of at least {least}")
        return int(value)

    def refuse(self, name: str, reason: str) -> NoReturn:
        """Raise `ConfigurationError` for an option."""
        msg = f"the option {name} in the URL of the {self._database} session store {reason}"
        raise ConfigurationError(msg)

    def end(self, advice: dict[str, str]) -> None:
        """Refuse the first option that was not taken."""
        for name in self._given:
            known = name if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name, re.ASCII) else "with an unreadable name"
            self.refuse(known, advice.get(name, "is not known"))


class UrlParts(msgspec.Struct, frozen=True):
    """A split and percent-decoded URL."""

    scheme: str
    driver: str
    user: str | None
    password: str | None
    hosts: tuple[tuple[str, int | None], ...]
    database: str
    options: str
    """Not yet decoded."""

    def __repr__(self) -> str:
        """Hide the password."""
        return f"UrlParts(scheme={self.scheme!r}, hosts={self.hosts!r})"


def split_url(text: str, *, example: str) -> UrlParts:
    """Split a URL. Raises `ConfigurationError` if it is malformed."""
    found = _URL.match(text)
    if found is None:
        raise malformed(example)
    return UrlParts(
        scheme=found["scheme"],
        driver=found["driver"] or "",
        user=unquote(found["user"] or "") or None,
        password=unquote(found["password"]) if found["password"] is not None else None,
        hosts=split_hosts(found["hosts"], example),
        database=unquote(found["database"] or ""),
        options=found["options"] or "",
    )


def split_hosts(text: str, example: str) -> tuple[tuple[str, int | None], ...]:
    """Read `host:port,host:port`; a port may be missing, and a host may be the path of a socket."""
    hosts: list[tuple[str, int | None]] = []
    for part in filter(None, text.split(",")):
        if part.startswith("/"):
            hosts.append((part, None))
            continue
        found = _HOST.match(part)
        port = int(found["port"]) if found is not None and found["port"] else None
        if found is None or (port is not None and not 0 < port <= MAX_PORT):
            raise malformed(example)
        hosts.append((unquote(found["ipv6"] or found["name"]), port))
    return tuple(hosts)
