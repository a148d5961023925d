"""The pages have words for every reason that the library and this application can give."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import pytest

from app.data.audit import _NOT_KEPT
from app.web.reasons import because
from app.web.wording import EVENTS
from session_core import errors
from session_core.errors import OidcError, SessionCoreError
from session_core.events import EventName
from session_core.oidc.http import OpHttp
from session_core.oidc.login import authorization_response
from session_core.oidc.provider import token_endpoint

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = sorted(
    file
    for file in (ROOT / "session_core").rglob("*.py")
    if not file.is_relative_to(ROOT / "session_core" / "stores")  # its reasons are those of outages, in words for the log
)
OF_THE_APPLICATION: Final = {
    "account_disabled", "administrator", "database_unavailable", "disabled", "other_user", "too_many_roles"
}  # fmt: skip
"""Not read from the sources: a clone may give its own reasons, with or without a text. Without one the pages show the reason."""
SLUG: Final = re.compile(r"[a-z]+(_[a-z]+)*\Z")
CALLS: Final = {
    **{name: 0 for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, OidcError)},
    "error": 0,
    "_invalid": 0,
    "_report_unsaved": 0,
    "report_acting_ended": 1,
}
"""Calls with a reason, and at which place."""
RETURNS: Final = {"check_refreshed_id_token", "refusal", "error_reason", "reason_of", "_kind_of"}
"""Functions that return one."""


def kinds_of(root: type[SessionCoreError]) -> Iterator[type[SessionCoreError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds_of(kind)


def expressions(tree: ast.AST) -> Iterator[ast.expr]:
    """Every expression whose value is a reason."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            event = node.args[0] if node.args else None
            if isinstance(event, ast.Constant) and event.value in _NOT_KEPT:
                continue
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "reason")
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in CALLS and len(node.args) > CALLS[name]:
                yield node.args[CALLS[name]]
        elif isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == "reason" for each in node.targets):
            yield node.value
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            yield from (default for argument, default in defaults if argument.arg == "reason" and default is not None)
            if node.name in RETURNS:
                yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value is not None)


def values(expression: ast.expr) -> Iterator[str]:
    """The reasons that an expression can have; of an f-string its source."""
    match expression:
        case ast.Constant(value=str(text)) if SLUG.match(text):
            yield text
        case ast.JoinedStr():
            yield ast.unparse(expression)
        case ast.IfExp(body=body, orelse=other):
            yield from values(body)
            yield from values(other)
        case ast.BoolOp(values=several):
            for each in several:
                yield from values(each)


@pytest.fixture(scope="module")
def reasons() -> set[str]:
    """Every reason in the sources of the library, in the documentation, of the application, and of the identity provider."""
    found = {reason for file in SOURCES for each in expressions(ast.parse(file.read_text())) for reason in values(each)}
    plain = {reason for reason in found if SLUG.match(reason)}
    plain |= {kind.code for kind in kinds_of(SessionCoreError) if kind.__module__.startswith("session_core.")}
    plain |= documented() | OF_THE_APPLICATION
    plain |= authorization_response._ERRORS | token_endpoint._ERRORS | {"provider_error"}
    calls = {call for file in SOURCES for call in re.findall(r'what="(\w+)"', file.read_text())}
    failures = set(re.findall(r"<what>_(\w+)", OpHttp.send.__doc__ or ""))
    expanded = {
        "f'{what}_timeout'": {f"{call}_timeout" for call in calls},
        "f'{what}_{_kind_of(failure)}'": {f"{call}_{failure}" for call in calls for failure in failures},
        "f'{what}_too_large'": set(),  # as the one above
        "f'{what}_compressed'": set(),
        "f'{what}_status'": {"par_status", "token_status"},
        "f'{what}_{error}'": {f"par_{error}" for error in token_endpoint._ERRORS},
        "f'{name}_missing'": {"exp_missing", "iat_missing", "jti_missing"},
        "f'{name}_malformed'": {"exp_malformed", "iat_malformed", "jti_malformed"},
    }
    for folded in expanded.values():
        plain |= folded
    for prefix, source in {"refresh_": "{error.reason}", "id_token_": "{reason}", "userinfo_": "{refusal}"}.items():
        expanded[f"f'{prefix}{source}'"] = {prefix + reason for reason in plain}
        plain = plain | expanded[f"f'{prefix}{source}'"]
    composed = {reason for reason in found - plain if "{self." not in reason and "unavailable (" not in reason}
    assert composed == set(expanded), "say here what a new f-string can be"
    return plain


def documented() -> set[str]:
    """The reasons in docs/reference/events.md, of the events in the trail."""
    rows = re.findall(r"^\| `([\w.]+)` \|.*\|([^|]*)\|$", (ROOT / "docs" / "reference" / "events.md").read_text(), re.MULTILINE)
    assert len(rows) == len(get_args(EventName))
    named = {reason for event, cell in rows if event not in _NOT_KEPT for reason in re.findall(r"`([a-z_]+)`", cell)}
    return named - {"on_login"}


def test_every_reason_has_words(reasons: set[str]) -> None:
    assert {"nonce_mismatch", "administrator", "discovery_dns", "refresh_invalid_grant", "stopped", "account_disabled"} <= reasons
    without = sorted(reason for reason in reasons if because("login.failed", reason) is None)
    assert without == [], "give each a text in app/web/reasons.py"
    shown = {because(event, reason) or "" for event in EVENTS for reason in reasons if event != "session.conflict"}
    assert [text for text in shown if "_" in text] == []
