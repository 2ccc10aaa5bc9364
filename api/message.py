"""Message and handler: what is sent, and where wrong arguments are refused.

A `Handler` is made once per handler of an entity class. It checks arguments where a verb is
called, and knows how they are written to bytes and read back. Arguments that are scalars
stay values; any others become bytes at once, so that no object is shared between two turns.

The checks are a function compiled from the handler's signature: 50 ns where a generic
binding costs 2,400. Imports msgspec; knows nothing of where messages go.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

import msgspec
from msgspec import Struct

from skerry.annotations import content_id, hints_of, refuse_custom, type_text
from skerry.errors import Failed, InvalidMessage, Rejected, SkerryError
from skerry.roundtrip import RoundTrip

if TYPE_CHECKING:
    from skerry.entity import Entity

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Args = tuple[Any, ...] | bytes
"""A message's arguments: values when all are scalars, else the msgpack bytes of their array."""

Check = Callable[[tuple[Any, ...]], tuple[Any, ...]]

NO_ARGS = b"\x90"
"""The bytes of no arguments."""

KEY_BYTES_MAX = 480
MESSAGE_BYTES_MAX = 8 << 20
"""Arguments or reply of one message, encoded: what every shard and door takes."""
LARGE = MESSAGE_BYTES_MAX // 8
"""Text or bytes of no more characters than this are not measured: with a few others they fit."""
INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
"""The numbers that msgpack carries."""
_SCALARS = (int, float, str, bool, bytes, type(None))
_INLINE = {int: "int", str: "str", float: "float", bool: "bool", bytes: "bytes"}
_encode = msgspec.msgpack.Encoder().encode


