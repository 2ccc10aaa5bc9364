"""Shapes: rules that say whether a column of values comes back from msgpack unchanged.

Values are checked in columns: all values of one field, then all their items together, level by
level. So the classes of a thousand numbers are compared in one pass in C, and counting depth
costs nothing. Only a column that is refused is looked at value by value, for an error that names
the place.

Imports msgspec; `roundtrip.py` says which shape an annotation has.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

NESTING_MAX = 256
"""How deep a value may nest. A decoder reads some 900 levels if little else is on the stack, and
fewer in a program with many frames."""

_encode = msgspec.msgpack.Encoder().encode

Part = tuple[str, "Shape", Any]
"""A part of a value: the step to it as text, its rule, and the part."""


def _said(value: Any) -> str:
    """Return a value and its class, for an error message."""
    return f"{value!r:.60}: {_a(type(value))}"


def _a(cls: type) -> str:
    """Return a class's name with its article."""
    return f"{'an' if cls.__name__[0] in 'aeiouAEIOU' else 'a'} {cls.__name__}"


class Shape:
    """The rule for one place in a value."""

    constrained = False
    """Whether the annotation asks for more than exact classes, so that only decoding can tell."""

    def __init__(self, declared: str, *classes: type) -> None:
        self.declared, self.classes = declared, frozenset(classes)
        self._only = classes[0] if len(classes) == 1 else None

    def holds(self, values: Iterable[Any], levels: int) -> bool:
        """Tell whether all values of a column fit.

        Args:
            values: the column.
            levels: how much deeper the values may nest.
        """
        found = list(map(type, values))
        if self._only is not None:  # Twice as fast as hashing each class.
            return found.count(self._only) == len(found)
        return self.classes.issuperset(found)

    def fault(self, value: Any, place: str, levels: int) -> str:
        """Return what is wrong at `place` or below; empty if nothing is."""
        if levels < 0:
            deep = f"it nests deeper than {NESTING_MAX} levels, which no reader takes"
            return f"{place[:20]}…: {deep}"
        if type(value) not in self.classes:
            return f"{place} = {_said(value)}{self._instead(value)}"
        for step, shape, part in self.parts(value):
            if found := shape.fault(part, place + step, levels - 1):
                return found
        if not self.holds((value,), levels):
            return f"{place} = {value!r:.60}: {self._cause(value)}"
        return ""

    def parts(self, value: Any) -> Iterator[Part]:
        """Iterate over the parts of a value whose own class fits."""
        return iter(())

    def _instead(self, value: Any) -> str:
        """Return what was declared instead of a value's class, and what would become of the value."""
        where = f" where {self.declared} is declared"
        base = next((c for c in type(value).__mro__[1:] if c in self.classes), None)
        if base is None or type(value) is bool:
            return where
        return f"{where}, and it would come back as {_a(base)}"

    def _cause(self, value: Any) -> str:
        return "it would not come back as it is"


class Opaque(Shape):
    """The rule for a type that only its decoder can judge."""

    constrained = True

    def holds(self, values: Iterable[Any], levels: int) -> bool:
        return not self.classes or super().holds(values, levels)

    def fault(self, value: Any, place: str, levels: int) -> str:
        return super().fault(value, place, levels) if self.classes else ""


class Float(Shape):
    """The rule for a float, or an int that a float can hold."""

    def holds(self, values: Iterable[Any], levels: int) -> bool:
        values = list(values)
        found = set(map(type, values))
        if found <= {float}:
            return True
        return found <= {float, int} and all(
            -(2**53) <= value <= 2**53 for value in values if type(value) is int
        )

    def _cause(self, value: Any) -> str:
        return f"an int that would come back as the float {float(value)!r}"


class Moment(Shape):
    """The rule for a datetime or time, in UTC or without a zone."""

    def holds(self, values: Iterable[Any], levels: int) -> bool:
        values = list(values)
        return super().holds(values, levels) and all(map(_is_utc_or_naive, values))

    def _cause(self, value: Any) -> str:
        return (
            f"its time zone, {value.tzinfo}, is not kept: it would come back in UTC. Give "
            f"`value.astimezone(UTC)`, and the zone's name as a text beside it"
        )


