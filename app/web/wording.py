"""Readable texts for events, devices, times and languages. Pure functions; in English except for greetings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from app.data.audit import COMMAND_LINE, AuditEntry
from app.web.reasons import because

__all__ = (
    "EVENTS",
    "LANGUAGES",
    "Activity",
    "DeviceName",
    "activities",
    "actor",
    "address",
    "device",
    "duration",
    "greeting",
    "iso",
    "methods",
    "origin",
    "place",
    "stamp",
    "story",
    "who",
)

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
    "login.succeeded": ("Logged in", "good"),
    "login.new_device": ("Logged in on a new device", ""),
    "login.failed": ("A login failed", "bad"),
    "login.silent_failed": ("An automatic login was not possible", ""),
    "logout.local": ("Logged out", ""),
    "logout.backchannel": ("The identity provider ended the login", ""),
    "logout.rejected": ("A logout message was refused", "bad"),
    "session.created": ("A session began", "good"),
    "session.regenerated": ("The session got a new id", "good"),
    "session.destroyed": ("The session was ended", ""),
    "session.revoked": ("Signed out from elsewhere", "bad"),
    "session.revocation_failed": ("Signing out from elsewhere was interrupted; some devices may be signed out", "bad"),
    "session.evicted": ("Signed out, because too many devices were logged in", "bad"),
    "session.gone": ("A request came too late: its session had ended", ""),
    "session.conflict": ("Two tabs changed the same value; the later change was refused", "bad"),
    "session.undecodable": ("A stored session could not be read and was ignored", "bad"),
    "session.unsaved": ("A change came too late and was not saved", "bad"),
    "connection.closed": ("An open connection was closed with its session", ""),
    "access.denied": ("A page was refused", "bad"),
    "impersonation.started": ("An administrator logged in as this user", "bad"),
    "impersonation.ended": ("The administrator who was logged in as this user left", ""),
    "tokens.refreshed": ("The access to the provider was renewed", ""),
    "tokens.refresh_failed": ("The access to the provider could not be renewed", "bad"),
    "tokens.revocation_failed": ("The provider did not confirm that its access tokens ended", "bad"),
    "user.disabled": ("The account was disabled", "bad"),
    "user.enabled": ("The account was enabled", "good"),
    "user.signed_out": ("The account was signed out everywhere", "bad"),
}
EVENTS: Final = {event: text for event, (text, _) in _STORIES.items()}
"""The text of each event of the trail."""
_BY_ACTOR: Final = frozenset({"administrator", "operator"})
"""Reasons that only say who did it."""
_ENDED: Final = frozenset({"session.revoked", "session.evicted"})
_REFUSED: Final = frozenset({"access.denied", "login.failed", "logout.rejected", "session.conflict", "session.gone"})
"""Events that a client can repeat in any number; equal lines of them are counted."""
_METHODS: Final = {
    "face": "face recognition",
    "fpt": "fingerprint",
    "geo": "location",
    "hwk": "hardware key",
    "iris": "iris scan",
    "kba": "security question",
    "mca": "a message to another device",
    "mfa": "several factors",
    "otp": "one-time password",
    "pin": "PIN",
    "pop": "key",
    "pwd": "password",
    "rba": "risk assessment",
    "retina": "retina scan",
    "sc": "smart card",
    "sms": "text message",
    "swk": "key in software",
    "tel": "telephone call",
    "user": "presence of the user",
    "vbm": "voice",
    "wia": "Windows login",
}
"""The methods of RFC 8176."""
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


class Activity(NamedTuple):
    """One thing that happened, in one line. `at` is Unix milliseconds."""

    at: int
    text: str
    tone: str
    place: str


def activities(entries: Sequence[AuditEntry], user_agents: Mapping[str, str], *, all_read: bool = True) -> list[Activity]:
    """Return what entries mean: one line each, a login and a logout one, and of a session that was ended the device.

    Refusals that repeat each other are one line with their number and the time of the last one; the trail keeps them all.
    `entries` are the latest first; `all_read`: there are no older ones. `user_agents` are those of the sessions, by handle.
    """
    told = {
        *(("session.destroyed", entry.session) for entry in entries if entry.event == "logout.local"),
        *(("session.created", entry.session) for entry in entries if entry.event == "login.succeeded"),
    }
    lines: list[tuple[Activity, int]] = []
    for entry in entries:
        if (entry.event, entry.session) in told:
            continue
        text, tone = _STORIES.get(entry.event, (entry.event, ""))
        if entry.event in _ENDED and (user_agent := user_agents.get(entry.session or "")):
            text = f"{text}: {device(user_agent).name}"
        line, times = Activity(entry.at, text, tone, place(entry)), entry.count
        if lines and entry.event in _REFUSED and lines[-1][0]._replace(at=line.at) == line:
            line, counted = lines.pop()
            times += counted
        lines.append((line, times))
    shown = [line._replace(text=_counted(line.text, times)) for line, times in lines]
    if lines and lines[-1][1] > 1 and not all_read:  # the oldest line may have begun before what was read
        shown[-1] = lines[-1][0]._replace(text=f"{lines[-1][0].text} (at least {lines[-1][1]} times)")
    return shown


def methods(amr: Sequence[str]) -> str:
    """Return how a user has authenticated (`Identity.amr`); a provider's own methods as it names them."""
    return ", ".join(_METHODS.get(method, method) for method in amr)


