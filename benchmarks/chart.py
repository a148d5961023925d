"""Draws what a run has found as one SVG: no script, no font and no image of another host."""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

from benchmarks.results import Cell, Results
from benchmarks.stacks import Stack
from benchmarks.works import WORKS

__all__ = ("draw",)

_WIDTH: Final = 860
_MARGIN: Final = 20
_LABELS: Final = 270
_FIGURES: Final = 150
_ROW: Final = 22
_BAR: Final = 14
_TITLE: Final = 44
_PANELS: Final = ("read", "increment", "one", "visitor", "login")

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


def draw(results: Results) -> str:
    """The picture: a panel for each of some works, a bar for each stack, a thin line from its worst to its best round."""
    parts: list[str] = []
    at = _MARGIN
    for work in WORKS:
        bars = [(stack, cell) for stack in results.stacks if (cell := results.cell(work.name, stack.name)) is not None]
        if work.name in _PANELS and bars:
            parts += _panel(work.title, bars, at)
            at += _TITLE + _ROW * len(bars)
    height = at + _MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Requests per second">'
    card = f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", card, *parts, "</svg>"]) + "\n"


def _panel(title: str, bars: list[tuple[Stack, Cell]], top: int) -> list[str]:
    longest = max(cell.fastest for _, cell in bars)
    scale = (_WIDTH - 2 * _MARGIN - _LABELS - _FIGURES) / longest
    heading = f"{title}, requests per second"
    lines = [f'<text class="title" x="{_MARGIN}" y="{top + 24}">{escape(heading)}</text>']
    for row, (stack, cell) in enumerate(bars):
        lines += _bar(stack, cell, scale, top + _TITLE - 8 + row * _ROW)
    return lines


def _bar(stack: Stack, cell: Cell, scale: float, top: int) -> list[str]:
    left, middle, base = _MARGIN + _LABELS, top + _BAR / 2, top + _BAR - 3
    kind = "ours" if stack.ours else "peer" if stack.sessions else "bare"
    figure = f"{cell.rate:,.0f}"
    if cell.acknowledged:
        figure += f", {cell.kept / cell.acknowledged:.0%} kept"
    return [
        f'<text x="{_MARGIN}" y="{base}">{escape(stack.label)}</text>',
        f'<rect class="{kind}" x="{left}" y="{top}" width="{cell.rate * scale:.1f}" height="{_BAR}" rx="2"/>',
        f'<path class="span" d="M{left + cell.slowest * scale:.1f} {middle}H{left + cell.fastest * scale:.1f}"/>',
        f'<text class="figure" x="{left + cell.fastest * scale + 8:.1f}" y="{base}">{figure}</text>',
    ]