def _is_utc_or_naive(value: datetime.datetime | datetime.time) -> bool:
    zone = value.tzinfo
    return zone is None or zone is datetime.UTC or zone.tzname(None) == "UTC"


class Nested(Shape):
    """The rule for a value with parts, one level further down."""

    def holds(self, values: Iterable[Any], levels: int) -> bool:
        values = list(values)
        if not values:
            return True
        return levels > 0 and super().holds(values, levels) and self._inside(values, levels - 1)

    def _inside(self, values: list[Any], levels: int) -> bool:
        """Tell whether the parts fit of values that are all of the right class."""
        raise NotImplementedError


class Items(Nested):
    """The rule for a list, set, frozenset or tuple whose items share a rule."""

    def __init__(self, declared: str, cls: type, item: Shape | None = None) -> None:
        super().__init__(declared, cls)
        self.item = item or ANY

    def _inside(self, values: list[Any], levels: int) -> bool:
        return self.item.holds(chain.from_iterable(values), levels)

    def parts(self, value: Any) -> Iterator[Part]:
        return ((f"[{at}]", self.item, part) for at, part in enumerate(value))


class Fields(Nested):
    """The rule for a value with fixed parts: a Struct, dataclass or NamedTuple."""

    def __init__(self, declared: str, cls: type) -> None:
        super().__init__(declared, cls)
        self.fields: list[tuple[str, Any, Shape]] = []
        """(the step to a part as text, the function that gets the part, the part's rule)."""

    def _inside(self, values: list[Any], levels: int) -> bool:
        # Not `all(…)`, which takes one more frame of the interpreter's stack for each level.
        for _, get, shape in self.fields:  # noqa: SIM110
            if not shape.holds(map(get, values), levels):
                return False
        return True

    def parts(self, value: Any) -> Iterator[Part]:
        return ((step, shape, get(value)) for step, get, shape in self.fields)


class FixedTuple(Fields):
    """The rule for a tuple of a fixed length."""

    def _inside(self, values: list[Any], levels: int) -> bool:
        size = len(self.fields)
        return all(len(value) == size for value in values) and super()._inside(values, levels)

    def parts(self, value: Any) -> Iterator[Part]:
        return super().parts(value) if len(value) == len(self.fields) else iter(())

    def _cause(self, value: Any) -> str:
        return f"{len(value)} items where {self.declared} is declared"


class NamedItems(Nested):
    """The rule for a TypedDict, of whose keys some may be missing."""

    constrained = True

    def __init__(self, declared: str) -> None:
        super().__init__(declared, dict)
        self.fields: dict[str, Shape] = {}

    def _inside(self, values: list[Any], levels: int) -> bool:
        return all(map(self.fields.keys().__ge__, (value.keys() for value in values))) and all(
            shape.holds([value[name] for value in values if name in value], levels)
            for name, shape in self.fields.items()
        )

    def parts(self, value: Any) -> Iterator[Part]:
        return (
            (f"[{key!r}]", self.fields[key], part)
            for key, part in value.items()
            if key in self.fields
        )

    def _cause(self, value: Any) -> str:
        unknown = sorted(map(repr, value.keys() - self.fields.keys()))
        return f"{self.declared} has no {', '.join(unknown)}"


class Dict(Nested):
    """The rule for a dict whose keys share a rule, and whose values do."""

    def __init__(self, declared: str, keys: Shape, values: Shape) -> None:
        super().__init__(declared, dict)
        self.keys, self.values = keys, values

    def _inside(self, values: list[Any], levels: int) -> bool:
        keys, items = chain.from_iterable(values), chain.from_iterable(map(dict.values, values))
        return self.keys.holds(keys, levels) and self.values.holds(items, levels)

    def parts(self, value: Any) -> Iterator[Part]:
        keys = ((f": its key {key!r:.60}", self.keys, key) for key in value)
        return chain(keys, ((f"[{key!r:.60}]", self.values, part) for key, part in value.items()))


