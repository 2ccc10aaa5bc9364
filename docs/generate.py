"""The pages of the site that are made from the code: API, command line and configuration.

A hook of MkDocs (`hooks:` in mkdocs.yml). The API pages are read from source, so that building
the site imports no program code; the other two ask the launcher's own table of commands.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "build" / "docs-source"
"""Where the folder api/ is found under the name by which programs import it."""


def on_startup(**_: object) -> None:
    """Link `skerry` to api/ in the folder where mkdocstrings looks for it."""
    SOURCE.mkdir(parents=True, exist_ok=True)
    link = SOURCE / "skerry"
    link.unlink(missing_ok=True)
    link.symlink_to(ROOT / "api", target_is_directory=True)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for name, page in (("cli", cli_page()), ("configuration", configuration_page())):
        files.append(File.generated(config, f"reference/{name}.md", content=page))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the map of all modules, and their layers, where a page asks for them."""
    for mark, made in (("<!-- modules -->", modules), ("<!-- layers -->", layers)):
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return markdown


def layers() -> str:
    """The layers of the runtime, from the contract that import-linter checks."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    found = config["importlinter:contract:rooms"]["layers"].split("\n")
    return "\n".join(
        f"1. {', '.join(f'`{part.strip()}`' for part in re.split('[|:]', layer))}"
        for layer in found
        if layer.strip()
    )


def modules() -> str:
    """The generated map in runtime/__init__.py, as a table per folder."""
    text = ast.get_docstring(ast.parse((ROOT / "runtime/__init__.py").read_text())) or ""
    parts = []
    for line in text[text.index("api/") :].splitlines():
        name, _, job = line.strip().partition(" ")
        if line.startswith(" "):
            parts.append(f"| `{name}` | {_cell(job.strip())} |")
        elif name:
            parts.append(f"\n### {name}\n\n{job.strip()}\n\n| module | job |\n|---|---|")
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, Any]]:
    """(name, command) of the launcher's commands, those of groups by both names."""
    import typer

    from skerry.runtime.cli import app

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            yield from ((f"{name} {each}", sub) for each, sub in inner.items())


def cli_page() -> str:
    """The reference of the command line: every command, argument and option."""
    return "\n".join([CLI_INTRO, *(_command(name, command) for name, command in commands())])


def configuration_page() -> str:
    """The reference of what can be set, and by which of the three ways."""
    from skerry.runtime.cli.settings import reference

    rows = [
        f"| `{each['flag']}`<br>`{each['variable']}`<br>`{each['key']}` | {_cell(each['type'])} "
        f"| {_cell(each['default'])} | {_cell(each['help'])} |"
        for each in reference()
    ]
    return CONFIGURATION.replace("ROWS", "\n".join(rows))


def _command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = list(_options(command))
    usage = " ".join(
        [f"skerry {name}", *(["[OPTIONS]"] if options else []), *map(_placeholder, arguments)]
    )
    parts = [f"## skerry {name}\n", f"```text\n{usage}\n```\n", _help(command.help or "")]
    if arguments:
        parts += ["| argument | meaning |\n|---|---|"]
        parts += [f"| `{_placeholder(each)}` | {_cell(each.help)} |" for each in arguments]
    if options:
        parts += ["", "| option | default | meaning |\n|---|---|---|"]
        parts += [
            f"| `{_flag(each)}` | {_code(_default(each))} | {_cell(each.help)} |"
            for each in options
        ]
    return "\n".join(parts) + "\n"


def _options(command: Any) -> Iterator[Any]:
    return (
        each
        for each in command.params
        if each.param_type_name == "option" and not each.hidden and each.name != "help"
    )


def _flag(option: Any) -> str:
    return option.opts[0] if option.is_flag else f"{option.opts[0]} {option.metavar or '…'}"


def _placeholder(argument: Any) -> str:
    name = argument.name.upper().rstrip("_")
    name = f"{name}..." if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def _default(option: Any) -> str:
    shown = option.show_default if isinstance(option.show_default, str) else option.default
    return "" if option.is_flag or shown is None else str(shown)


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str | None) -> str:
    """A help text as a table's cell, in which nothing ends the cell."""
    return (text or "").replace("|", r"\|")


def _help(text: str) -> str:
    r"""A command's help as Markdown: what follows \b is shown as it stands."""
    prose, _, example = text.partition("\b\n")
    example = re.sub(r"^Examples?:\s*", "", example.strip())
    lines = [line.strip() for line in example.splitlines() if line.strip()]
    shown = "\n```console\n" + "\n".join(f"$ {line}" for line in lines) + "\n```\n" if lines else ""
    return f"{prose.strip()}\n{shown}"


CLI_INTRO = """\
# Command line

This page is generated from the launcher's commands. A command finds an app by its data directory:
the one app in `./.skerry`, or the one that `--data` names. `get`, `export`, `count`, `status`,
`backup`, `dead list` and `dead show` work on a running and on a stopped app, `check` and `restore` on a
stopped one.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the app failed, or a request was refused or failed |
| 2 | wrong usage: an unknown option, type or handler, or arguments that do not fit |
| 3 | a damaged store |
| 4 | the app is already running |

Results go to standard output, everything else to standard error.
"""

CONFIGURATION = """\
# Configuration

This page is generated from the launcher's table of settings. A setting is looked up in this order;
the last one found wins:

1. `[tool.skerry]` in the `pyproject.toml` of the folder that the command is started in,
2. an environment variable,
3. the flag.

| flag of `skerry run`, variable, key | type | default | meaning |
|---|---|---|---|
ROWS

`data` and `SKERRY_DATA` also apply to every other command but `cluster`. Sizes are bytes, or numbers with a unit
that is a power of 1024: `256M`, `10G`, `1T`. [Size the cache and the quota](../how-to/sizing.md) says how to choose
them.

```toml title="pyproject.toml"
[tool.skerry]
workers = 4
data = "/var/lib/shop"
cache = "1G"
quota = "50G"
```

## In the program

| setting | default | meaning |
|---|---|---|
| `App(retries=…)` | 3 | How often a turn is tried again when its handler raises |
| `Output(partitions=…)` | 4 | Into how many ordered parts the items of an output are dealt |
| `bad=` of a source of files | `"stop"` | [Rows that cannot be read](../ideas/files.md#rows-that-cannot-be-read) |
| `changed=` of a source of files | `"stop"` | [Files that changed](../ideas/files.md#what-a-position-remembers) |
| `client.options(timeout=…)` | 30 s | How long a client waits for an outcome |
| `client.options(idempotency_key=…)` | none | [A name for one request](../ideas/clients.md#clients) |

## Other environment variables

| variable | effect |
|---|---|
| `SKERRY_TRACEBACK` | When set, `skerry ask` and `skerry send` print the traceback of a failed handler |
| `XDG_RUNTIME_DIR` | Where sockets are created when the path of the data directory is too long for a socket |
| `NO_COLOR` | No colours on a terminal |
"""
