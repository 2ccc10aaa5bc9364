"""How docstrings are read for the API reference: an extension of griffe, named in mkdocs.yml."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):  # type: ignore[misc]
    """Makes sessions of Python of examples, and links of the pages that are named."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that was read."""
        if obj.docstring is not None:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
            obj.docstring.value = re.sub(r"docs/([\w/]+)\.md", r"[docs/\1.md](../../\1/)", text)
