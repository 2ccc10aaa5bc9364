"""Sources in whole runs: what is read, what is not, and what is said of it."""

from __future__ import annotations

import gzip
import json
import resource
from collections import Counter
from pathlib import Path
from unittest.mock import ANY

import pytest

from tests.processes.started import launcher

APP = """
import skerry
from skerry import App, Entity, JsonLines, TextFiles

class Seen(Entity):
    times: int = 0

    def see(self) -> None:
        self.times += 1

app = App("reading", entities=[Seen])
kind, *paths = skerry.args()
if kind == "json":
    app.source(JsonLines(*paths, type=dict[str, int])).flat_map(lambda d: list(d)).key_by(str).to(Seen.see)
else:
    app.source(TextFiles(*paths)).flat_map(str.split).key_by(str).to(Seen.see)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the app and its files are."""
    (tmp_path / "reading.py").write_text(APP)
    return tmp_path


def run(folder: Path, *args: str) -> tuple[int, str]:
    """One run of the app: its exit code, and what it said."""
    done = launcher("run", "reading.py", "--workers", "2", "--", *args, cwd=folder)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def counts(folder: Path) -> dict[str, int]:
    """What the entities counted."""
    rows = map(json.loads, launcher("export", "Seen", cwd=folder).stdout.splitlines())
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


def test_json_lines_are_read_by_their_type_and_a_bad_line_ends_the_run_with_its_place(
    folder: Path,
) -> None:
    file = folder / "a.jsonl"
    file.write_text('{"x": 1}\n{"y": 2}\n{"x": "no number"}\n{"z": 3}\n')
    code, said = run(folder, "json", "a.jsonl")
    assert (code, "a.jsonl: the line that ends at byte 37" in said) == (1, True)
    file.write_text(
        '{"x": 1}\n{"y": 2}\n{"x": 00000000001}\n{"z": 3}\n'.replace("0000000000", "         ")
    )
    assert run(folder, "json", "a.jsonl")[0] == 0
    assert counts(folder) == {"x": 2, "y": 1, "z": 1}


def test_more_files_are_read_than_a_process_may_have_open(folder: Path) -> None:
    for number in range(300):
        (folder / f"{number}.txt").write_text(f"one w{number % 7}\n")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (130, limits[1]))
    try:
        assert run(folder, "text", "*.txt") == (0, ANY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
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
        (b"was long enough\nand \xff is no text\n", "is not UTF-8: byte 0xff at offset 20"),
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
