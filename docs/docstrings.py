"""How docstrings are read for the API reference: an extension of griffe, named in mkdocs.yml."""

from __future__ import annotations

from typing import Any

import griffe


class Examples(griffe.Extension):  # type: ignore[misc]
    """Takes the section `Example:` for `Examples:`, whose lines are shown as a session of Python."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
