"""The audit trail and "Security activity" in words: what happened, who did it, and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, get_args

from app.data.audit import _NOT_KEPT, COMMAND_LINE, AuditEntry
from app.web.wording import EVENTS, actor, methods, origin, place, who
from session_core.events import EventName

ROOT: Final = Path(__file__).resolve().parents[2]


def test_every_event_of_the_trail_has_words() -> None:
    code = "\n".join(file.read_text() for file in (ROOT / "app").rglob("*.py"))
    own = set(re.findall(r'audit\.add\(\s*"([\w.]+)"', code))
    assert own >= {"user.disabled", "user.enabled", "user.signed_out"}
    assert set(EVENTS) == set(get_args(EventName)) - _NOT_KEPT | own


def test_an_entry_says_who_and_why_in_words() -> None:
    names = {"a": "Alice", "r": "Root"}
    ended = AuditEntry(at=0, event="session.revoked", user_key="a", actor="r", reason="administrator", ip="192.0.2.7")
    assert (who(ended, names), actor(ended, names)) == ("Alice", "Root")
    assert (place(ended), origin(ended)) == ("by an administrator", "192.0.2.7")
    disabled = AuditEntry(at=0, event="session.revoked", user_key="gone", actor=COMMAND_LINE, reason="disabled")
    assert (who(disabled, names), actor(disabled, names)) == ("unknown user", "the command line")
    assert place(disabled) == "by an operator · the account was disabled"
    conflict = AuditEntry(at=0, event="session.conflict", reason="note,theme")
    assert (who(conflict, names), origin(conflict)) == ("visitor", "the value: note, theme")
    assert origin(AuditEntry(at=0, event="login.failed", reason="not_invited")) == "not invited"  # a reason of a clone


def test_the_authentication_methods_of_rfc_8176_are_in_words() -> None:
    known = re.findall(r"\w+", "face fpt geo hwk iris kba mca mfa otp pin pop pwd rba retina sc sms swk tel user vbm wia")
    assert [method for method in known if methods([method]) == method] == []
    assert methods(["pwd", "otp"]) == "password, one-time password"
    assert methods(["urn:example:badge"]) == "urn:example:badge"
