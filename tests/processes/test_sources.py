"""Sources in whole runs: what is read, what is not, and what is said of it."""

from __future__ import annotations

import gzip
import json
import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY

import pytest

from tests.processes.started import launcher, limited

APP = """
import skerry
from skerry import App, Entity, JsonLines, TextFiles

class Seen(Entity):
    times: int = 0

    def see(self) -> None:
        self.times += 1

def names(row: dict[str, int]) -> list[str]:
    if "boom" in row:
        raise ValueError("boom")
    return list(row)

app = App("reading", entities=[Seen])
kind, *paths = skerry.args()
if kind != "text":
    bad = {"json": "stop"}.get(kind, kind)
    app.source(JsonLines(*paths, type=dict[str, int], bad=bad)).flat_map(names).key_by(str).to(Seen.see)
else:
    app.source(TextFiles(*paths)).flat_map(str.split).key_by(str).to(Seen.see)
"""


ODD = os.fsdecode(b"caf\xe9[1].jsonl")
"""A name that is no UTF-8, and looks like a pattern."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the app and its files are."""
    (tmp_path / "reading.py").write_text(APP)
    return tmp_path


def run(folder: Path, *args: str, limit: Callable[[], None] | None = None) -> tuple[int, str]:
    """One run of the app: its exit code, and what it said."""
    kind, *paths = args
    options = paths[paths.index("--data") :] if "--data" in paths else []
    paths = paths[: len(paths) - len(options)]
    command = ("run", "reading.py", "--workers", "2", *options, "--", kind, *paths)
    done = launcher(*command, cwd=folder, limit=limit)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def counts(folder: Path, *options: str) -> dict[str, int]:
    """What the entities counted."""
    exported = launcher("export", "Seen", *options, cwd=folder).stdout
    rows = map(json.loads, exported.splitlines())
    return {row["key"]: row["state"]["times"] for row in rows}


def test_plain_and_packed_files_are_read_once_and_what_was_added_by_the_next_run(
    folder: Path,
) -> None:
    text = "one two\nthree two\n" * 5000
    (folder / "a.txt").write_text(text)
    with gzip.open(folder / "b.txt.gz", "wt") as packed:
        packed.write(text + "last")
    expected = Counter(text.split()) + Counter((text + "last").split())
    assert run(folder, "text", "*.txt", "*.gz")[0] == 0
    assert counts(folder) == expected
    with open(folder / "a.txt", "a") as file:
        file.write("four\n")
    (folder / "c.txt").write_text("five")
    assert run(folder, "text", "*.txt", "*.gz")[0] == 0
    assert counts(folder) == expected + Counter(["four", "five"])


def test_a_bad_row_ends_the_run_with_its_place_when_all_rows_before_it_are_counted(
    folder: Path,
) -> None:
    file = folder / "a.jsonl"
    good = "".join(f'{{"w{n % 900}": 1}}\n' for n in range(4000))
    file.write_text(good + '{"x": 1}\n{"y": 2}\n{"x": "no number"}\n{"z": 3}\n')
    expected = Counter({f"w{n}": 5 for n in range(400)} | {f"w{n}": 4 for n in range(400, 900)})
    expected |= {"x": 1, "y": 1}
    code, said = run(folder, "json", "a.jsonl")
    assert (code, f"{file}, line 4,003: it is not what was expected" in said) == (1, True), said
    assert said.count("what was expected") == 1, "a cause that stays is told once"
    assert counts(folder) == expected
    file.write_text(good + '{"x": 1}\n{"y": 2}\n{"x": 1}\n{"z": 3}\n')
    assert run(folder, "json", "a.jsonl")[0] == 0
    assert counts(folder) == expected + Counter(["x", "z"])


def test_bad_rows_become_dead_letters_with_their_place_and_bytes_once_or_are_skipped(
    folder: Path,
) -> None:
    rows = ['{"x": 1}', "[" * 5000, '{"x": 1}', "half", '{"boom": 1}', '{"y": 2}']
    (folder / ODD).write_text("\n".join(rows * 3) + "\n")
    places = [f"{folder}/caf%e9[1].jsonl, line {n}" for n in range(1, 19)]
    expected = {(places[n], rows[n % 6]) for n in range(18) if n % 6 in (1, 3)}
    expected |= {(f"item at {places[n]}", "{'boom': 1}") for n in range(4, 18, 6)}
    for _ in range(2):  # The second one finds nothing new.
        assert run(folder, "dead", ODD) == (0, ANY)
        assert counts(folder) == {"x": 6, "y": 3}
        letters = launcher("dead", "list", "--json", cwd=folder).stdout.splitlines()
        found = [(m["error"].partition(": ")[0], *m["arguments"]) for m in map(json.loads, letters)]
        assert sorted(found) == sorted(expected)
    code, said = run(folder, "skip", ODD, "--data", "other")
    assert (code, "6 rows were no items and were skipped" in said) == (0, True), said
    assert counts(folder, "--data", "other") == {"x": 6, "y": 3}


