"""What the command line prints of keys, errors and logs: nothing that a terminal would obey."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import skerry
from skerry import Entity
from skerry.runtime.printable import one_line, printable
from tests.processes.started import launcher, running

APP = """
import sys

from skerry import App, Entity, Rejected


class Note(Entity):
    text: str = ""

    def write(self, text: str) -> str:
        self.text = text
        return text

    def refuse(self, text: str) -> None:
        raise Rejected(text)

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def log(self, text: str) -> None:
        print(text, file=sys.stderr)


app = App("notes", entities=[Note])
"""


class Note(Entity):
    """As a client knows it."""

    def refuse(self, text: str) -> None: ...


EVIL = "a\x1b[2J\x07\rb\nforged: all clean\x9b31m\x7f\u202egnp\u2028c"
BAD = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\u2066-\u2069]")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of an app that runs."""
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "notes.py").write_text(APP)
    with running(folder / "data", target="notes.py", cwd=folder):
        args = [json.dumps([EVIL])]
        for handler in ("write", "refuse", "fail", "log"):
            launcher("send", f"Note/{EVIL}", handler, *args, "--data", str(folder / "data"))
        yield folder / "data"


COMMANDS = {
    "get": ("get", f"Note/{EVIL}"),
    "get nothing": ("get", f"Note/{EVIL}{EVIL}"),
    "ask": ("ask", f"Note/{EVIL}", "write", json.dumps([EVIL])),
    "rejected": ("ask", f"Note/{EVIL}", "refuse", json.dumps([EVIL])),
    "failed": ("ask", f"Note/{EVIL}", "fail", json.dumps([EVIL])),
    "no handler": ("ask", f"Note/{EVIL}", EVIL),
    "no type": ("get", f"{EVIL}/a"),
    "count": ("count", EVIL),
    "export": ("export", "Note"),
    "dead list": ("dead", "list"),
    "dead list --json": ("dead", "list", "--json"),
    "dead list --all": ("dead", "list", "--all"),
    "dead show": ("dead", "show", EVIL),
    "status": ("status",),
    "a folder": ("status", "--data", EVIL.replace("/", "")),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_nothing_that_is_printed_moves_a_terminal(data: Path, command: tuple[str, ...]) -> None:
    at = () if "--data" in command else ("--data", str(data))
    done = launcher(*command, *at, SKERRY_TRACEBACK="1")
    said = done.stdout + done.stderr
    assert said
    assert not BAD.search(said)
    if command != COMMANDS["failed"]:  # With its traceback, as SKERRY_TRACEBACK wants.
        assert not any(line.startswith("forged") for line in said.splitlines())


def test_a_refusal_is_one_line(data: Path) -> None:
    done = launcher(*COMMANDS["rejected"], "--data", str(data))
    assert len(done.stderr.splitlines()) == 1
    assert "forged" in done.stderr


def test_json_stays_what_it_is(data: Path) -> None:
    at = ("--data", str(data))
    assert json.loads(launcher(*COMMANDS["get"], *at).stdout) == {"text": EVIL}
    rows = [json.loads(line) for line in launcher("export", "Note", *at).stdout.splitlines()]
    assert [row["key"] for row in rows] == [EVIL]
    letters = launcher("dead", "list", "--json", *at).stdout.splitlines()
    shown = [json.loads(line) for line in letters]
    assert {letter["arguments"][0] for letter in shown} == {EVIL}
    assert all("traceback" not in letter for letter in shown), "only `dead show` has them"
    whole = json.loads(launcher("dead", "show", shown[-1]["id"], *at).stdout)
    assert "raise ValueError" in whole["traceback"]


def test_a_table_in_a_file_has_each_cell_as_it_is(data: Path) -> None:
    exported = launcher("export", "Note", "--format", "csv", "--data", str(data)).stdout
    # `launcher` reads texts, in which a lone CR is an end of line.
    wanted = EVIL.replace("\r", "\n")
    assert list(csv.reader(io.StringIO(exported))) == [["key", "text"], [wanted, wanted]]


def test_what_a_handler_prints_is_shown_printable_and_kept_as_it_is(data: Path) -> None:
    shown = data.with_name("data.said").read_text()
    assert "forged" in shown
    assert not BAD.search(shown)
    log = b"".join(path.read_bytes() for path in (data / "logs").iterdir())
    assert b"\x1b[2J" in log


def test_dead_letters_beyond_the_limit_are_counted_and_all_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "notes.py").write_text(APP)
    data = tmp_path / "data"

    def looks() -> None:
        listed = launcher("dead", "list", "--limit", "3", "--data", str(data))
        lines = listed.stdout.splitlines()
        assert [line.split()[-1] for line in lines] == ["no-0", "no-1", "no-2"]
        assert "117 more" in listed.stderr
        every = launcher("dead", "list", "--all", "--data", str(data)).stdout.splitlines()
        assert len(set(every)) == 120

    with running(data, target="notes.py", cwd=tmp_path):
        with skerry.Client(data) as client:
            for n in range(120):
                client.send(Note.at(f"k{n}").refuse, f"no-{n}")
        looks()
        status = json.loads(launcher("status", "--json", "--data", str(data)).stdout)
        assert sum(shard["dead"] for shard in status["shards"]) == 120
    looks()


def _obeyed(text: str) -> list[str]:
    """The characters of a text that a terminal would obey, but for the ends of lines."""
    bad = {"Cc", "Zl", "Zp", "Cs"}
    turns = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return [c for c in text if (unicodedata.category(c) in bad and c != "\n") or c in turns]


@given(st.text())
def test_whatever_is_printed_is_printable(text: str) -> None:
    assert not [c for c in _obeyed(printable(text)) if c != "\t"]
    assert not _obeyed(one_line(text))
    assert "\n" not in one_line(text)
    assert printable(text).count("\n") == text.count("\n")
    if not _obeyed(text):
        assert printable(text) == text
