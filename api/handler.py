"""Handler: one method of an entity class, as messages reach it.

A `Handler` is made once per method. It says what the method is called and stored as, how its
arguments and replies become bytes, and how many messages to it lie beside each other in a
column. Imports msgspec; knows nothing of where messages go.
"""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from skerry.annotations import content_id, hints_of, refuse_custom, type_text
from skerry.arguments import INLINE, NO_ARGS, Args, Arguments, Param
from skerry.errors import Failed, InvalidMessage, Rejected, SkerryError
from skerry.limits import measured
from skerry.roundtrip import RoundTrip

if TYPE_CHECKING:
    from skerry.stream.columns import Pass

_encode = msgspec.msgpack.Encoder().encode


class Handler:
    """One handler of an entity class.

    Args:
        owner: the entity class.
        entity: the name that the class is stored under.
        name: the method's name.
        function: the method.

    Raises:
        TypeError: the method could not be called as a handler is, or takes or returns what
            can't be sent.
    """

    def __init__(
        self, owner: type[Any], entity: str, name: str, function: Callable[..., Any]
    ) -> None:
        self.owner, self.entity, self.name = owner, entity, name
        self.query: bool = getattr(function, "__skerry_query__", False)
        self.private = name.startswith("_")
        self.id = content_id(f"{entity}.{getattr(function, '__skerry_was__', None) or name}")
        self._what = what = f"{entity}.{name}"
        hints = hints_of(function, what)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        _refuse_shape(function, parameters, what)
        self.function = _by_position(function, parameters)
        self.params = tuple(Param(p.name, hints.get(p.name, Any), p.default) for p in parameters)
        self.arity = len(self.params)
        texts = [(param.name, type_text(param.annotation)) for param in self.params]
        self.params_id = content_id(f"params {texts!r}")
        self.takes_error = bool(self.params) and _is_error(self.params[0].annotation)
        """Whether it is a handler of refusals or failures, which only `ask` can name."""

        arguments = self._arguments = Arguments(what, self.params[int(self.takes_error) :])
        self.scalar = arguments.scalar and not self.takes_error
        self.bare = self.scalar and self.arity == 1
        """Whether a column of its arguments holds the values themselves: no tuple around each."""
        self.bind: Callable[[tuple[Any, ...], dict[str, Any]], Args] = (
            arguments.bind if self.scalar else self._bind_packed
        )
        """Checks the arguments of a call; returns values when all are scalars, else bytes. Raises
        TypeError, which names the handler and the argument; ValueError: they are too large for a
        message."""
        self.decode, self.unpack = arguments.decode, arguments.unpack
        self.packed = arguments.encoded
        types = arguments.types
        self.columns: Any = msgspec.msgpack.Decoder(
            tuple[tuple(list[t] for t in types)] if types else tuple[()]  # type: ignore[misc,valid-type]
        )

        self.returns = hints.get("return", Any)
        self.replies = self.returns is not type(None)
        if not self.private:
            refuse_custom(self.returns, f"{what}: its reply")
        try:
            self._reply: Any = msgspec.msgpack.Decoder(self.returns)
        except TypeError as error:
            raise TypeError(f"{what}: {error}") from error
        self._returned = RoundTrip(self.returns)
        self.encode_reply = self._reply_encoder()
        self.stage = ""
        """The stage of a stream that alone sends to it; empty: any verb may."""
        self.behind: Pass | None = None
        """The passes that its replies go through; None: they go to whoever asked."""

    def __repr__(self) -> str:
        return f"<handler {self._what}>"

    def at_stage(self, stage: str, behind: Pass) -> Handler:
        """Return this handler as a stage of a stream calls it: its replies go through passes.

        Args:
            stage: the stage's name, which identifies its messages in the store.
            behind: the passes.
        """
        made = copy.copy(self)
        made.stage, made.behind, made.private = stage, behind, True
        made.name = f"{self.name} of {stage}"
        made.id = content_id(f"{self.entity} stage {stage}")
        return made

    # ── arguments of a call ──

    def _bind_packed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        if self.takes_error:
            self._takes_an_outcome()
        return self.packed(self._arguments.bind(args, kwargs))

    def bind_packed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Check the arguments of a call; return bytes, for a message that waits in the store.

        Raises:
            TypeError, ValueError: as for `bind`.
        """
        bound = self.bind(args, kwargs)
        return bound if isinstance(bound, bytes) else self.packed(bound)

    def _takes_an_outcome(self) -> NoReturn:
        raise TypeError(f"{self._what} takes an outcome: only `ask` can name it")

    # ── outcomes ──

    @cached_property
    def _behind(self) -> Arguments:
        """The arguments behind an outcome, which comes first."""
        return Arguments(self._what, self.params[1:], ", behind the outcome")

    @cached_property
    def _outcome(self) -> msgspec.msgpack.Decoder[Any]:
        """Reads the reply that comes first."""
        return msgspec.msgpack.Decoder(self.params[0].annotation)

    def bind_rest(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, skip: int) -> bytes:
        """Check the arguments that a program gives for an outcome's handler; return bytes.

        Args:
            args, kwargs: the arguments.
            skip: how many arguments the outcome itself fills, 0 or 1.

        Raises:
            TypeError, ValueError: as for `bind`.
        """
        if self.takes_error and not skip:
            self._takes_an_outcome()
        if skip and not self.params:
            raise TypeError(f"{self._what} has no argument for the outcome")
        rest = self._behind if skip else self._arguments
        bound = rest.bind(args, kwargs)
        return rest.encoded(bound) if bound else NO_ARGS

    def outcome(self, first: Any, rest: bytes, with_first: bool) -> tuple[Any, ...]:
        """Return the arguments of an outcome's handler.

        Args:
            first: the outcome: a reply's bytes or an exception.
            rest: the arguments that `bind_rest` encoded.
            with_first: whether the handler takes the outcome.

        Raises:
            InvalidMessage: they do not fit this release.
        """
        if not with_first:
            return self.unpack(rest)
        try:
            if not isinstance(first, bytes):
                return (first, *self._behind.decode(rest))
            if self.takes_error:
                raise InvalidMessage(f"{self._what} takes a refusal or failure, and got a reply")
            return (self._outcome.decode(first), *self._behind.decode(rest))
        except msgspec.MsgspecError as error:
            raise InvalidMessage(f"{self._what}: {error}") from error

    def reordered(self, names: Sequence[str], args: bytes, *, skip: int) -> bytes:
        """Rewrite stored arguments of an older release in this release's order.

        Args:
            names: the older release's parameters.
            args: the stored bytes.
            skip: how many parameters come before them.
        """
        return (self._behind if skip else self._arguments).reordered(names[skip:], args)

    # ── replies ──

    def _reply_encoder(self) -> Callable[[Any], bytes]:
        """Make the function that encodes a reply in its turn.

        It raises TypeError or ValueError for a reply that the asker would get as something else.
        """
        exact = self.returns if self.returns in INLINE else None
        what = f"{self._what}: its reply"

        def encode_reply(reply: Any) -> bytes:
            try:
                body = _encode(reply)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise TypeError(f"{what}: {error}") from error
            if reply.__class__ is not exact and not self._returned.holds((reply,)):
                raise TypeError(f"{what}{self._returned.fault(reply)}")
            return measured(body, f"{what} has")

        return encode_reply

    def replies_hold(self, replies: Sequence[Any]) -> bool:
        """Tell whether the askers would get all of these replies as they are."""
        return self._returned.holds(replies)

    def reply(self, body: bytes) -> Any:
        """Return a reply from its bytes. Raises MsgspecError."""
        return self._reply.decode(body)

    # ── columns ──
    # The arguments of many messages to one handler: nothing if it takes none, the values
    # themselves if it takes one scalar, else what `bind` returns for each message.

    def column(self, args: Sequence[Args]) -> Sequence[Any]:
        """Return the column of these messages' arguments."""
        if self.bare:
            return list(chain.from_iterable(args))
        return args if self.arity else ()

    def entry(self, args: Args) -> Any:
        """Return the entry of one message's arguments in a column."""
        return args[0] if self.bare else args

    def stored_entry(self, args: bytes) -> Any:
        """Return the entry of arguments that were stored as bytes. Raises InvalidMessage."""
        return self.entry(self.unpack(args)) if self.scalar else args

    def each(self, column: Sequence[Any], count: int) -> Iterable[Args]:
        """Return the arguments of each of `count` messages, from their column."""
        if self.bare:
            return zip(column)
        return column if self.arity else repeat((), count)


def _refuse_shape(
    function: Callable[..., Any], parameters: list[inspect.Parameter], what: str
) -> None:
    """Refuse a method that could not be called as a handler is. Raises TypeError."""
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
    """Return a method that takes every argument by position, as turns call it."""
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if not names:
        return function
    first = len(parameters) - len(names)

    def called(self: Any, *args: Any) -> Any:
        return function(self, *args[:first], **dict(zip(names, args[first:])))

    return called


def _is_error(annotation: Any) -> bool:
    parts = typing.get_args(annotation) or (annotation,)
    return all(p in (Rejected, Failed, SkerryError, Exception) for p in parts)
