"""Where options come from when they are not given: pyproject.toml, then SKERRY_*, then flags.

    [tool.skerry]
    workers = 4
    data = "/var/lib/shop"
    sync = "10ms"

Of the folder that a command is started in only. A later one of the three counts.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from skerry.errors import SkerryError

RUN = ("workers", "data", "sync", "cache", "quota")
"""Options that may stand in [tool.skerry]; each also as SKERRY_WORKERS and so on."""

OTHERS = ("ask", "send", "get", "export", "count", "status", "stop", "check", "backup", "restore")
LETTERS = ("list", "show", "retry", "drop")


def from_pyproject(folder: Path) -> dict[str, Any]:
    """Defaults of each command, as click takes them. Raises SkerryError."""
    path = folder / "pyproject.toml"
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SkerryError(f"{path} can't be read: {error}.") from None
    table = tool.get("skerry", {}) if isinstance(tool, dict) else tool
    if not isinstance(table, dict):
        raise SkerryError(f"{path}: [tool.skerry] is a table of options, not {table!r}.")
    for name in table:
        if name not in RUN:
            raise SkerryError(f"{path}: [tool.skerry] has {name!r}; it may have {', '.join(RUN)}.")
    data = {"data": table["data"]} if "data" in table else {}
    return {"run": table, **dict.fromkeys(OTHERS, data), "dead": dict.fromkeys(LETTERS, data)}
