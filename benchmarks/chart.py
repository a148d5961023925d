"""Draws the results as one SVG, without scripts, fonts or images of another host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.results import Cell, Results
from benchmarks.stacks import Stack

__all__ = ("draw",)

_WIDTH: Final = 860
_MARGIN: Final = 20
_LABELS: Final = 270
_FIGURES: Final = 90
_ROW: Final = 22
_BAR: Final = 14
_TITLE: Final = 44
_RATES: Final = {"read": "Reads of a session per second", "increment": "Writes to 200 sessions per second"}
_KEPT: Final = "Kept, of the writes that 32 clients make to ONE session"

_STYLE: Final = """
  .page { fill: #ffffff; stroke: #d0d7de }
  text { fill: #1f2328; font: 13px system-ui, sans-serif }
  .title { font-weight: 600; font-size: 15px }
  .figure { font-variant-numeric: tabular-nums }
  .bare { fill: #8c959f } .peer { fill: #b6bec8 } .ours { fill: #0969da }
  .span { stroke: #57606a; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #161b22; stroke: #30363d }
    text { fill: #e6edf3 }
    .bare { fill: #8b949e } .peer { fill: #565f6b } .ours { fill: #4493f8 }
    .span { stroke: #c9d1d9 }
  }
"""


@dataclass(frozen=True)
class _Row:
    """One stack in a panel: its bar, the range of its rounds, and its label."""

    stack: Stack
    value: float
    span: tuple[float, float] | None
    figure: str


def draw(results: Results) -> str:
    """The chart of reads, writes, and kept concurrent writes; in each panel the best stack comes first.

    A thin line goes from the worst to the best round.
    """
    parts: list[str] = []
    at = _MARGIN
    for title, rows in _panels(results):
        parts += _panel(title, rows, at)
        at += _TITLE + _ROW * len(rows)
    height = at + _MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Reads, writes, kept">'
    card = f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", card, *parts, "</svg>"]) + "\n"


def _panels(results: Results) -> Iterator[tuple[str, list[_Row]]]:
    for work, title in _RATES.items():
        if rows := [_rate(stack, cell) for stack, cell in _cells(results, work)]:
            yield title, sorted(rows, key=lambda row: -row.value)
    if rows := [_kept(stack, cell) for stack, cell in _cells(results, "one")]:
        yield _KEPT, sorted(rows, key=lambda row: -row.value)


def _cells(results: Results, work: str) -> list[tuple[Stack, Cell]]:
    return [(stack, cell) for stack in results.stacks if (cell := results.cell(work, stack.name)) is not None]


def _rate(stack: Stack, cell: Cell) -> _Row:
    return _Row(stack, cell.rate, (cell.slowest, cell.fastest), f"{cell.rate:,.0f}")


def _kept(stack: Stack, cell: Cell) -> _Row:
    share = cell.kept / max(cell.acknowledged, 1)
    return _Row(stack, share, None, f"{share:.0%}")


def _panel(title: str, rows: list[_Row], top: int) -> list[str]:
    longest = max(row.span[1] if row.span else row.value for row in rows) or 1
    scale = (_WIDTH - 2 * _MARGIN - _LABELS - _FIGURES) / longest
    lines = [f'<text class="title" x="{_MARGIN}" y="{top + 24}">{escape(title)}</text>']
    for number, row in enumerate(rows):
        lines += _bar(row, scale, top + _TITLE - 8 + number * _ROW)
    return lines


def _bar(row: _Row, scale: float, top: int) -> list[str]:
    left, middle, base = _MARGIN + _LABELS, top + _BAR / 2, top + _BAR - 3
    kind = "ours" if row.stack.ours else "peer" if row.stack.sessions else "bare"
    end = row.value if row.span is None else row.span[1]
    parts = [
        f'<text x="{_MARGIN}" y="{base}">{escape(row.stack.label)}</text>',
        f'<rect class="{kind}" x="{left}" y="{top}" width="{row.value * scale:.1f}" height="{_BAR}" rx="2"/>',
        f'<text class="figure" x="{left + end * scale + 8:.1f}" y="{base}">{row.figure}</text>',
    ]
    if row.span is not None:
        worst, best = row.span
        parts.append(f'<path class="span" d="M{left + worst * scale:.1f} {middle}H{left + best * scale:.1f}"/>')
    return parts
