"""Entity: fields, a key, handlers, a schema; a plain object that can be tested alone.

An entity class is a msgspec Struct whose public methods handle messages. Its metaclass derives
the reference class behind `Account.at(key)`, and an `EntityType`: the schema of its states, and a
`Handler` for each method.

The key is no field: it is neither stored in the state nor compared.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar, dataclass_transform

import msgspec
from msgspec import NODEFAULT

from skerry.annotations import content_id, own_hints, type_text
from skerry.entity_type import EntityType
from skerry.errors import OutsideTurn

F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound="Entity")

RESERVED = frozenset({"key", "at", "_key", "_store_entry"})


def query(function: F) -> F:
    """Mark a handler that changes nothing, sends nothing and sets no timer.

    Its turn commits nothing and costs no write to the log. A turn that changes something all the
    same fails.

    Example:
        >>> class Account(Entity):
        ...     balance: int = 0
        ...     @query
        ...     def worth(self) -> int:
        ...         return self.balance
    """
    function.__skerry_query__ = True  # type: ignore[attr-defined]
    return function


def handler(*, was: str) -> Callable[[F], F]:
    """Mark a handler that was renamed: stored messages to its old name still reach it.

    Args:
        was: the old name.

    Raises:
        TypeError: it is no name.

    Example:
        >>> class Account(Entity):
        ...     @handler(was="pay_in")
        ...     def deposit(self, amount: int) -> None: ...
    """
    if not isinstance(was, str):
        raise TypeError(f"handler(was=…) takes the handler's old name, not {was!r:.80}")

    def mark(function: F) -> F:
        function.__skerry_was__ = was  # type: ignore[attr-defined]
        return function

    return mark


class _Beside:
    """Attributes beside the fields, neither encoded nor compared."""

    __slots__ = ("_key", "_store_entry")

    _store_entry: int
    """The number under which the store finds the newest state; 0 if there is none."""
    _key: str


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class EntityMeta(msgspec.StructMeta):
    """The metaclass of entities; refuses what could not be stored or called, with a sentence."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        was: str | None = None,
        renamed: dict[str, str] | None = None,
    ) -> EntityMeta:
        if not any(isinstance(base, EntityMeta) for base in bases):
            return super().__new__(mcls, name, bases, namespace, kw_only=True)
        _refuse(name, bases, namespace)
        own = own_hints(name, namespace)
        _refuse(name, bases, own)
        kind = was or name
        schema_id = _schema_id(kind, bases, own)
        try:
            cls: Any = super().__new__(
                mcls, name, bases, namespace, kw_only=True, array_like=True, tag=schema_id
            )
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from error
        for field in msgspec.structs.fields(cls):
            if field.default is NODEFAULT and field.default_factory is NODEFAULT:
                raise TypeError(
                    f"{name}.{field.name} has no default: an entity exists as soon as it is named, "
                    f"so write `{field.name}: … = …`"
                )
        _refuse_options(name, was, renamed or {}, cls.__struct_fields__)
        reference: Any = msgspec.defstruct("at", [("key", str)], gc=False, frozen=True)
        reference.__qualname__ = f"{name}.at"
        reference.__skerry_owner__ = cls
        type.__setattr__(cls, "at", reference)
        entity_type = EntityType(cls, kind, schema_id, renamed or {})
        type.__setattr__(cls, "__skerry__", entity_type)
        entity_type.equip()
        return cls  # type: ignore[no-any-return]


def _schema_id(kind: str, bases: tuple[type, ...], own: dict[str, Any]) -> int:
    """Identify the fields of a class, in the order in which they are stored."""
    inherited = [base.__skerry__.schema_id for base in bases if hasattr(base, "__skerry__")]
    added = [(field, type_text(hint)) for field, hint in own.items()]
    return content_id(f"schema {kind} {[*inherited, *added]!r}")


def _refuse(name: str, bases: tuple[type, ...], attributes: Iterable[str]) -> None:
    for base in bases:
        if not isinstance(base, EntityMeta) and "__slots__" not in vars(base):
            raise TypeError(f"{name}: its base {base.__name__} needs `__slots__ = ()`")
    for attribute in attributes:
        if attribute in RESERVED:
            raise TypeError(f"{name}.{attribute}: `{attribute}` is reserved; choose another name")


def _refuse_options(name: str, was: object, renamed: object, fields: Sequence[str]) -> None:
    if was is not None and not (isinstance(was, str) and was):
        raise TypeError(
            f"{name}: was= is the class's old name, as in `was='Konto'`, not {was!r:.80}"
        )
    if not isinstance(renamed, dict) or not all(
        isinstance(field, str) for pair in renamed.items() for field in pair
    ):
        raise TypeError(
            f"{name}: renamed= is a dict of fields' old names to their new ones, as in "
            f"`renamed={{'old': 'new'}}`, not {renamed!r:.80}"
        )
    for old, new in renamed.items():
        if new not in fields:
            raise TypeError(
                f"{name}: renamed= says that `{old}` is called `{new}` now, but there is no such "
                f"field, so what is stored would be lost. There is: {', '.join(fields) or 'none'}"
            )


class Entity(_Beside, msgspec.Struct, metaclass=EntityMeta):
    """The base class of durable entities, each identified by its class and a key.

    Every field has a default, since an entity exists as soon as it is named. Public methods
    handle messages, one at a time; what they return is the reply. Methods whose names begin with
    `_` can be named by the entity alone: in timers, outcomes and messages to itself.

    The class option `was="OldName"` keeps the identity of a renamed class, and
    `renamed={"old": "new"}` that of renamed fields. A classmethod
    `_upgrade(cls, old: dict) -> dict` makes any other change: it turns the fields of an older
    release into those of this one.

    Raises:
        TypeError: when the class is made: a field without a default or of a type that can't be
            stored, a reserved name, an `async def` handler, or one with *args or **kwargs.

    Example:
        >>> class Account(Entity):
        ...     balance: int = 0
        ...     def deposit(self, amount: int) -> int:
        ...         self.balance += amount
        ...         return self.balance
        >>> Account(balance=5).deposit(3)
        8

    Source: Helland, "Life beyond Distributed Transactions", CIDR 2007; docs/ideas/entities.md.
    """

    if typing.TYPE_CHECKING:
        __skerry__: ClassVar[EntityType]

        @classmethod
        def at(cls, key: str, /) -> typing.Self:
            """Name an entity by its key, so that its handlers can be sent to and asked.

            Args:
                key: 1 to 480 bytes of UTF-8.

            Example:
                >>> send(Account.at("bob").deposit, 10)
            """
            ...

    @property
    def key(self) -> str:
        """This entity's key.

        Raises:
            OutsideTurn: the object was made by hand, and has none.
        """
        try:
            return self._key
        except AttributeError:
            raise OutsideTurn(f"{type(self).__name__}.key") from None
