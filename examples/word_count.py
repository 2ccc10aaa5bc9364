"""Count words: every word is an entity that knows how often it was seen.

    skerry run examples/word_count.py -- books/*.txt     # any text files
    python -m examples.word_count                         # the standard library's own source

A second run over the same files continues after the last line read, and changes nothing.
"""

import heapq
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import tokenize
from pathlib import Path

import skerry
from skerry import App, Entity, TextFiles

WORD = re.compile("[a-z]{1,40}")


class Word(Entity):
    """A word, named by its key."""

    count: int = 0

    def seen(self) -> None:
        """Count one more occurrence."""
        self.count += 1


def split(line: str) -> list[str]:
    """The words of a line."""
    return WORD.findall(line.lower())


def is_utf8(path: Path) -> bool:
    """Whether a Python file declares UTF-8, and is UTF-8."""
    try:
        with tokenize.open(path) as file:
            return file.encoding in {"utf-8", "utf-8-sig"} and bool(file.read() or True)
    except (SyntaxError, UnicodeDecodeError, OSError):
        return False


def standard_library() -> list[str]:
    """The source files of Python's standard library, without its tests and installed packages."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
    return [
        str(path)
        for path in sorted(folder.rglob("*.py"))
        if not skipped.intersection(path.relative_to(folder).parts) and is_utf8(path)
    ]


app = App("words", entities=[Word])
(
    app.source(TextFiles(*(skerry.args() or standard_library())))
    .flat_map(split)
    .key_by(lambda word: word)
    .to(Word.seen)
)


def demo() -> None:
    """Count the words of the standard library on all cores; show the top 20 and the rate."""
    with tempfile.TemporaryDirectory(prefix="skerry-demo-") as data:
        started = time.perf_counter()
        cli = [sys.executable, "-m", "skerry.runtime.cli"]
        subprocess.run([*cli, "run", "examples.word_count:app", "--data", data], check=True)
        seconds = time.perf_counter() - started
        exported = subprocess.run(
            [*cli, "export", "Word", "--data", data], check=True, capture_output=True, text=True
        )
    counts = {
        row["key"]: row["state"]["count"] for row in map(json.loads, exported.stdout.splitlines())
    }
    for word, count in heapq.nlargest(20, counts.items(), key=lambda item: item[1]):
        print(f"{count:>9,}  {word}")
    total = sum(counts.values())
    print(
        f"\n{total:,} words, {len(counts):,} different ones, in {seconds:.1f} s including start and end: "
        f"{total / seconds:,.0f} words/s, each counted exactly once and on disk"
    )


if __name__ == "__main__":
    demo()
