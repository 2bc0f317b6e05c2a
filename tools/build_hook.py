"""Hatchling hook: a wheel carries the files that are not code as `tallybook/_resources`.

An editable installation does not: there `tallybook.config.resource_path` finds them in the
checkout, and a copy in site-packages would grow stale without anyone noticing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RESOURCES = ("settings.ini", "data/*", "reports/*.ipynb", "templates/**/*")


class ResourcesHook(BuildHookInterface):  # type: ignore[misc]
    """Add every file of RESOURCES to a standard wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds; `version` is "standard" or "editable"."""
        if version != "standard":
            return
        root = Path(self.root)
        for pattern in RESOURCES:
            found = [path for path in root.glob(pattern) if path.is_file()]
            if not found:
                message = f"{root}: the wheel should carry {pattern}, and there is no such file"
                raise FileNotFoundError(message)
            for path in found:
                relative = path.relative_to(root).as_posix()
                build_data["force_include"][str(path)] = f"tallybook/_resources/{relative}"
