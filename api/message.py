"""Message: what is sent, as a value; and what a program names when it sends.

`Account.at("a").deposit` names a handler of one entity, `self._paid` one of the entity that
runs. Verbs take that name and the arguments apart; a `Message` holds both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from skerry.arguments import Args
from skerry.handler import Handler
from skerry.limits import KEY_BYTES_MAX, check_key

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Message(Generic[R_co]):
    """A message as a value, made by `message(Account.at("bob").deposit, 10)`."""

    __slots__ = ("args", "handler", "key")

    def __init__(self, handler: Handler, key: str, args: Args) -> None:
        self.handler, self.key, self.args = handler, key, args

    def values(self) -> tuple[Any, ...]:
        """Return the arguments as values."""
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
    """Return the handler and key that `Account.at("a").deposit` or `self._paid` names.

    Raises:
        TypeError: it names no handler, or a key of a wrong type.
        ValueError: it names a key that can't be one.
    """
    try:
        # The fastest way to both: `Account.at("a").deposit` is a bound method of `hint`'s function.
        found: Handler = handler.__func__.handler
        key: str = handler.__self__.key
    except AttributeError:
        found = of_entity(handler)
        key = str(handler.__self__.key)
    if key.__class__ is not str or not 0 < len(key) <= KEY_BYTES_MAX or not key.isascii():
        check_key(key)
    return found, key


def of_entity(handler: Any) -> Handler:
    """Return the handler that `self._paid`, a method of an entity, names. Raises TypeError."""
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
            f"a verb takes a handler and its arguments apart, as in send(Account.at('a').deposit, 10); "
            f"{handler!r:.100} is no handler"
        )
    return found


def message(handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Message[R]:
    """Make a message as a value, which `send` and `ask_many` take.

    Args:
        handler: a handler of an entity named by its key, such as `Account.at("bob").deposit`.
        *args, **kwargs: the handler's own arguments, checked now.

    Raises:
        TypeError: no handler, or wrong arguments.
        ValueError: a key that can't be one, or arguments too large for a message.

    Example:
        >>> message(Account.at("bob").deposit, 10)
        Account.at('bob').deposit(10)
    """
    found, key = target(handler)
    return Message(found, key, found.bind(args, kwargs))


def one_message(given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Message[Any]:
    """Return the message that `send` was given, whole or as handler and arguments.

    Raises:
        TypeError: arguments beside a whole message.
    """
    if not isinstance(given, Message):
        return message(given, *args, **kwargs)
    if args or kwargs:
        raise TypeError(f"{given!r:.100} has its arguments: `send` takes it alone")
    return given


def hint(entity: str, name: str) -> Callable[..., NoReturn]:
    """Make the method of a reference that stands for a handler: calling it shows the right form."""

    def called(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"{entity}.at({self.key!r}).{name}(…) calls nothing: entities are sent messages. "
            f"Write send({entity}.at({self.key!r}).{name}, …) or ask(…) in a handler, "
            f"client.ask(…) outside."
        )

    called.__name__ = name
    return called
