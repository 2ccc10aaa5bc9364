"""Round trip: whether a value, once stored or sent, comes back unchanged.

msgspec encodes more than it decodes again: a tuple in a field of type Any comes back as a list,
an instance of a subclass as one of its base, a local time in UTC; and it does not check
attributes that are assigned. What a turn leaves behind is acknowledged, so a value that would
come back changed is refused before that, by a rule made of its annotation: exact classes all
the way down, nested no deeper than every reader can follow.

Imports msgspec; knows nothing of entities or messages. `shapes.py` has the rules.
"""

from __future__ import annotations

import datetime
import decimal
import typing
import uuid
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import msgspec
import msgspec.inspect as kinds

from skerry.shapes import (
    NESTING_MAX,
    AnyKey,
    Anything,
    Dict,
    Fields,
    FixedTuple,
    Float,
    Items,
    Moment,
    NamedItems,
    OneOf,
    Opaque,
    Shape,
)

__all__ = ["NESTING_MAX", "RoundTrip"]

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class RoundTrip:
    """The rule for values of one annotation.

    Args:
        annotation: a type.

    Example:
        >>> RoundTrip(list[int]).fault([1, 2.5])
        '[1] = 2.5: a float where int is declared'
    """

    def __init__(self, annotation: Any) -> None:
        made: dict[int, Shape] = {}
        info = kinds.type_info(annotation)  # Held, since `made` knows its parts by their ids.
        self._shape = _shape_of(info, made)
        self._loop = _loop_over(self._shape) if type(self._shape) is Fields else None
        self._decode: Any = None
        if any(shape.constrained for shape in (*made.values(), self._shape)):
            many: Any = list  # Type checkers know no list of a type that is a value.
            self._decode = msgspec.msgpack.Decoder(many[annotation]).decode

    def holds(self, values: Sequence[Any]) -> bool:
        """Tell whether all these values, which msgspec has encoded, come back unchanged.

        A value that contains itself does not encode; this would never find its end.
        """
        if self._loop is not None and self._decode is None and self._loop(values):
            return True
        if not self._shape.holds(values, NESTING_MAX):
            return False
        return self._decode is None or self._returns(values)

    def _returns(self, values: Sequence[Any]) -> bool:
        """Tell whether decoding under the annotation's constraints gives the same bytes again."""
        body = _encode(values)
        try:
            return bool(_encode(self._decode(body)) == body)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
            return False

    def fault(self, value: Any) -> str:
        """Return why a value does not come back unchanged, and where; empty if it does."""
        found = self._shape.fault(value, "", NESTING_MAX)
        if found or self._decode is None:
            return found
        try:
            (back,) = self._decode(_encode([value]))
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            return f" = {value!r:.60}: {error}"
        same = _encode(back) == _encode(value)
        return "" if same else f" = {value!r:.60}: it would come back as {back!r:.60}"


_EXACT: dict[type, tuple[type, ...]] = {
    kinds.NoneType: (type(None),),
    kinds.BoolType: (bool,),
    kinds.IntType: (int,),
    kinds.StrType: (str,),
    kinds.BytesType: (bytes,),
    kinds.ByteArrayType: (bytearray,),
    kinds.DateType: (datetime.date,),
    kinds.TimeDeltaType: (datetime.timedelta,),
    kinds.UUIDType: (uuid.UUID,),
    kinds.DecimalType: (decimal.Decimal,),
    kinds.ExtType: (msgspec.msgpack.Ext,),
    kinds.RawType: (msgspec.Raw,),
}
_LIKE_ITEMS: dict[type, type] = {
    kinds.ListType: list,
    kinds.SetType: set,
    kinds.FrozenSetType: frozenset,
    kinds.VarTupleType: tuple,
}
_CONSTRAINTS = (
    "gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz",
)  # fmt: skip


def _shape_of(info: Any, made: dict[int, Shape]) -> Shape:
    """Return the rule for a type.

    Args:
        info: the type.
        made: the rules begun so far, by the ids of their types, since a type may contain itself.
    """
    if isinstance(info, kinds.Metadata):
        return _shape_of(info.type, made)
    if id(info) in made:
        return made[id(info)]
    if isinstance(
        info,
        kinds.StructType | kinds.DataclassType | kinds.NamedTupleType | kinds.TypedDictType,
    ):
        return _record_of(info, made)
    shape = made[id(info)] = _simple_of(info, made)
    if any(getattr(info, name, None) is not None for name in _CONSTRAINTS):
        shape.constrained = True
    return shape