class OneOf(Shape):
    """The rule for a union, whose members are told apart by class."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        by_class = {cls: shape for shape in shapes for cls in sorted(shape.classes, key=id)}
        for shape in shapes:  # An int is taken for a float only where no int is declared.
            if not isinstance(shape, Float):
                by_class |= dict.fromkeys(shape.classes, shape)
        super().__init__(" | ".join(shape.declared for shape in shapes), *by_class)
        self.plain = frozenset(cls for cls, shape in by_class.items() if type(shape) is Shape)
        self._by_class = by_class

    def holds(self, values: Iterable[Any], levels: int) -> bool:
        values = list(values)
        found = set(map(type, values))
        if found <= self.plain:
            return True
        return found <= self.classes and all(
            self._by_class[cls].holds([v for v in values if type(v) is cls], levels)
            for cls in found - self.plain
        )

    def fault(self, value: Any, place: str, levels: int) -> str:
        shape = self._by_class.get(type(value))
        return (
            super().fault(value, place, levels)
            if shape is None
            else shape.fault(value, place, levels)
        )


class Anything(Shape):
    """The rule for `Any`, which comes back as msgpack's own types."""

    _scalars: frozenset[type] = frozenset(
        {int, float, str, bool, bytes, type(None), msgspec.msgpack.Ext}
    )

    def __init__(self) -> None:
        super().__init__("Any", *self._scalars, list, dict, datetime.datetime)

    def holds(self, values: Iterable[Any], levels: int) -> bool:
        # A loop and not recursion, so that depth takes no frames.
        while True:
            values = list(values)
            found = set(map(type, values))
            if found <= self._scalars:
                return True
            if levels <= 0 or not found <= self.classes:
                return False
            inside, keys = list[Any](), list[Any]()
            for value in values:
                if type(value) is list:
                    inside += value
                elif type(value) is dict:
                    keys += value
                    inside += value.values()
                elif type(value) is datetime.datetime and not _is_utc(value):
                    return False
            values, levels = inside, levels - 1
            if not ANY_KEY.holds(keys, levels):
                return False

    def parts(self, value: Any) -> Iterator[Part]:
        if type(value) is list:
            return ((f"[{at}]", self, part) for at, part in enumerate(value))
        if type(value) is dict:
            keys = ((f": its key {key!r:.60}", ANY_KEY, key) for key in value)
            return chain(keys, ((f"[{key!r:.60}]", self, part) for key, part in value.items()))
        return iter(())

    def _instead(self, value: Any) -> str:
        try:
            back = _a(type(msgspec.msgpack.decode(_encode(value))))
        except Exception as error:
            return f", which can't be kept: {error}"
        return f", which would come back as {back}: declare its type, or give what it comes back as"

    def _cause(self, value: Any) -> str:
        if type(value) is datetime.datetime and value.tzinfo is None:
            return "a datetime without a zone would come back as a str: declare its type"
        if type(value) is datetime.datetime:
            return f"its time zone, {value.tzinfo}, is not kept: give `value.astimezone(UTC)`"
        return f"it nests deeper than {NESTING_MAX} levels, which no reader takes"


def _is_utc(value: datetime.datetime) -> bool:
    return value.tzinfo is not None and _is_utc_or_naive(value)


class AnyKey(Anything):
    """The rule for a dict's key of type `Any`."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = frozenset({*self._scalars, tuple, datetime.datetime})

    def holds(self, values: Iterable[Any], levels: int) -> bool:
        values = list(values)
        found = set(map(type, values))
        if found <= self._scalars:
            return True
        if levels <= 0 or not found <= self.classes:
            return False
        moments = all(_is_utc(value) for value in values if type(value) is datetime.datetime)
        tuples = [value for value in values if type(value) is tuple]
        return moments and self.holds(chain.from_iterable(tuples), levels - 1)

    def parts(self, value: Any) -> Iterator[Part]:
        if type(value) is tuple:
            return ((f"[{at}]", self, part) for at, part in enumerate(value))
        return iter(())


ANY: Shape = Anything()
ANY_KEY: Shape = AnyKey()
