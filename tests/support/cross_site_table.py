"""Reads the table of docs/explanation/cross-site.md: which headers browsers send, and the response to them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

__all__ = ("Combination", "Row", "read_table")

_PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "cross-site.md"


class Combination(NamedTuple):
    """`Sec-Fetch-Site` and the owner of the `Origin`; `absent` where the header is not sent."""

    fetch_site: str
    origin: str


class Row(NamedTuple):
    """The response to such a request, and the senders."""

    accepted: bool
    senders: str


def read_table() -> dict[Combination, Row]:
    """The rows of the table by their combination of headers."""
    rows: dict[Combination, Row] = {}
    for line in _PAGE.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[2] in {"accepted", "refused"}:
            combination = Combination(cells[0], cells[1])
            assert combination not in rows, combination
            rows[combination] = Row(cells[2] == "accepted", cells[3])
    assert rows
    return rows
