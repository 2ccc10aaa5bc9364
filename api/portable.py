"""An app by value, for a notebook or a function whose classes no worker can import.

Cloudpickle alone loses the fields of a Struct class that can't be imported. Here such a
class travels as its annotations and defaults, is made again first, and gets its functions
after: they may refer to the class itself. Annotations stay the text or the types that they
were, since they name the schema; what a text names travels beside it.

Only ever read from the parent process, over a pipe that it made: never from a socket or store.
"""

from __future__ import annotations

import io
import operator
import pickle
import sys
import types
import typing
from typing import Any

import cloudpickle
import msgspec

from skerry.app import App
from skerry.entity import EntityMeta, EntityType
from skerry.message import Handler

HOME = "skerry_by_value"
"""The module of classes that came by value, where their annotations find what they name."""


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, EntityMeta) and _only_here(obj):
            return _reduced(obj)
        if isinstance(obj, EntityType):
            return operator.attrgetter("__skerry__"), (obj.cls,)
        if isinstance(obj, Handler):
            return _handler, (obj.owner, obj.name)
        return super().reducer_override(obj)


def _only_here(cls: Any) -> bool:
    """Whether no other process could import a class."""
    return cls.__module__ == "__main__" or "<locals>" in cls.__qualname__


def _reduced(cls: Any) -> tuple[Any, ...]:
    functions = {
        name: value
        for name, value in vars(cls).items()
        if isinstance(value, types.FunctionType | classmethod | staticmethod | property)
    }
    for function in functions.values():
        if isinstance(function, types.FunctionType):
            # The names in an annotation are none that the function's code refers to.
            function.__annotations__ = typing.get_type_hints(function, include_extras=True)
    defaults = {}
    for field in msgspec.structs.fields(cls):
        if field.name in vars(cls).get("__annotations__", {}):
            made = field.default_factory is not msgspec.NODEFAULT
            defaults[field.name] = field.default_factory() if made else field.default
    kind = cls.__skerry__
    options = {"renamed": kind.renamed, "was": kind.name}
    annotations = dict(vars(cls).get("__annotations__", {}))
    made_of = (cls.__name__, cls.__bases__, annotations, _named(cls), defaults, options)
    return _make, made_of, functions, None, None, _fill


def _named(cls: Any) -> dict[str, Any]:
    """What the texts among a class's annotations name."""
    known = vars(sys.modules[cls.__module__])
    names: set[str] = set()
    for annotation in vars(cls).get("__annotations__", {}).values():
        if isinstance(annotation, str):
            names.update(compile(annotation, "<annotation>", "eval").co_names)
    return {name: known[name] for name in names if name in known}


def _make(
    name: str,
    bases: tuple[type, ...],
    annotations: dict[str, Any],
    named: dict[str, Any],
    defaults: dict[str, Any],
    options: dict[str, Any],
) -> Any:
    vars(sys.modules.setdefault(HOME, types.ModuleType(HOME))).update(named)
    namespace = {"__module__": HOME, "__annotations__": annotations, **defaults}
    return EntityMeta(name, bases, namespace, **options)


def _handler(cls: Any, name: str) -> Handler:
    found: Handler = cls.__skerry__.handlers[name]
    return found


def _fill(cls: Any, functions: dict[str, Any]) -> None:
    for name, value in functions.items():
        type.__setattr__(cls, name, value)
    cls.__skerry__.equip()


def dumps(app: App) -> bytes:
    """An app as bytes, its classes included when they live in `__main__`."""
    file = io.BytesIO()
    _Pickler(file).dump(app)
    return file.getvalue()


def loads(data: bytes) -> App:
    """The app that `dumps` wrote."""
    app = pickle.loads(data)
    assert isinstance(app, App), "our parent sends an app and nothing else"
    return app
