"""Carries an app by value, for a notebook or a function whose classes no worker can import.

Cloudpickle alone loses the fields of an entity class that can't be imported. Here such a class
travels as the types and defaults of its fields. It is made again first and gets its methods
afterwards, since they may refer to the class itself.

An app is read from the parent process only, over a pipe that the parent made: never from a
socket or store.
"""

from __future__ import annotations

import inspect
import io
import operator
import pickle
import types
import typing
from typing import Any

import cloudpickle
import msgspec

from skerry.annotations import hints_of
from skerry.app import App
from skerry.entity import EntityMeta
from skerry.entity_type import EntityType
from skerry.handler import Handler

HOME = "skerry_by_value"
"""The `__module__` of classes that came by value."""


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
    """Tell whether no other process could import a class."""
    return cls.__module__ == "__main__" or "<locals>" in cls.__qualname__


def _reduced(cls: Any) -> tuple[Any, ...]:
    functions = {
        name: value
        for name, value in vars(cls).items()
        if isinstance(value, types.FunctionType | classmethod | staticmethod | property)
    }
    for function in functions.values():
        if isinstance(function, types.FunctionType):
            # Cloudpickle carries the globals that code refers to, not those of annotations.
            function.__annotations__ = typing.get_type_hints(function, include_extras=True)
    own, hints = inspect.get_annotations(cls), hints_of(cls, cls.__name__)
    defaults = {}
    for field in msgspec.structs.fields(cls):
        if field.name in own:
            made = field.default_factory is not msgspec.NODEFAULT
            defaults[field.name] = field.default_factory() if made else field.default
    kind = cls.__skerry__
    options = {"renamed": kind.renamed, "was": kind.name}
    annotations = {field: hints[field] for field in defaults}
    made_of = (cls.__name__, cls.__bases__, annotations, defaults, options)
    return _make, made_of, functions, None, None, _fill


def _make(
    name: str,
    bases: tuple[type, ...],
    annotations: dict[str, Any],
    defaults: dict[str, Any],
    options: dict[str, Any],
) -> Any:
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
    """Return an app as bytes, including classes that can't be imported."""
    file = io.BytesIO()
    _Pickler(file).dump(app)
    return file.getvalue()


def loads(data: bytes) -> App:
    """Return the app that `dumps` wrote."""
    app = pickle.loads(data)
    assert isinstance(app, App), "our parent sends an app and nothing else"
    return app
