"""The dashboard and the alert rules are valid PromQL over existing metrics and labels, and link existing runbooks."""

from __future__ import annotations

import json
import re
from typing import Any

import promql_parser
import pytest
import yaml

from app.ops.metrics import Metrics
from session_core import Event
from session_core.events import EventName
from tests.support.environments import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "sessions.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    of_panels = [target["expr"].replace("$__rate_interval", "5m") for panel in panels for target in panel["targets"]]
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    return of_panels + [rule["expr"] for rule in rules]


def selectors(node: Any) -> list[Any]:
    """All vector selectors of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    children = [getattr(node, name, None) for name in ("expr", "vector_selector", "lhs", "rhs", "param")]
    children += list(getattr(node, "args", None) or [])
    return [found for child in children if child is not None for found in selectors(child)]


def series() -> dict[str, set[str]]:
    """The names and labels that the application exposes."""
    metrics = Metrics()
    metrics.answered("GET", "/", 200, 0.1)
    metrics.happened(Event(name="login.succeeded", at=0))
    for name in ("store.load", "provider.token", "tokens.refresh"):
        metrics.begin(name)(RuntimeError())
    metrics.audit_lost()
    metrics.counted(type("Stats", (), {"logged_in": 1, "anonymous": 2})())
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", metrics.render().decode(), re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_label_and_event_exists(expression: str) -> None:
    known, events = series(), set(EventName.__args__)
    used = selectors(promql_parser.parse(expression))
    assert used
    for selector in used:
        assert selector.name in known
        for matcher in selector.matchers.matchers:
            assert matcher.name in known[selector.name]
            if matcher.name == "event":
                names = matcher.value.split("|")
                assert all(any(re.fullmatch(name, event) for event in events) for name in names), matcher.value


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    parsed = [promql_parser.parse(expression) for expression in expressions()]
    used = {base(selector.name) for expression in parsed for selector in selectors(expression)}
    assert {base(name) for name in series() if not name.startswith(("process_", "python_"))} - used == set()


def base(name: str) -> str:
    return re.sub(r"_(bucket|count|sum|created|total)$", "", name)


def test_every_alert_has_a_description_and_a_runbook() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "how-to" / "runbooks.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9-]", "", heading.lower().replace(" ", "-")) for heading in headings}
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert rule["annotations"]["summary"]
            assert (ROOT / page).is_file()
            assert anchor in anchors, rule["alert"]
