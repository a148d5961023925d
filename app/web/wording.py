"""Readable texts for events, devices, times and languages. Pure functions; in English except for greetings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from app.data.audit import COMMAND_LINE

if TYPE_CHECKING:
    from app.data.audit import AuditEntry

__all__ = ("LANGUAGES", "DeviceName", "address", "device", "duration", "greeting", "iso", "origin", "place", "stamp", "story")

LANGUAGES: Final = (
    ("en", "English"),
    ("de", "Deutsch"),
    ("es", "Español"),
    ("fr", "Français"),
    ("it", "Italiano"),
    ("nl", "Nederlands"),
    ("pl", "Polski"),
    ("pt", "Português"),
)
_GREETINGS: Final = {
    "en": "Hello",
    "de": "Guten Tag",
    "es": "Hola",
    "fr": "Bonjour",
    "it": "Buongiorno",
    "nl": "Goedendag",
    "pl": "Dzień dobry",
    "pt": "Olá",
}
_STORIES: Final = {
    "login.started": ("Went to the identity provider to log in", ""),
    "login.succeeded": ("Logged in; the session got a new id", "good"),
    "login.failed": ("A login was refused", "bad"),
    "logout.local": ("Logged out here", ""),
    "logout.backchannel": ("The identity provider ended the login", ""),
    "logout.rejected": ("A logout message was refused", "bad"),
    "session.created": ("A session began", "good"),
    "session.regenerated": ("The session got a new id; the old one is invalid", "good"),
    "session.destroyed": ("The session was ended", ""),
    "session.revoked": ("A session was signed out on another device", "bad"),
    "session.evicted": ("The oldest session was ended by a new login", "bad"),
    "session.gone": ("A request came too late: its session had ended", ""),
    "session.conflict": ("Two requests changed the same field; the later was refused", "bad"),
    "session.undecodable": ("A stored session could not be read and was ignored", "bad"),
    "request.cross_site": ("A request from another site was refused", "bad"),
    "access.denied": ("A page was refused", "bad"),
    "impersonation.started": ("An administrator logged in as this user", "bad"),
    "impersonation.ended": ("The administrator who was logged in as this user left", ""),
    "user.disabled": ("An administrator disabled the account", "bad"),
    "user.enabled": ("An administrator enabled the account", "good"),
    "user.signed_out": ("An administrator signed the account out everywhere", "bad"),
}
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
_MINUTE, _DAY = 60, 86400


class DeviceName(NamedTuple):
    """The name of a device in a list."""

    name: str
    icon: str


def greeting(language: str) -> tuple[str, str]:
    """Return a greeting and the language it is in."""
    code = language.replace("_", "-").partition("-")[0].lower()
    return (_GREETINGS[code], code) if code in _GREETINGS else (_GREETINGS["en"], "en")


def story(entry: AuditEntry) -> tuple[str, str]:
    """Return the description of an audit entry, and its tone: `good`, `bad` or empty."""
    text, tone = _STORIES.get(entry.event, (entry.event, ""))
    return (text if entry.count == 1 else f"{text} ({entry.count} times)"), tone


def place(entry: AuditEntry) -> str:
    """Return the origin of an audit entry for its user, without the location of an administrator."""
    if entry.actor is not None:
        return "by the command line" if entry.actor == COMMAND_LINE else "by an administrator"
    return origin(entry)


def origin(entry: AuditEntry) -> str:
    """Return the origin of an audit entry for administrators."""
    client = device(entry.user_agent).name if entry.user_agent else ""
    parts = [client, address(entry.ip) if entry.ip else "", (entry.reason or "").replace("_", " ")]
    return " · ".join(filter(None, parts))


def address(ip: str) -> str:
    """Return a readable form of an IP address."""
    return "this computer" if ip in {"127.0.0.1", "::1"} else ip or "unknown address"


def device(user_agent: str) -> DeviceName:
    """Return a short name for a User-Agent, as a hint for its owner."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
    if browser is None:
        return DeviceName(user_agent.partition("/")[0][:40] or "Unknown client", "terminal")
    icon = "phone" if system in {"Android", "iPhone", "iPad"} else "screen"
    return DeviceName(f"{browser} on {system}" if system else browser, icon)


def duration(milliseconds: int) -> str:
    """Return a length of time in its one or two largest units."""
    seconds = max(0, milliseconds) // 1000
    if seconds < _MINUTE:
        return f"{seconds} s"
    if round(seconds / _MINUTE) < _MINUTE:
        return f"{round(seconds / _MINUTE)} min"
    if seconds < 2 * _DAY:
        hours, rest = divmod(round(seconds / _MINUTE), 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{seconds // _DAY} days"


def iso(milliseconds: int) -> str:
    """Return a Unix time in ISO 8601."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat(timespec="seconds")


def stamp(milliseconds: int) -> str:
    """Return a Unix time in full, in UTC."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, tz=UTC):%d %B %Y, %H:%M:%S} UTC"
