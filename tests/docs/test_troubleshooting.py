"""The sentences that the troubleshooting page quotes are sentences of the code."""

import ast
import re
from collections.abc import Iterator

import pytest

from skerry import errors
from tests.docs.pages import ROOT
from tests.house.source import files, tree

PAGE = ROOT / "docs/troubleshooting.md"
QUOTES = re.findall(r"^> (.+)$", PAGE.read_text(), re.MULTILINE)


def texts() -> Iterator[str]:
    """Every text of the code, with `…` for what it fills in."""
    for path in files("api", "runtime"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                )
                yield "".join(map(str, parts))


SOURCE = "\n".join(texts())


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_sentence_is_in_the_code(quote: str) -> None:
    """What a quote has between two `…` stands in one text of the code, in this order."""
    pattern = ".*?".join(map(re.escape, quote.strip("…").strip().split("…")))
    assert re.search(pattern, SOURCE), f"no error says this any more: {quote}"


def test_every_class_of_error_has_a_place() -> None:
    shown = set(re.findall(r"`(\w+)`", PAGE.read_text()))
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    assert {each.__name__ for each in classes if issubclass(each, errors.SkerryError)} <= shown
