"""The settings that have a flag, a variable and a key: one table, from which all three come.

    skerry run app.py --cache 1G     a flag counts most,
    SKERRY_CACHE=1G                  then a variable,
    [tool.skerry]                    then pyproject.toml in the folder where a command is started.
    cache = "1G"

`python -m skerry.runtime.cli.settings` prints the table as JSON, for the reference.
Where no value is given, `runtime/config.py` has the default.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import asdict

from skerry.errors import SkerryError
from skerry.runtime.config import check_workers

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Setting(Struct, frozen=True):
    """One row of the table."""

    key: str
    """In [tool.skerry]; the flag and the variable follow from it."""
    type: str
    default: str
    help: str

    @property
    def flag(self) -> str:
        """The option of a command."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The variable of the environment."""
        return f"SKERRY_{self.key.upper()}"


SETTINGS = {
    setting.key: setting
    for setting in (
        Setting("workers", "int", "one per usable core", "worker processes"),
        Setting("data", "path", "./.skerry/APP", "data directory"),
        Setting(
            "sync",
            "commit|10ms|off",
            "commit",
            "when the log is synced: at each commit, at most 100 times a second, or never",
        ),
        Setting(
            "cache",
            "size",
            "256M",
            "memory per worker for entities; rows that the log alone holds may take as much",
        ),
        Setting("quota", "size", "1T", "disk per worker"),
        Setting(
            "cluster", "urls", "none", "NATS servers of the cluster to run in, with commas between"
        ),
        Setting("host", "name", "this machine's name", "this host's name in the cluster"),
        Setting(
            "address",
            "ip[:port]",
            "by the way to NATS",
            "where other hosts of the cluster reach this one",
        ),
        Setting(
            "lease",
            "seconds",
            "10",
            "how long a host of a cluster may be silent before its shards go on elsewhere",
        ),
        Setting("hang", "seconds", "10", "how long a handler may take before its worker is killed"),
    )
}


def option(key: str, *, help: str = "", default: str | None = None, **checks: Any) -> Any:
    """The option of a command for this setting, with its variable."""
    setting = SETTINGS[key]
    return typer.Option(
        setting.flag,
        envvar=setting.variable,
        metavar=f"<{setting.type}>",
        help=help or setting.help,
        show_default=setting.default if default is None else default,
        **checks,
    )


Data = Annotated[Path | None, option("data", default="the one in ./.skerry")]
Json = Annotated[bool, typer.Option("--json", help="as JSON")]


def counted(workers: int | None) -> int | None:
    """A number of workers. Raises BadParameter: an app can't have so many, or so few."""
    try:
        if workers is not None:
            check_workers(workers)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return workers


def size(text: str | int) -> int:
    """The bytes of '256M' or '1G'; a number of pyproject.toml as it is. Raises BadParameter."""
    found = _SIZE.fullmatch(str(text).strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no size: write bytes, or as 256M or 2G")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def from_pyproject(folder: Path) -> dict[str, Any]:
    """The table [tool.skerry] of a folder's pyproject.toml. Raises SkerryError."""
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
        if name not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise SkerryError(f"{path}: [tool.skerry] has {name!r}; it may have {known}.")
    return table


def defaults(command: Any, table: dict[str, Any]) -> dict[str, Any]:
    """The defaults of a command and of those below it, as click takes them."""
    if below := getattr(command, "commands", None):
        return {name: defaults(each, table) for name, each in below.items()}
    return {each.name: table[each.name] for each in command.params if each.name in table}


def reference() -> Iterator[dict[str, str]]:
    """Each setting with all its names, for the configuration reference."""
    for setting in SETTINGS.values():
        yield {**asdict(setting), "flag": setting.flag, "variable": setting.variable}


if __name__ == "__main__":
    print(json.dumps(list(reference()), indent=1))
