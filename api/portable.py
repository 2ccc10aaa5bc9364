"""Carries an app by value, for a notebook or a function whose classes no worker can import.

Cloudpickle alone loses the fields of a Struct class that can't be imported. Here such a class,
an entity's or any other, travels as the types and defaults of its fields. It is made again first
and gets its methods afterwards, since they may refer to the class itself.

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
from typing import IO, Any

import cloudpickle
import msgspec

from skerry.annotations import hints_of
from skerry.app import App
from skerry.entity import EntityMeta
from skerry.entity_type import EntityType
from skerry.errors import BadApp
from skerry.handler import Handler

HOME = "skerry_by_value"
"""The `__module__` of classes that came by value."""


_OPTIONS = (
    *("frozen", "eq", "order", "array_like", "tag", "tag_field", "omit_defaults", "gc", "dict"),
    *("repr_omit_defaults", "forbid_unknown_fields", "weakref", "cache_hash"),
)
"""The options of a Struct class that its configuration tells."""


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._under_way: set[type] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, EntityType):
            return operator.attrgetter("__skerry__"), (obj.cls,)
        if isinstance(obj, Handler):
            return _handler, (obj.owner, obj.name)
        if isinstance(obj, type) and _only_here(obj):
            if isinstance(obj, msgspec.StructMeta):
                if obj in self._under_way:
                    raise BadApp(
                        f"{obj.__name__} has a field of its own type, so it can't travel to the "
                        f"workers by value: put it into a module, and import it."
                    )
                self._under_way.add(obj)
                return _reduced(obj)
            if "__msgspec_cache__" in vars(obj):  # Can't travel, and is made again when needed.
                type.__delattr__(obj, "__msgspec_cache__")
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
    is_entity: bool = isinstance(cls, EntityMeta)
    for function in functions.values():
        if is_entity and isinstance(function, types.FunctionType):
            # Cloudpickle carries the globals that code refers to, not those of annotations.
            function.__annotations__ = typing.get_type_hints(function, include_extras=True)
    own, hints = inspect.get_annotations(cls), hints_of(cls, cls.__name__)
    fields = [field for field in msgspec.structs.fields(cls) if field.name in own]
    annotations = {field.name: hints[field.name] for field in fields}
    defaults = {
        field.name: {"default": field.default, "default_factory": field.default_factory}
        for field in fields
        if not field.required
    }
    checked = "__post_init__" in functions
    made_of = (type(cls), cls.__name__, cls.__bases__, annotations, defaults, checked)
    return _make, (*made_of, _options(cls)), functions, None, None, _fill


def _options(cls: Any) -> dict[str, Any]:
    """Return what stood behind the bases of a class."""
    kind: EntityType | None = getattr(cls, "__skerry__", None)
    if kind is not None:
        return {"renamed": kind.renamed, "was": kind.name}
    options = {name: getattr(cls.__struct_config__, name) for name in _OPTIONS}
    options["rename"] = dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__))
    parameters = inspect.signature(cls).parameters.values()
    options["kw_only"] = any(p.kind is p.KEYWORD_ONLY for p in parameters)
    return options


def _make(
    meta: type,
    name: str,
    bases: tuple[type, ...],
    annotations: dict[str, Any],
    defaults: dict[str, dict[str, Any]],
    checked: bool,
    options: dict[str, Any],
) -> Any:
    fields = {field: msgspec.field(**default) for field, default in defaults.items()}
    namespace = {"__module__": HOME, "__annotations__": annotations, **fields}
    if checked:  # msgspec looks for this method when it makes the class, and never again.
        namespace["__post_init__"] = lambda self: type(self).__post_init__(self)
    return meta(name, bases, namespace, **options)


def _handler(cls: Any, name: str) -> Handler:
    found: Handler = cls.__skerry__.handlers[name]
    return found


def _fill(cls: Any, functions: dict[str, Any]) -> None:
    for name, value in functions.items():
        type.__setattr__(cls, name, value)
    kind: EntityType | None = getattr(cls, "__skerry__", None)
    if kind is not None:
        kind.equip()


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
