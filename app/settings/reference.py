"""Writes `.env.example` and the table of docs/reference/settings.md from the declared settings.

uv run python -m app.settings.reference
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.settings.declared import otherwise, unless_set
from app.settings.provider import ProviderSettings
from app.settings.settings import Settings

__all__ = ("env_example", "with_table", "written")

_ROOT: Final = Path(__file__).parent.parent.parent
_ENV: Final = _ROOT / ".env.example"
_PAGE: Final = _ROOT / "docs" / "reference" / "settings.md"
_TABLE: Final = re.compile(r"(?s)(<!-- (settings|providers):begin -->\n).*?(<!-- \2:end -->)")
_WIDTH: Final = 125
_HEAD: Final = """\
# Every setting of the application. Copy to `.env` and uncomment what you change; environment variables override this file.
# A name that is misspelt, or a value that cannot work, is refused at start. Generated: uv run just settings
"""


def env_example() -> str:
    """Return the text of `.env.example`."""
    return _HEAD + "".join(_entries())


def _entries() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        # Without Markdown: links become their text.
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", _description(name)).replace("`", "")
        default = unless_set(field)
        if not default:
            plain += f" Unless set: {otherwise(field).replace('`', '')}."
        lines = textwrap.wrap(plain, _WIDTH, break_long_words=False, break_on_hyphens=False)
        yield "\n" + "".join(f"# {line}\n" for line in lines) + f"#{name.upper()}={default}\n"


def with_table(page: str) -> str:
    """Return the page with tables of the declared settings; those of one provider are a separate table."""
    names = {"providers": set(ProviderSettings.model_fields)}
    names["settings"] = set(Settings.model_fields) - names["providers"]
    return _TABLE.sub(lambda found: found[1] + "".join(_rows(names[found[2]])) + found[3], page)


def _rows(names: set[str]) -> Iterator[str]:
    yield "| Setting | Default | Meaning |\n|---|---|---|\n"
    for name, field in Settings.model_fields.items():
        if name in names:
            default = unless_set(field)
            yield f"| `{name.upper()}` | {f'`{default}`' if default else otherwise(field)} | {_description(name)} |\n"


def _description(name: str) -> str:
    return " ".join((Settings.model_fields[name].description or "").split())


def written() -> list[Path]:
    """Write both files if they are outdated; return the changed files."""
    texts = {_ENV: env_example(), _PAGE: with_table(_PAGE.read_text(encoding="utf-8"))}
    changed = [file for file, text in texts.items() if file.read_text(encoding="utf-8") != text]
    for file in changed:
        file.write_text(texts[file], encoding="utf-8")
    return changed


if __name__ == "__main__":
    sys.stdout.write("".join(f"wrote {file.relative_to(_ROOT)}\n" for file in written()) or "nothing to change\n")
