"""Annotations: the types that a class or a function names, alike on every Python.

Types are read from finished classes and functions, never from the namespace that a class is
made of: since Python 3.14 the namespace holds no types, only a function that makes them.

The text of a type is part of what is stored, so it is written here: `repr` spells one and the
same type differently from one Python to the next. Imports msgspec and xxhash, and nothing of
ours.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from typing import Any

import msgspec
import msgspec.inspect
import xxhash

_ID_MASK = (1 << 63) - 1


def content_id(text: str) -> int:
    """Return 63 bits that identify a text: the same in every process, shard and release."""
    return xxhash.xxh3_64_intdigest(text.encode()) & _ID_MASK


def hints_of(thing: Any, what: str) -> dict[str, Any]:
    """Return the types of a class's fields, or of a function's arguments and reply.

    Args:
        thing: a finished class, or a function.
        what: its name in an error message.

    Raises:
        TypeError: an annotation names something that does not exist.
    """
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except NameError as error:
        missing = re.compile(rf"\b{re.escape(error.name or '')}\b")
        written = _written(thing)
        name = next((name for name, each in written.items() if missing.search(str(each))), "?")
        place = f"argument `{name}`" if inspect.isfunction(thing) else f"field `{name}`"
        raise TypeError(
            f"{what}: {'its reply' if name == 'return' else place} is annotated with `{error.name}`, "
            f"which is not there when the class is made. Import or define it above the class, not "
            f"under `if TYPE_CHECKING:` or in a function."
        ) from error


def returned(function: Any) -> Any:
    """Return what a function is annotated to return; Any where nothing says it."""
    if isinstance(function, type):
        return function
    try:
        return typing.get_type_hints(function, include_extras=True).get("return", Any)
    except Exception:  # A builtin, or annotations that name what is not there.
        return Any


def _written(thing: Any) -> dict[str, Any]:
    """Return annotations without evaluating any of them."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(thing, format=annotationlib.Format.STRING)
    return inspect.get_annotations(thing)


def own_hints(name: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the types of the fields that a class body adds, before its class is made.

    The body is first made into a plain class that is thrown away: only the interpreter itself
    knows how annotations lie in a namespace.

    Raises:
        TypeError: an annotation names something that does not exist.
    """
    hints = hints_of(type(name, (), namespace), name)
    return {field: hint for field, hint in hints.items() if not _is_class_variable(hint)}


def _is_class_variable(hint: Any) -> bool:
    return hint is typing.ClassVar or typing.get_origin(hint) is typing.ClassVar


def type_text(annotation: Any) -> str:
    """Return the text that identifies a type in what is stored.

    Aliases and orders that mean one type give one text (`Optional[int]`, `None | int`), and
    constraints are left out: they change what is accepted, not how it is written.

    Example:
        >>> type_text(typing.Optional[typing.List[int]])
        'None | list[int]'
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(args[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(sorted(map(type_text, args)))
    if origin is typing.Literal:
        return f"Literal[{', '.join(sorted(map(repr, args)))}]"
    if args:
        return f"{type_text(origin)}[{', '.join(map(type_text, args))}]"
    if origin is not None:
        return type_text(origin)
    if annotation is types.NoneType:
        return "None"
    return getattr(annotation, "__name__", None) or repr(annotation)


def refuse_custom(annotation: Any, what: str) -> None:
    """Refuse a type that msgspec encodes or decodes only with a hook.

    Raises:
        TypeError: names the type, after `what`.
    """
    waiting: list[Any] = [msgspec.inspect.type_info(annotation)]
    seen: set[int] = set()
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.CustomType) and info.cls is not object:
            raise TypeError(
                f"{what}: {info.cls.__name__} can't be stored or sent; use a type that msgspec "
                f"supports, as a Struct, a dataclass or a dict"
            )
        if isinstance(info, tuple | list):
            waiting += info
        elif (
            isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and id(info) not in seen
        ):
            seen.add(id(info))
            waiting += [getattr(info, name) for name in info.__struct_fields__]
