"""The source files of the house, parsed: what the tests of taste look at."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files(*folders: str) -> list[Path]:
    """All Python files of these folders, relative to the root, in order."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found)


@cache
def tree(path: Path) -> ast.Module:
    """A file, parsed."""
    return ast.parse((ROOT / path).read_text(), filename=str(path))


def name_of(path: Path) -> str:
    """What a file is imported as: `runtime/core/wire.py` is `skerry.runtime.core.wire`."""
    parts = list(path.with_suffix("").parts)
    if parts[0] == "api":
        parts[0] = "skerry"
    elif parts[0] == "runtime":
        parts.insert(0, "skerry")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def path_of(name: str) -> Path | None:
    """The file of a module of the house, None when there is none."""
    parts = name.split(".")
    if parts[:2] == ["skerry", "runtime"]:
        folder = Path("runtime", *parts[2:])
    elif parts[0] == "skerry":
        folder = Path("api", *parts[1:])
    else:
        return None
    for path in (folder.with_suffix(".py"), folder / "__init__.py"):
        if (ROOT / path).is_file():
            return path
    return None


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, not those for type checkers alone.

    `from package import module` counts as the module.
    """
    for node in _walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if path_of(inner) else node.module


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _walk(child)


def first_line(path: Path) -> str:
    """The first line of a module's docstring: its job."""
    return (ast.get_docstring(tree(path)) or "").partition("\n")[0]
