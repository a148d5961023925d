"""Build hooks: the wheel has no commands of the template, and a description that is readable away from the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_IMAGE: Final = re.compile(r"(?m)^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?")
_LINK: Final = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\)")
_NOTE: Final = "Pages and examples that this text names are in the repository."


class TemplateCommands(BuildHookInterface[Any]):
    """Adds the configured commands to an editable installation, which `uv sync` and `uv run` create."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before each build; `version` is "editable" or "standard"."""
        del build_data
        if version == "editable":
            self.metadata.core.scripts.update(self.config["commands"])


class Description(MetadataHookInterface):
    """Makes the description of the README: its relative links and pictures lead nowhere on an index of packages."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`."""
        text = _LINK.sub(r"\1", _IMAGE.sub("", (Path(self.root) / "README.md").read_text("utf-8")))
        parts = text.split("\n\n", 2)
        parts.insert(2, _NOTE)  # below the title and the first paragraph
        metadata["readme"] = {"content-type": "text/markdown", "text": "\n\n".join(parts)}
