"""Some taste can be a test: bans, promises kept in sight, nothing forgotten."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import skerry
from skerry import errors
from tests.house.source import ROOT, files, first_line, imports, tree
from tests.house.spine import MAP, text

PICKLES = {Path("api/portable.py")}
"""Where a notebook's classes are handed from parent to child. Nothing else ever unpickles."""

NAMES_BANNED = {"utils", "util", "helpers", "common", "misc", "base", "manager", "data", "info"}


def lines_of(path: Path) -> list[str]:
    """The lines of a file."""
    return (ROOT / path).read_text().splitlines()


def nodes(*folders: str) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of every file."""
    for path in files(*folders):
        for node in ast.walk(tree(path)):
            yield path, node


def test_pickle_is_used_in_one_place() -> None:
    users = {
        path
        for path in files("api", "runtime")
        for target in imports(path)
        if target.partition(".")[0] in {"pickle", "cloudpickle", "marshal", "shelve", "dill"}
    }
    assert users <= PICKLES


def test_the_core_opens_no_file() -> None:
    opened = [
        f"{path}:{node.lineno}"
        for path, node in nodes("runtime/core")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"open", "print", "input"}
    ]
    assert opened == []


def test_no_import_has_effects() -> None:
    """A module defines things, and may furnish its own; what it does, it does when it is called."""
    done = []
    for path in files("api", "runtime"):
        own: set[str] = set()
        for node in tree(path).body:
            if isinstance(node, ast.Assign):
                own |= {ast.unparse(target) for target in node.targets}
            elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
                begins = ast.unparse(node).partition(".")[0]
                if begins not in own and path.name != "__main__.py":
                    done.append(f"{path}:{node.lineno}")
    assert done == []


def test_rooms_have_names() -> None:
    assert [path for path in files("api", "runtime") if path.stem in NAMES_BANNED] == []


def test_the_map_is_current() -> None:
    assert (ROOT / MAP).read_text() == text(), "run `python -m tests.house.spine`"


def test_every_folder_is_a_package_that_is_installed() -> None:
    there = {path.parent for path in files("api", "runtime")}
    bare = [folder for folder in there if not (ROOT / folder / "__init__.py").is_file()]
    assert bare == [], "a folder without __init__.py is not found by setup.py"


def test_no_module_has_more_than_400_lines_and_no_class_more_than_300() -> None:
    long = [path for path in files("api", "runtime") if len(lines_of(path)) > 400]
    long_classes = [
        f"{path}: {node.name}"
        for path, node in nodes("api", "runtime")
        if isinstance(node, ast.ClassDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 300
    ]
    assert (long, long_classes) == ([], []), "split it by the state that its parts own"


def test_every_module_says_its_job_in_its_first_line() -> None:
    there = [path for path in files("api", "runtime") if (ROOT / path).stat().st_size]
    assert [path for path in there if not first_line(path).endswith((".", "?", ":"))] == []


def test_one_door_of_the_api_names_the_runtime() -> None:
    """Whether it is imported, or named to be imported later."""
    named = {
        path
        for path, node in nodes("api")
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("skerry.runtime.")
    }
    named |= {
        path for path in files("api") for name in imports(path) if name.startswith("skerry.runtime")
    }
    assert named == {Path("api/host.py")}


def test_all_is_complete() -> None:
    assert len(skerry.__all__) == len(set(skerry.__all__))
    for name in skerry.__all__:
        assert hasattr(skerry, name), f"skerry.__all__ names {name}, which is not there"
    imported = {
        alias.asname or alias.name
        for node in tree(Path("api/__init__.py")).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert {name for name in imported if name[0] != "_"} <= set(skerry.__all__)


ERRORS = sorted(
    (c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.SkerryError)),
    key=lambda c: c.__name__,
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_public_and_raised_somewhere(error: type[errors.SkerryError]) -> None:
    assert getattr(skerry, error.__name__, None) is error, f"skerry.{error.__name__} is missing"
    if error is errors.SkerryError or error is errors.Rejected:
        return  # The root is caught; a refusal is raised by users.
    made = re.compile(rf"\b{error.__name__}\(")
    for path in files("api", "runtime"):
        if path.name != "errors.py" and made.search((ROOT / path).read_text()):
            return
    raise AssertionError(f"{error.__name__} is raised nowhere")


def test_tests_do_not_sleep() -> None:
    """But those that kill at random moments: a moment is a time. A pass of a loop is none."""
    sleeping = [
        f"{path}:{node.lineno}"
        for path, node in nodes("tests")
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"time.sleep", "asyncio.sleep"}
        and ast.unparse(node) != "asyncio.sleep(0)"
        and path.parts[1] != "crash"
    ]
    assert sleeping == [], "wait for what must be true, not for time to pass"


def test_nothing_is_left_lying_about() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [
        path for path in files("api", "runtime") if marks.search((ROOT / path).read_text())
    ] == []


def test_invariants_are_explained() -> None:
    """Every number that an assertion names is explained in the docs."""
    page = (ROOT / "docs/ideas/promises.md").read_text()
    explained = set(re.findall(r"^### (I\d+)\b", page, re.MULTILINE))
    assert explained == {f"I{n}" for n in range(1, 13)}
    named = {
        number
        for path in files("api", "runtime")
        for number in re.findall(r"\bI\d{1,2}\b", (ROOT / path).read_text())
    }
    assert named <= explained


def test_docs_that_are_named_exist() -> None:
    for path in files("api", "runtime"):
        for page in re.findall(r"\bdocs/[a-z_/]+\.md", (ROOT / path).read_text()):
            assert (ROOT / page).is_file(), f"{path} names {page}"


SEEN_FROM_OUTSIDE = {"I8", "I9"}
"""True of whole runs, not of a place in the code: the simulator's runs show them."""


def test_every_invariant_is_asserted_where_it_could_break() -> None:
    asserted = {
        number
        for _, node in nodes("runtime")
        if isinstance(node, ast.Assert | ast.Raise)
        for number in re.findall(r"\bI\d{1,2}\b", ast.unparse(node))
    }
    missing = {f"I{n}" for n in range(1, 13)} - asserted - SEEN_FROM_OUTSIDE
    assert missing == set()
