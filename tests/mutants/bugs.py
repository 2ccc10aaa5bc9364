"""A planted bug: a function that stands in for one of the package's, and breaks a rule of it.

    @bug("a small store is opened unread", "store.environment:Environment.verify_small")
    def _(verify_small, self):
        pass

It gets the function that it stands in for, then that function's own arguments by their own
names, and mostly calls it with something changed before or behind it. So it follows the rule
by name, whatever becomes of the text: a name or an argument that is gone is an error.

In a copy of the package the module of the function ends with a call of `plant`. The bug itself
is loaded at its first use, when all of the package can be imported.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOMS = (
    "app",
    "balance",
    "client",
    "cluster",
    "core",
    "gateway",
    "homes",
    "hosts",
    "moves",
    "replicated",
    "simulator",
    "store",
    "streams",
    "tables",
)
"""The modules beside this one that hold the bugs."""

FAULT = "fault.txt"
"""Beside the copy of the package: how a bug failed by itself, which is no way to be found."""

_FAULTS = (AttributeError, ImportError, NameError, TypeError)
_PACKAGE = "skerry.runtime"


class Bug(NamedTuple):
    """A planted bug."""

    name: str
    module: str
    """Without the name of the package."""
    target: str
    """The function or method there."""
    instead: Callable[..., Any]

    @property
    def room(self) -> str:
        """The module beside this one that holds it."""
        return self.instead.__module__.rpartition(".")[2]

    @property
    def file(self) -> str:
        """The module's file in the package's folder."""
        return f"{self.module.replace('.', '/')}.py"

    def plant(self, folder: Path) -> None:
        """Put it into this copy of the package's folder."""
        with (folder / self.file).open("a") as code:
            code.write(
                f"\nfrom {__name__} import plant as _plant\n\n"
                f"_plant(__name__, {self.target!r}, {self.name!r})\n"
            )

    def check(self) -> None:
        """Raise AssertionError when the function is gone, or its arguments have changed."""
        whole = f"{_PACKAGE}.{self.module}"
        owner, attribute = _place(importlib.import_module(whole), self.target)
        original = vars(owner).get(attribute)
        assert original is not None, f"{whole} has no {self.target}"
        function = _function_of(original)
        assert function.__module__ == whole, f"{self.target} is imported into {whole}"
        theirs, (_, *ours) = map(_parameters, (function, self.instead))
        if ours and ours[-1].kind is inspect.Parameter.VAR_POSITIONAL:
            ours.pop()
            theirs = theirs[: len(ours)]
        assert [(p.name, p.kind) for p in ours] == [(p.name, p.kind) for p in theirs], (
            f"{self.target} takes {inspect.signature(function)}"
        )


BUGS: list[Bug] = []


def bug(name: str, place: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Name what follows a planted bug; `place` is `module:function` or `module:Class.method`."""
    module, _, target = place.partition(":")

    def add(instead: Callable[..., Any]) -> Callable[..., Any]:
        BUGS.append(Bug(name, module, target, instead))
        return instead

    return add


@functools.cache
def all_bugs() -> dict[str, Bug]:
    """Every bug by its name."""
    for room in ROOMS:
        importlib.import_module(f"tests.mutants.{room}")
    found = {each.name: each for each in BUGS}
    assert len(found) == len(BUGS), "two bugs have one name"
    return found


def plant(module: str, target: str, name: str) -> None:
    """Put a stand-in in place of a function. The last line of the function's module calls this."""
    owner, attribute = _place(sys.modules[module], target)
    setattr(owner, attribute, _stand_in(vars(owner)[attribute], name))


def _place(module: ModuleType, target: str) -> tuple[Any, str]:
    *classes, attribute = target.split(".")
    return functools.reduce(getattr, classes, module), attribute


def _function_of(original: Any) -> Callable[..., Any]:
    if isinstance(original, property):
        assert original.fget is not None, "a property is read"
        return original.fget
    return getattr(original, "__func__", original)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _stand_in(original: Any, name: str) -> Any:
    function = _function_of(original)

    @functools.wraps(function)
    def planted(*args: Any, **kwargs: Any) -> Any:
        instead = all_bugs()[name].instead
        if inspect.isgeneratorfunction(instead):
            return _each(instead(function, *args, **kwargs))
        try:
            return instead(function, *args, **kwargs)
        except _FAULTS as error:
            _note(error)
            raise

    if isinstance(original, property):
        return property(planted, original.fset)
    return planted if function is original else type(original)(planted)


def _each(made: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from made
    except _FAULTS as error:
        _note(error)
        raise


def _note(error: Exception) -> None:
    """Write down an error that a bug itself has raised, not the code that it broke."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = Path(frame.f_code.co_filename)
    if file.parent == Path(__file__).parent or file.parent.name == "unittest":
        package = Path(sys.modules["skerry"].__file__ or "").parent
        (package.parent / FAULT).write_text("".join(traceback.format_exception(error)))