def test_more_files_are_read_than_a_process_may_have_open(folder: Path) -> None:
    for number in range(300):
        (folder / f"{number}.txt").write_text(f"one w{number % 7}\n")
    few = limited(resource.RLIMIT_NOFILE, 130)
    assert run(folder, "text", "*.txt", limit=few) == (0, ANY)
    assert counts(folder) == Counter(["one"] * 300 + [f"w{n % 7}" for n in range(300)])


def test_a_file_that_vanished_is_named_and_counting_goes_on_when_it_is_back(folder: Path) -> None:
    (folder / "a.txt").write_text("one\n")
    (folder / "b.txt").write_text("two\n")
    assert run(folder, "text", "a.txt", "b.txt")[0] == 0
    (folder / "b.txt").rename(folder / "gone.txt")
    code, said = run(folder, "text", "a.txt", "b.txt")
    assert (code, "There is no file b.txt" in said) == (1, True)
    (folder / "gone.txt").rename(folder / "b.txt")
    with open(folder / "b.txt", "a") as file:
        file.write("three\n")
    assert run(folder, "text", "a.txt", "b.txt")[0] == 0
    assert counts(folder) == {"one": 1, "two": 1, "three": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"sh\n", "is shorter now"),
        (b"was long enough\nand \xff is no text\n", "line 2: it is not UTF-8: its byte 5 is 0xff"),
        (b"was not so long\nand goes on\n", "was changed in what was read of it"),
        (b"was long enough", "is shorter now"),
    ],
)
def test_a_file_that_shrank_or_is_no_text_ends_the_run_with_its_name(
    folder: Path, content: bytes, said: str
) -> None:
    (folder / "a.txt").write_bytes(b"was long enough\n")
    assert run(folder, "text", "a.txt")[0] == 0
    before = counts(folder)
    (folder / "a.txt").write_bytes(content)
    code, complaint = run(folder, "text", "a.txt")
    assert (code, said in complaint, "a.txt" in complaint) == (1, True, True), complaint
    assert complaint.count(said) == 1, "a cause that stays is told once, not at every restart"
    assert counts(folder) == before


def test_a_file_that_vanishes_after_the_start_is_named(folder: Path) -> None:
    (folder / "a.txt").write_text("one\n" * 10)
    # A worker imports the app before it reads.
    vanish = "\nimport os, sys\nif 'worker' in sys.argv[0] and os.path.exists('a.txt'):\n    os.unlink('a.txt')\n"
    (folder / "reading.py").write_text(APP + vanish)
    code, said = run(folder, "text", "a.txt")
    assert (code, "a.txt" in said) == (1, True), said


def test_a_file_is_the_same_one_by_any_spelling_and_any_name(folder: Path) -> None:
    odd = folder / ODD
    odd.write_text("one\n")
    (folder / "link").symlink_to(odd)
    for paths in ([odd.name], [str(odd), f"./{odd.name}"], ["caf*.jsonl", "link"]):
        assert run(folder, "text", *paths) == (0, ANY)
        assert counts(folder) == {"one": 1}


def test_a_line_that_grew_between_two_runs_is_refused_and_never_counted_in_parts(
    folder: Path,
) -> None:
    (folder / "a.txt").write_text("one\n12")
    assert run(folder, "text", "a.txt")[0] == 0
    (folder / "a.txt").write_text("one\n1234\n")
    code, said = run(folder, "text", "a.txt")
    assert (code, "read as '12' and is '1234' now" in said) == (1, True), said
    assert counts(folder) == {"one": 1, "12": 1}
    (folder / "a.txt").write_text("one\n12\nthree\n")
    assert run(folder, "text", "a.txt")[0] == 0
    assert counts(folder) == {"one": 1, "12": 1, "three": 1}