def _simple_of(info: Any, made: dict[int, Shape]) -> Shape:
    """Return the rule for a type that has no fields."""
    kind = type(info)
    if kind in _EXACT:
        (cls,) = _EXACT[kind]
        return Shape("None" if cls is type(None) else cls.__name__, cls)
    if kind in _LIKE_ITEMS:
        cls = _LIKE_ITEMS[kind]
        item = _shape_of(info.item_type, made)
        return Items(f"{cls.__name__}[{item.declared}]", cls, item)
    match info:
        case kinds.AnyType():
            return Anything()
        case kinds.CustomType(cls=cls) if cls is object:
            return Anything()
        case kinds.FloatType():
            return Float("float", float, int)
        case kinds.DateTimeType():
            return Moment("datetime", datetime.datetime)
        case kinds.TimeType():
            return Moment("time", datetime.time)
        case kinds.EnumType(cls=cls):
            return Shape(cls.__name__, cls)
        case kinds.LiteralType(values=values):
            return Opaque(f"one of {values}", *map(type, values))
        case kinds.DictType(key_type=keys, value_type=values):
            rules = _shape_of(keys, made), _shape_of(values, made)
            if isinstance(rules[0], Anything):
                rules = AnyKey(), rules[1]
            return Dict(f"dict[{rules[0].declared}, {rules[1].declared}]", *rules)
        case kinds.TupleType(item_types=types):
            shape = FixedTuple("a tuple", tuple)
            for at, part in enumerate(types):
                shape.fields.append((f"[{at}]", itemgetter(at), _shape_of(part, made)))
            shape.declared = f"tuple[{', '.join(field[2].declared for field in shape.fields)}]"
            return shape
        case kinds.UnionType(types=types):
            return OneOf([_shape_of(one, made) for one in types])
    return Opaque(kind.__name__)


def _record_of(info: Any, made: dict[int, Shape]) -> Shape:
    """Return the rule for a type that has fields."""
    cls = typing.get_origin(info.cls) or info.cls
    if isinstance(info, kinds.TypedDictType):
        typed = made[id(info)] = NamedItems(cls.__name__)
        typed.fields = {field.encode_name: _shape_of(field.type, made) for field in info.fields}
        return typed
    shape = made[id(info)] = Fields(cls.__name__, cls)
    shape.constrained = hasattr(cls, "__post_init__")
    shape.fields = [
        (f".{field.name}", attrgetter(field.name), _shape_of(field.type, made))
        for field in info.fields
    ]
    return shape


def _loop_over(shape: Fields) -> Callable[[Sequence[Any]], bool] | None:
    """Compile a loop over objects, which is faster than columns if every field is a scalar.

    Returns:
        A function that tells whether all objects fit; None if some field is no scalar.
    """
    classes = {f"c{at}": rule.classes for at, (_, _, rule) in enumerate(shape.fields)}
    if any(type(rule) not in (Shape, Float, OneOf) for _, _, rule in shape.fields):
        return None
    if any(isinstance(rule, OneOf) and rule.classes != rule.plain for _, _, rule in shape.fields):
        return None
    (cls,) = shape.classes
    tests, scope = ["value.__class__ is not cls"], dict[str, Any](cls=cls)
    for (step, _, rule), (name, found) in zip(shape.fields, classes.items()):
        if isinstance(rule, Float):
            found = frozenset({float})
        one = len(found) == 1
        scope[name] = next(iter(found)) if one else found
        tests.append(f"value{step}.__class__ {'is not' if one else 'not in'} {name}")
    source = (
        f"def loop(values):\n"
        f"    for value in values:\n"
        f"        if {' or '.join(tests)}:\n"
        f"            return False\n"
        f"    return True\n"
    )
    exec(source, scope)  # Our own text, and the names of fields, which are identifiers.
    return typing.cast("Callable[[Sequence[Any]], bool]", scope["loop"])
