"""Combines the reports of a cluster's servers into one view. Makes no call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

__all__ = ("NodeReport", "NodeView", "picture_of", "report_of")

Role: TypeAlias = Literal["primary", "replica", "coming back", "down"]
_FLAGS, _PRIMARY, _EPOCH, _FIRST_SLOT = 2, 3, 6, 8
_REPLICAS, _LINK = 2, 3


class NodeReport(msgspec.Struct, frozen=True):
    """The report of one server about itself."""

    name: str
    primary: str | None
    """Whose replica it is."""
    epoch: int
    slots: tuple[tuple[int, int], ...]
    in_sync: bool
    """Of a primary: a replica follows it. Of a replica: it follows its primary."""


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One server, as the demo shows it."""

    port: int
    role: Role
    slots: tuple[tuple[int, int], ...] = ()
    """First and last of each range that it holds."""
    follows: int | None = None
    """The port of its primary, while that lives."""
    in_sync: bool = False
    """Of a primary: a replica could take over. Of a replica: it follows its primary."""

    def holds(self, slot: int) -> bool:
        """Whether requests for a slot go to it."""
        return any(first <= slot <= last for first, last in self.slots)

    @property
    def ranges(self) -> str:
        """The slot ranges as text."""
        return ", ".join(f"{first}-{last}" for first, last in self.slots)


def report_of(nodes: bytes, role: Sequence[Any]) -> NodeReport | None:
    """Parse a server's replies to CLUSTER NODES and ROLE; None if they are malformed."""
    line = next((line.split() for line in nodes.decode().splitlines() if "myself" in line), None)
    if line is None:
        return None
    is_primary = "master" in line[_FLAGS].split(",")
    ranges = (text.partition("-") for text in line[_FIRST_SLOT:] if not text.startswith("["))  # in brackets: on the move
    return NodeReport(
        name=line[0],
        primary=None if is_primary else line[_PRIMARY],
        epoch=int(line[_EPOCH]),
        slots=tuple((int(first), int(last or first)) for first, _, last in ranges),
        in_sync=_is_in_sync(role, is_primary=is_primary),
    )


def _is_in_sync(role: Sequence[Any], *, is_primary: bool) -> bool:
    if (role[0] == b"master") != is_primary:
        return False  # promoted, or demoted, between the two replies
    return bool(role[_REPLICAS]) if is_primary else bool(role[_LINK] == b"connected")


def picture_of(reports: dict[int, NodeReport | None], *, down: set[int]) -> tuple[NodeView, ...]:
    """Return a view of each server, by port. `down` are those without a process.

    A restarted primary may still claim its slots; the server with the higher epoch was elected after it.
    """
    ports = {report.name: port for port, report in reports.items() if report}
    return tuple(_view(port, report, reports, ports, is_down=port in down) for port, report in reports.items())


def _view(
    port: int, report: NodeReport | None, reports: dict[int, NodeReport | None], ports: dict[str, int], *, is_down: bool
) -> NodeView:
    if is_down:
        return NodeView(port=port, role="down")
    if report is None:
        return NodeView(port=port, role="coming back")
    if report.primary is not None:
        return NodeView(port=port, role="replica", follows=ports.get(report.primary), in_sync=report.in_sync)
    outvoted = any(
        other and other.primary is None and other.epoch > report.epoch and set(other.slots) & set(report.slots)
        for other in reports.values()
    )
    if outvoted or not report.slots:
        return NodeView(port=port, role="coming back")
    return NodeView(port=port, role="primary", slots=report.slots, in_sync=report.in_sync)
