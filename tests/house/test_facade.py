"""A shard is used by its own methods: outside the core nobody reaches through it into its parts."""

import ast
from pathlib import Path

from tests.house.source import files, tree

INSIDE = Path("runtime/core")


def _is_shard(node: ast.expr) -> bool:
    """Whether an expression is called a shard: `shard`, `self._shard`, `machine.shard`."""
    name = getattr(node, "attr", getattr(node, "id", ""))
    return name in {"shard", "_shard"}


def reaches(path: Path) -> list[str]:
    """Places where a file takes an attribute of an attribute of a shard."""
    return [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and _is_shard(node.value.value)
    ]


def test_nobody_reaches_through_a_shard() -> None:
    outside = [path for path in files("runtime") if not path.is_relative_to(INSIDE)]
    outside += files("tests/gateway", "tests/processes", "tests/client", "api")
    assert [place for path in outside for place in reaches(path)] == []
