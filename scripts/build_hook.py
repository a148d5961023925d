"""Build hook: the template's commands belong to the repository's own environment, never to the wheel."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TemplateCommands(BuildHookInterface[Any]):
    """Adds the configured commands to an editable installation, which `uv sync` and `uv run` create."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before each build; `version` is "editable" or "standard"."""
        del build_data
        if version == "editable":
            self.metadata.core.scripts.update(self.config["commands"])
