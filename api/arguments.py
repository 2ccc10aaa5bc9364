"""Arguments: checked where a verb is called, written as bytes, and read back.

The check is a function compiled from a handler's signature: it takes 50 ns where a generic
binding takes 2,400. Arguments that are all scalars stay values; any others become bytes at
once, so that no two turns share an object.

Imports msgspec; knows nothing of entities, or of where messages go.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from skerry.annotations import refuse_custom
from skerry.errors import InvalidMessage
from skerry.limits import INT_MAX, INT_MIN, LARGE, is_text, measured
from skerry.roundtrip import RoundTrip

Args = tuple[Any, ...] | bytes
"""A message's arguments: values when all are scalars, else the msgpack bytes of their array."""

Bind = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, ...]]

NO_ARGS = b"\x90"
"""The bytes of no arguments: an empty msgpack array."""

_SCALARS = (int, float, str, bool, bytes, type(None))
INLINE = {int: "int", str: "str", float: "float", bool: "bool", bytes: "bytes"}
"""The types whose check is one comparison of classes, with their names in compiled code."""

_encode = msgspec.msgpack.Encoder().encode


class Param(Struct, frozen=True):
    """One parameter of a handler."""

    name: str
    annotation: Any
    default: Any
    """`inspect.Parameter.empty` if it is required."""

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


