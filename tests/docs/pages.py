"""Pages of the documentation, taken apart: their blocks of code, their files, their commands.

```python                         joined, in order, to one program of the page
```python title="bank.py"         a file, joined from all blocks of that title
```console                        commands behind `$ `, each with what it prints
```console title="Terminal 1"     a command that is left running
<!-- not run: needs root -->      before a block: it is shown only
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))

BLOCK = re.compile(
    r"^(?P<skip><!-- not run: [^\n]+ -->\n\n?)?"
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
BACKGROUND = re.compile(r"Terminal \d")
POLL_S = 0.02


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    title: str
    text: str


def name(page: Path) -> str:
    """A page as a test's id."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that are tried."""
    text = page.read_text()
    return [
        Block(
            text.count("\n", 0, found.start("text")) + 1,
            found["language"],
            found["title"] or "",
            found["text"],
        )
        for found in BLOCK.finditer(text)
        if not found["skip"]
    ]


def program(page: Path) -> str:
    """The blocks without a title as one program, on the lines where they stand in the page."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python" and not block.title:
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n" if lines else ""


def files(page: Path) -> dict[str, str]:
    """The files of a page, by name."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if block.title and block.language != "console":
            found[block.title] = found.get(block.title, "") + block.text
    return found


class Command(NamedTuple):
    """A command of a page, and what it should print; nothing: whatever it prints."""

    text: str
    printed: str
    background: bool


def commands(page: Path) -> list[Command]:
    """The commands of a page, in order."""
    found = []
    for block in blocks(page):
        if block.language != "console":
            continue
        background = BACKGROUND.fullmatch(block.title) is not None
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            given, printed = re.fullmatch(r"((?:.*\\\n)*.*\n)((?:.*\n)*)", part).groups()  # type: ignore[union-attr]
            found.append(Command(given.strip(), printed, background))
    return found


def agrees(printed: str, expected: str) -> bool:
    """Whether an output is as the page shows it; a `…` there stands for anything."""
    pattern = ".*".join(map(re.escape, expected.strip().split("…")))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


class Shell:
    """Runs a page's commands in a folder, one behind the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SKERRY_")}
        self._environment = clean | {"PATH": path}

    def run(self, command: Command) -> str:
        """Run a command to its end: what it printed. Raises AssertionError: not what it should."""
        done = subprocess.run(
            ["bash", "-c", command.text],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if command.printed:
            assert agrees(done.stdout, command.printed), f"$ {command.text}\n{done.stdout}"
        else:
            assert done.returncode == 0, f"$ {command.text}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def left_running(self, command: Command) -> Iterator[None]:
        """Start `skerry run …` and wait until it can be reached; end it at the end."""
        for left in self._folder.rglob("run.json"):
            left.unlink()  # Of a run that was killed.
        process = subprocess.Popen(
            shlex.split(command.text, comments=True), cwd=self._folder, env=self._environment
        )
        try:
            while not any(self._folder.rglob("run.json")):
                with suppress(subprocess.TimeoutExpired):
                    raise AssertionError(f"$ {command.text}\nended: {process.wait(POLL_S)}")
            yield
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            process.wait()


def follow(page: Path, folder: Path) -> None:
    """Write a page's files and run its commands, as a reader would."""
    for path, text in files(page).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    shell = Shell(folder)
    with ExitStack() as running:
        for command in commands(page):
            if command.background:
                running.enter_context(shell.left_running(command))
            else:
                shell.run(command)
