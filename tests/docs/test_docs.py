"""The code and the commands in README and docs run, and their links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skerry
from tests.docs.pages import PAGES, ROOT, agrees, commands, follow, name, program

LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")
GENERATED = {"cli.md", "configuration.md"}


@pytest.mark.parametrize("page", [*filter(program, PAGES)], ids=name)
def test_the_code_runs(page: Path, tmp_path: Path) -> None:
    file = tmp_path / f"{page.stem.lower()}.py"
    file.write_text(program(page))
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(file)], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, f"{name(page)} (same line numbers):\n{ran.stderr}"


@pytest.mark.timeout(600)  # Many processes, one behind the other.
@pytest.mark.parametrize("page", [*filter(commands, PAGES)], ids=name)
def test_the_commands_run(page: Path, tmp_path: Path) -> None:
    follow(page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target, _ in LINK.findall(prose):
        found = page.parent / target
        assert found.exists() or found.name in GENERATED, f"{name(page)} links to {target}"


def test_an_output_is_compared() -> None:
    assert agrees("7 turns in 0.3 s\n", "7 turns in … s\n")
    assert not agrees("8 turns in 0.3 s\n", "7 turns in … s\n")
    assert not agrees("", "7\n")


def test_the_generated_pages_name_every_command() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = generate.cli_page()
    for command, _ in generate.commands():
        assert f"## skerry {command}\n" in page
    assert "| `--workers`<br>`SKERRY_WORKERS`<br>`workers` |" in generate.configuration_page()


def test_the_reference_has_everything_that_programs_import() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    shown = set(re.findall(r"^::: [\w.]*\b(\w+)$", pages, re.MULTILINE))
    shown |= set(re.findall(r"\w+", " ".join(re.findall(r"members: \[(.*)\]", pages))))
    assert set(skerry.__all__) <= shown


def test_the_figures_of_the_readme_are_those_of_the_docs() -> None:
    """One table has the figures; the README shows some of its rows."""
    rows = re.findall(r"^\| .* ms \|.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) > 5
    assert set(rows) <= set((ROOT / "docs/ideas/peers.md").read_text().splitlines())


COINED = r"overlay|sweeps?|swept|careful mode|slow mode|pressed|door"
"""Words that the code once had for what the field calls memtable, checkpoint, isolated mode,
quarantine mode, backpressured and listener."""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    assert re.findall(rf"\b({COINED})\b", page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:api|runtime|tests|examples|benchmarks)/[\w/.-]*|[\w-]+\.cfg)`", page.read_text()
    )
    assert [each for each in named if not (ROOT / each).exists()] == []
