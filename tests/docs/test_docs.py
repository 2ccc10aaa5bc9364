"""The code in README and docs runs, and its links lead somewhere.

The Python blocks of a page run in order in one namespace, in a process of its own and an
empty folder, as a reader would paste them into one file. A block that a page only shows
begins with the comment `# not run: <reason>`.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def name(page: Path) -> str:
    """A page as a test's id."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line, code) of the blocks that run."""
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start(1)) + 1, match[1])
        for match in BLOCK.finditer(text)
        if not match[1].startswith("# not run: ")
    ]


def as_file(page: Path) -> str:
    """The page's blocks as one file, each on the lines where it stands in the page."""
    lines: list[str] = []
    for line, code in blocks(page):
        lines += [""] * (line - 1 - len(lines)) + code.splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_the_code_runs(page: Path, tmp_path: Path) -> None:
    program = tmp_path / f"{page.stem.lower()}.py"
    program.write_text(as_file(page))
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(program)], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, f"{name(page)} (same line numbers):\n{ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{name(page)} links to {target}"
