"""Prints what a command has found: lines for people, or JSON for programs. Independent of sessions."""

from __future__ import annotations

import json
from typing import Final

import click
import msgspec

__all__ = ("JSON_OPTION", "print_found", "printable")

JSON_OPTION: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_found(*lines: str, data: object = None, err: bool = False) -> None:
    """Print the lines; or `data` as one line of JSON, unless it is None. The JSON is ASCII, since a terminal may show it."""
    for line in lines if data is None else (json.dumps(msgspec.to_builtins(data)),):
        click.echo(line, err=err)


def printable(text: str) -> str:
    """Escape terminal control characters: a client's User-Agent and a provider's names are printed on the operator's screen."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