def greeting(language: str) -> tuple[str, str]:
    """Return a greeting and the language it is in."""
    code = language.replace("_", "-").partition("-")[0].lower()
    return (_GREETINGS[code], code) if code in _GREETINGS else (_GREETINGS["en"], "en")


def story(entry: AuditEntry) -> tuple[str, str]:
    """Return the description of an audit entry, and its tone: `good`, `bad` or empty."""
    text, tone = _STORIES.get(entry.event, (entry.event, ""))
    return _counted(text, entry.count), tone


def _counted(text: str, times: int) -> str:
    return text if times == 1 else f"{text} ({times} times)"


def place(entry: AuditEntry) -> str:
    """Return the origin of an audit entry for its user, without the location of an administrator."""
    if entry.actor is None:
        return origin(entry)
    if entry.event == "access.denied":  # refused to the administrator who acts as the user, not by one
        by = "to an administrator"
    elif entry.event.startswith("impersonation."):  # its text names the administrator
        by = ""
    else:
        by = "by an operator" if entry.actor == COMMAND_LINE else "by an administrator"
    return " · ".join(filter(None, (by, _reason(entry))))


def origin(entry: AuditEntry) -> str:
    """Return the origin of an audit entry for administrators."""
    client = device(entry.user_agent).name if entry.user_agent else ""
    return " · ".join(filter(None, (client, address(entry.ip) if entry.ip else "", _reason(entry))))


def who(entry: AuditEntry, names: Mapping[str, str]) -> str:
    """Return the name of the user that an audit entry is about, given the names by user key."""
    if entry.user_key is not None:
        return names.get(entry.user_key, "unknown user")
    return "identity provider" if entry.event == "logout.backchannel" else "visitor"


def actor(entry: AuditEntry, names: Mapping[str, str]) -> str:
    """Return who did to the user what an audit entry is about."""
    return "the command line" if entry.actor == COMMAND_LINE else names.get(entry.actor or "", "unknown user")


def _reason(entry: AuditEntry) -> str:
    if entry.actor is not None and entry.reason in _BY_ACTOR:
        return ""
    text = because(entry.event, entry.reason)
    return (entry.reason or "").replace("_", " ") if text is None else text


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
    """Return a Unix time as a date and a time of day, in UTC."""
    when = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    return f"{when.day} {when:%b %Y, %H:%M} UTC"