def check_key(key: object) -> None:
    """Refuse what can't be a key. Raises TypeError or ValueError."""
    if not isinstance(key, str):
        raise TypeError(f"an entity's key is a str, not {type(key).__name__}: {key!r}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"an entity's key is text that UTF-8 can carry; {key!r} is not") from None
    if not 0 < size <= KEY_BYTES_MAX:
        raise ValueError(
            f"an entity's key has 1 to {KEY_BYTES_MAX} UTF-8 bytes; this one has {size}: {key[:40]!r}"
        )


def measured(body: bytes, what: str, instead: str = "") -> bytes:
    """What is not too large for a message. Raises ValueError: `what` has so many bytes."""
    if len(body) > MESSAGE_BYTES_MAX:
        raise ValueError(
            f"{what} {len(body):,} bytes, more than the {MESSAGE_BYTES_MAX:,} of a message{instead}"
        )
    return body


def is_text(text: str) -> bool:
    """Whether UTF-8 can carry a text: it holds no half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Param(Struct, frozen=True):
    """One parameter of a handler."""

    name: str
    annotation: Any
    default: Any
    """`inspect.Parameter.empty` when there is none."""


class Handler:
    """One handler of an entity class."""

    def __init__(self, owner: type[Entity], entity: str, name: str, function: Callable[..., Any]):
        self.owner, self.entity, self.name = owner, entity, name
        self.query: bool = getattr(function, "__skerry_query__", False)
        self.private = name.startswith("_")
        self.id = content_id(f"{entity}.{getattr(function, '__skerry_was__', None) or name}")
        hints = hints_of(function, f"{entity}.{name}")
        parameters = list(inspect.signature(function).parameters.values())[1:]
        _refuse_shape(function, parameters, f"{entity}.{name}")
        self.function = _by_position(function, parameters)
        self.params = tuple(Param(p.name, hints.get(p.name, Any), p.default) for p in parameters)
        self.arity = len(self.params)
        self.params_id = content_id(
            f"params {[(p.name, type_text(p.annotation)) for p in self.params]!r}"
        )
        self.returns = hints.get("return", Any)
        self.replies = self.returns is not type(None)
        self.takes_error = bool(self.params) and _is_error(self.params[0].annotation)
        self.scalar = not self.takes_error and all(_is_scalar(p.annotation) for p in self.params)
        self.bare = self.scalar and self.arity == 1
        """Whether a column of its arguments holds the values themselves: no tuple around each."""
        types = tuple(p.annotation for p in self.params)
        for param in self.params[int(self.takes_error) :]:
            refuse_custom(param.annotation, f"{entity}.{name}: argument `{param.name}`")
        if not self.private:
            refuse_custom(self.returns, f"{entity}.{name}: its reply")
        if self.takes_error:
            types = types[1:]
        try:
            whole = tuple[types] if types else tuple[()]  # type: ignore[valid-type]
            self.decode: Callable[[bytes], tuple[Any, ...]] = msgspec.msgpack.Decoder(whole).decode
            """Arguments from the bytes that `bind` gives in this release. Raises MsgspecError."""
            self.columns: Any = msgspec.msgpack.Decoder(
                tuple[tuple(list[t] for t in types)] if types else tuple[()]  # type: ignore[misc,valid-type]
            )
            self._rest: Any = msgspec.msgpack.Decoder(tuple[types[1:]] if types[1:] else tuple[()])  # type: ignore[misc]
            self._first: Any = msgspec.msgpack.Decoder(types[0]) if types else None
            self._reply: Any = msgspec.msgpack.Decoder(self.returns)
        except TypeError as error:
            raise TypeError(f"{entity}.{name}: {error}") from error
        self._round_trips = {
            param.name: RoundTrip(param.annotation)
            for param in self.params[int(self.takes_error) :]
        }
        self._returned = RoundTrip(self.returns)
        self._arguments_have = f"{entity}.{name}: the arguments have"
        self.encode_reply = self._compiled_reply()
        self.check = self._compiled_check(self.params)
        behind = self._compiled_check(self.params[1:]) if self.params else self.check
        self._check_rest = (self.check, behind)
        """Of the arguments behind so many."""

    def __repr__(self) -> str:
        return f"<handler {self.entity}.{self.name}>"

    # ── arguments ──

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Args:
        """The arguments of a call, checked. Raises TypeError naming handler and argument."""
        if kwargs or len(args) != self.arity:
            args = self.fill(args, kwargs)
        args = self.check(args)
        return args if self.scalar else self.packed(args)

    def bind_packed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """The same as bytes, for what will wait in the store. Raises TypeError, ValueError."""
        bound = self.bind(args, kwargs)
        return bound if isinstance(bound, bytes) else self.packed(bound)

    def fill(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """A call's arguments by position, defaults filled in. Raises TypeError."""
        names = [param.name for param in self.params]
        if len(args) > self.arity:
            raise TypeError(
                f"{self.entity}.{self.name} takes {self.arity} arguments ({', '.join(names)}), "
                f"not {len(args)}"
            )
        given = dict(zip(names, args))
        for name, value in kwargs.items():
            if name not in names:
                raise TypeError(f"{self.entity}.{self.name} has no argument `{name}`")
            if name in given:
                raise TypeError(f"{self.entity}.{self.name} got `{name}` twice")
            given[name] = value
        for param in self.params:
            if param.name not in given:
                if param.default is inspect.Parameter.empty:
                    raise TypeError(f"{self.entity}.{self.name} misses its argument `{param.name}`")
                given[param.name] = param.default
        return tuple(given[name] for name in names)

    def packed(self, args: tuple[Any, ...]) -> bytes:
        """Checked arguments as bytes. Raises TypeError, ValueError."""
        if self.takes_error:
            raise TypeError(f"{self.entity}.{self.name} takes an outcome: only `ask` can name it")
        return self._encoded(args, self.params)

    def _encoded(self, args: tuple[Any, ...], params: Sequence[Param]) -> bytes:
        """Checked arguments as bytes. Raises TypeError or ValueError: they can't travel, or one
        would arrive as another."""
        try:
            body = _encode(args)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(f"{self.entity}.{self.name}: {error}") from error
        if not self.scalar:  # Those have their classes from the check.
            for param, value in zip(params, args):
                if not self._round_trips[param.name].holds((value,)):
                    fault = self._round_trips[param.name].fault(value)
                    raise TypeError(f"{self.entity}.{self.name}: argument `{param.name}`{fault}")
        return self._measured(body)

    def _measured(self, body: bytes) -> bytes:
        """Arguments that are not too large. Raises ValueError."""
        return measured(body, self._arguments_have, "; send parts, or the name of a file")

    def _compiled_check(self, params: Sequence[Param]) -> Check:
        """What checks a call's arguments by position, and gives them as they are annotated."""
        if not params:
            return lambda args: args
        slow = partial(self._check_slow, params)
        inline = [_INLINE.get(p.annotation) for p in params]
        if all(inline):
            names = [f"a{i}" for i in range(len(params))]
            tests = [f"{n}.__class__ is not {t}" for n, t in zip(names, inline)]
            # Behind the tests of types: only then is there a length.
            tests += [f"len({n}) > {LARGE}" for n, t in zip(names, inline) if t in ("str", "bytes")]
            tests += [
                f"not {INT_MIN} <= {n} <= {INT_MAX}" for n, t in zip(names, inline) if t == "int"
            ]
            tests += [
                f"not ({n}.isascii() or is_text({n}))" for n, t in zip(names, inline) if t == "str"
            ]
            wrong = " or ".join(tests)
            source = (
                f"def check(args):\n"
                f"    {', '.join(names)}, = args\n"
                f"    return slow(args) if {wrong} else args\n"
            )
            scope: dict[str, Any] = {"slow": slow, "is_text": is_text}
            exec(source, scope)  # Our own text: type names of a fixed table and numbers only.
            return typing.cast("Check", scope["check"])
        return slow

    def _check_slow(self, params: Sequence[Param], args: tuple[Any, ...]) -> tuple[Any, ...]:
        checked = []
        for param, value in zip(params, args):
            where = f"{self.entity}.{self.name}: argument `{param.name}`"
            try:
                converted = _converted(value, param.annotation)
            except (msgspec.ValidationError, TypeError) as error:
                raise TypeError(f"{where} = {value!r:.80}: {error}") from None
            if type(value) is int and converted != value:
                raise TypeError(f"{where} = {value!r:.80}: it would arrive as {converted!r}")
            checked.append(converted)
        if self.scalar:  # Any others are encoded at once.
            self._encoded(tuple(checked), params)
        return tuple(checked)

    # ── replies ──

    def _compiled_reply(self) -> Callable[[Any], bytes]:
        """What encodes a reply in its turn, and refuses one that the asker would get as another.

        It raises TypeError or ValueError.
        """
        exact = self.returns if self.returns in _INLINE else None
        what = f"{self.entity}.{self.name}: its reply has"

        def encode_reply(reply: Any) -> bytes:
            try:
                body = _encode(reply)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise TypeError(f"{self.entity}.{self.name}: its reply: {error}") from error
            if reply.__class__ is not exact and not self._returned.holds((reply,)):
                fault = self._returned.fault(reply)
                raise TypeError(f"{self.entity}.{self.name}: its reply{fault}")
            return measured(body, what)

        return encode_reply

    def replies_hold(self, replies: Sequence[Any]) -> bool:
        """Whether those who asked would get all of these as they are."""
        return self._returned.holds(replies)

    # ── columns ──
    # Of many messages to one handler: nothing when it takes no argument, the values themselves
    # when it takes one that is a scalar, else what `bind` gives for each.

    def column(self, args: Sequence[Args]) -> Sequence[Any]:
        """The column of these messages' arguments."""
        if self.bare:
            return list(chain.from_iterable(args))
        return args if self.arity else ()

    def entry(self, args: Args) -> Any:
        """What stands for the arguments of one message in such a column."""
        return args[0] if self.bare else args

    def stored_entry(self, args: bytes) -> Any:
        """The same for arguments that were kept as bytes. Raises InvalidMessage."""
        return self.entry(self.unpack(args)) if self.scalar else args

    def each(self, column: Sequence[Any], count: int) -> Iterable[Args]:
        """The arguments of each of `count` messages, from their column."""
        if self.bare:
            return zip(column)
        return column if self.arity else repeat((), count)

    # ── bytes ──

    def unpack(self, args: bytes) -> tuple[Any, ...]:
        """Arguments from their bytes, by position or by name. Raises InvalidMessage."""
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
            raise InvalidMessage(f"{self.entity}.{self.name}: {first}") from error
        return tuple(map(self._converted, values, self.params))

    def _converted(self, value: Any, param: Param) -> Any:
        """A value as its parameter wants it. Raises InvalidMessage."""
        try:
            return msgspec.convert(value, param.annotation)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            where = f"{self.entity}.{self.name}: argument `{param.name}`"
            raise InvalidMessage(f"{where}: {error}") from error

    def reordered(self, names: Sequence[str], args: bytes, *, skip: int) -> bytes:
        """Stored arguments that had these names in an older release, as this one orders them: those
        that it lacks are left out, defaults filled in. `skip`: so many stand before them."""
        given = dict(zip(names[skip:], msgspec.msgpack.decode(args)))
        values = [given.get(param.name, param.default) for param in self.params[skip:]]
        if any(value is inspect.Parameter.empty for value in values):  # Its turn says which.
            ours = {param.name for param in self.params}
            return _encode({name: value for name, value in given.items() if name in ours})
        return _encode(values)

    def outcome(self, first: Any, rest: bytes, with_first: bool) -> tuple[Any, ...]:
        """Arguments of an outcome's handler: a reply's bytes or an exception, then its own."""
        try:
            if not with_first:
                return self.unpack(rest)
            if isinstance(first, bytes):
                return (self._first.decode(first), *self._rest.decode(rest))
            return (first, *(self.decode(rest) if self.takes_error else self._rest.decode(rest)))
        except msgspec.MsgspecError as error:
            raise InvalidMessage(f"{self.entity}.{self.name}: {error}") from error

    def bind_rest(self, args: tuple[Any, ...], *, skip: int) -> bytes:
        """The arguments behind the outcome, checked and encoded."""
        if len(args) != self.arity - skip:
            args = self._filled_rest(args, self.params[skip:])
        if not args:
            return NO_ARGS
        return self._encoded(self._check_rest[skip](args), self.params[skip:])

    def _filled_rest(self, args: tuple[Any, ...], params: Sequence[Param]) -> tuple[Any, ...]:
        if len(args) > len(params):
            raise TypeError(
                f"{self.entity}.{self.name} takes {len(params)} arguments behind the outcome, "
                f"not {len(args)}"
            )
        for param in params[len(args) :]:
            if param.default is inspect.Parameter.empty:
                raise TypeError(f"{self.entity}.{self.name} misses its argument `{param.name}`")
            args += (param.default,)
        return args

    def reply(self, body: bytes) -> Any:
        """A reply from its bytes."""
        return self._reply.decode(body)


def _refuse_shape(
    function: Callable[..., Any], parameters: list[inspect.Parameter], what: str
) -> None:
    """Refuse what could not be called as a handler is. Raises TypeError."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{what}: a handler is a plain def, not async: it may not wait for the outside. Send a "
            f"message, or ask."
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{what}: a handler returns its reply; what it yields nobody would take. Return a "
            f"list, or send each item."
        )
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise TypeError(f"{what}: a handler has no *args or **kwargs")


def _by_position(
    function: Callable[..., Any], parameters: list[inspect.Parameter]
) -> Callable[..., Any]:
    """A handler's function as turns call it: every argument by position, in their order."""
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if not names:
        return function
    first = len(parameters) - len(names)

    def called(self: Entity, *args: Any) -> Any:
        return function(self, *args[:first], **dict(zip(names, args[first:])))

    return called


class Message(Generic[R_co]):
    """A message as a value: `message(Account.at("bob").deposit, 10)`."""

    __slots__ = ("args", "handler", "key")

    def __init__(self, handler: Handler, key: str, args: Args) -> None:
        self.handler, self.key, self.args = handler, key, args

    def values(self) -> tuple[Any, ...]:
        """The arguments as values."""
        return self.handler.unpack(self.args) if isinstance(self.args, bytes) else self.args

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (self.handler.id, self.key, self.values()) == (
            other.handler.id,
            other.key,
            other.values(),
        )

    def __hash__(self) -> int:
        return hash((self.handler.id, self.key))

    def __repr__(self) -> str:
        values = ", ".join(map(repr, self.values()))
        return f"{self.handler.entity}.at({self.key!r}).{self.handler.name}({values})"


def target(handler: Any) -> tuple[Handler, str]:
    """The handler and key that `Account.at("a").deposit` or `self._paid` names. Raises TypeError."""
    try:
        # As the interpreter finds them fastest: a bound method, and what `hint` has made it of.
        found: Handler = handler.__func__.handler
        key: str = handler.__self__.key
    except AttributeError:
        found = of_entity(handler)
        key = str(handler.__self__.key)
    if key.__class__ is not str or not 0 < len(key) <= KEY_BYTES_MAX or not key.isascii():
        check_key(key)
    return found, key


def of_entity(handler: Any) -> Handler:
    """The handler that `self._paid` names, a method of an entity. Raises TypeError."""
    entity: Any = getattr(handler, "__self__", None)
    owner = getattr(type(entity), "__skerry_owner__", type(entity))
    kind = getattr(owner, "__skerry__", None)
    found: Handler | None = None if kind is None else kind.handlers.get(handler.__name__)
    if found is not None and owner is not type(entity):
        raise TypeError(
            f"{found.entity}.{found.name} is private: only the entity itself names it, as "
            f"`self.{found.name}`"
        )
    if found is None or isinstance(entity, type):
        raise TypeError(
            f"a verb takes a handler and its arguments apart, as send(Account.at('a').deposit, 10); "
            f"{handler!r:.100} is no handler"
        )
    return found


def message(handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Message[R]:
    """A message as a value, its arguments checked.

    Example:
        >>> message(Account.at("bob").deposit, 10)
        Account.at('bob').deposit(10)
    """
    found, key = target(handler)
    return Message(found, key, found.bind(args, kwargs))


def one_message(given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Message[Any]:
    """What `send` was given: a message, or a handler and its arguments. Raises TypeError."""
    if not isinstance(given, Message):
        return message(given, *args, **kwargs)
    if args or kwargs:
        raise TypeError(f"{given!r:.100} has its arguments: `send` takes it alone")
    return given


def hint(entity: str, name: str) -> Callable[..., NoReturn]:
    """What stands in a reference for a handler: calling it shows the right form."""

    def called(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"{entity}.at({self.key!r}).{name}(…) calls nothing: entities are sent messages. "
            f"Write send({entity}.at({self.key!r}).{name}, …) or ask(…) in a handler, "
            f"client.ask(…) outside."
        )

    called.__name__ = name
    return called


def _converted(value: Any, annotation: Any) -> Any:
    """A value as its annotation has it. Raises ValidationError, TypeError."""
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


def _is_error(annotation: Any) -> bool:
    parts = typing.get_args(annotation) or (annotation,)
    return all(p in (Rejected, Failed, SkerryError, Exception) for p in parts)