class Arguments:
    """The codec of a handler's arguments, or of those behind its first one.

    Args:
        what: the handler's name in error messages, as "Account.deposit".
        params: the parameters, in the order in which arguments are stored.
        where: ", behind the outcome", for error messages, or nothing.
    """

    def __init__(self, what: str, params: Sequence[Param], where: str = "") -> None:
        self.params, self._what, self._where = tuple(params), what, where
        for param in self.params:
            refuse_custom(param.annotation, f"{what}: argument `{param.name}`")
        self.types = tuple(param.annotation for param in self.params)
        self.scalar = all(map(_is_scalar, self.types))
        self._have = f"{what}: the arguments have"
        try:
            whole = tuple[self.types] if self.types else tuple[()]  # type: ignore[name-defined]
            self.decode: Callable[[bytes], tuple[Any, ...]] = msgspec.msgpack.Decoder(whole).decode
            """Reads the bytes of this release. Raises MsgspecError."""
        except TypeError as error:
            raise TypeError(f"{what}: {error}") from error
        self._round_trips = [RoundTrip(param.annotation) for param in self.params]
        self.bind = self._compiled_bind()
        """Takes the arguments of a call; returns all by position, as they are annotated. Raises
        TypeError."""

    # ── from a call ──

    def fill(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return a call's arguments by position, with defaults filled in.

        Raises:
            TypeError: too many arguments, an unknown one, one given twice, one missing.
        """
        names = [param.name for param in self.params]
        if len(args) > len(names):
            raise TypeError(
                f"{self._what} takes {len(names)} arguments "
                f"({', '.join(names)}{self._where}), not {len(args)}"
            )
        given = dict(zip(names, args))
        for name, value in kwargs.items():
            if name not in names:
                raise TypeError(f"{self._what} has no argument `{name}`")
            if name in given:
                raise TypeError(f"{self._what} got `{name}` twice")
            given[name] = value
        for param in self.params:
            if param.required and param.name not in given:
                raise TypeError(f"{self._what} misses its argument `{param.name}`")
        return tuple(given.get(param.name, param.default) for param in self.params)

    def _compiled_bind(self) -> Bind:
        """Compile the check: count, classes and ranges in one function, and only a misfit goes on."""
        source = (
            f"def bind(args, kwargs):\n"
            f"    if kwargs or len(args) != {len(self.params)}:\n"
            f"        args = fill(args, kwargs)\n"
        )
        if not all(kind in INLINE for kind in self.types):
            source += "    return slow(args)\n"
        elif self.params:
            columns = [(f"a{at}", INLINE[kind]) for at, kind in enumerate(self.types)]
            tests = [f"{name}.__class__ is not {kind}" for name, kind in columns]
            for name, kind in columns:  # Behind the tests of classes: only then is there a length.
                if kind in ("str", "bytes"):
                    tests.append(f"len({name}) > {LARGE}")
                if kind == "int":
                    tests.append(f"not {INT_MIN} <= {name} <= {INT_MAX}")
                if kind == "str":
                    tests.append(f"not ({name}.isascii() or is_text({name}))")
            source += f"    {', '.join(name for name, _ in columns)}, = args\n"
            source += f"    return slow(args) if {' or '.join(tests)} else args\n"
        else:
            source += "    return args\n"
        scope: dict[str, Any] = {"fill": self.fill, "slow": self._check_slow, "is_text": is_text}
        exec(source, scope)  # Our own text: type names of a fixed table and numbers only.
        return typing.cast("Bind", scope["bind"])

    def _check_slow(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        checked = []
        for param, value in zip(self.params, args):
            where = f"{self._what}: argument `{param.name}`"
            try:
                converted = _converted(value, param.annotation)
            except (msgspec.ValidationError, TypeError) as error:
                raise TypeError(f"{where} = {value!r:.80}: {error}") from None
            if type(value) is int and converted != value:
                raise TypeError(f"{where} = {value!r:.80}: it would arrive as {converted!r}")
            checked.append(converted)
        if self.scalar:  # Any others are encoded at once.
            self.encoded(tuple(checked))
        return tuple(checked)

    # ── bytes ──

    def encoded(self, args: tuple[Any, ...]) -> bytes:
        """Return checked arguments as bytes.

        Raises:
            TypeError: one can't be encoded, or would arrive as something else.
            ValueError: all together are too large for a message.
        """
        try:
            body = _encode(args)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(f"{self._what}: {error}") from error
        if not self.scalar:  # Scalars have their classes from the check.
            for param, rule, value in zip(self.params, self._round_trips, args):
                if not rule.holds((value,)):
                    fault = rule.fault(value)
                    raise TypeError(f"{self._what}: argument `{param.name}`{fault}")
        return measured(body, self._have, "; send parts, or the name of a file")

    def unpack(self, args: bytes) -> tuple[Any, ...]:
        """Return arguments from bytes, which hold them by position or by name.

        Raises:
            InvalidMessage: they do not fit this release.
        """
        try:
            return self.decode(args)
        except msgspec.MsgspecError as error:
            first = error
        try:
            given = msgspec.msgpack.decode(args)
            if isinstance(given, dict):
                values = self.fill((), given)
            elif isinstance(given, list):
                values = self.fill(tuple(given), {})
            else:
                raise first
        except TypeError as error:
            raise InvalidMessage(str(error)) from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidMessage(f"{self._what}: {first}") from error
        return tuple(map(self._fitted, values, self.params))

    def _fitted(self, value: Any, param: Param) -> Any:
        try:
            return msgspec.convert(value, param.annotation)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise InvalidMessage(f"{self._what}: argument `{param.name}`: {error}") from error

    def reordered(self, names: Sequence[str], args: bytes) -> bytes:
        """Rewrite stored arguments of an older release in this release's order.

        Arguments that this release lacks are left out, and its defaults filled in.

        Args:
            names: the older release's names of what `args` holds.
            args: the stored bytes.
        """
        given = dict(zip(names, msgspec.msgpack.decode(args)))
        if any(param.required and param.name not in given for param in self.params):
            # Its turn will say which one is missing, so names have to stay with values.
            ours = {param.name for param in self.params}
            return _encode({name: value for name, value in given.items() if name in ours})
        return _encode([given.get(param.name, param.default) for param in self.params])


def _converted(value: Any, annotation: Any) -> Any:
    """Return a value as its annotation has it. Raises ValidationError, TypeError."""
    kind = type(value)
    if annotation is Any or annotation is kind:
        return value
    if annotation is int and isinstance(value, int) and kind is not bool:
        return int(value)
    return msgspec.convert(value, annotation)


def _is_scalar(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, type(int | str)):
        return all(_is_scalar(part) for part in typing.get_args(annotation))
    return annotation in _SCALARS
