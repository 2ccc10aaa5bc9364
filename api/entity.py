"""Entity: fields, a key, handlers, a schema; a plain object that can be tested alone.

An entity class is a msgspec Struct whose public methods handle messages. Its metaclass derives
three things: the reference class behind `Account.at(key)`, a `Handler` for each method, and the
schema of its states. A stored state is `[schema id, field, field, ...]`, so it says itself what
its values mean, and a state of an older release is read by the names of its fields.

The key is no field: it is neither stored in the state nor compared.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar, dataclass_transform

import msgspec
from msgspec import NODEFAULT

from skerry.annotations import content_id, own_hints, refuse_custom, type_text
from skerry.errors import IncompatibleState, OutsideTurn
from skerry.handler import Handler
from skerry.message import hint
from skerry.roundtrip import NESTING_MAX, RoundTrip

F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound="Entity")

STATE_BYTES_MAX = 128 << 20
"""The size of one entity's encoded state: `get`, `scan` and a restart take it in one piece."""

_TOO_DEEP = "it nests deeper than this interpreter reads"
_DEEPER = (
    "Raise `sys.setrecursionlimit` where the app is made, and have a handler store it flatter."
)
RESERVED = frozenset({"key", "at", "_key", "_store_entry"})
_decode = msgspec.msgpack.Decoder().decode


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


class EntityType:
    """The stored form of an entity class: its name, schema, codec and handlers; `cls.__skerry__`."""

    def __init__(
        self, cls: type[Entity], name: str, schema_id: int, renamed: dict[str, str]
    ) -> None:
        self.cls, self.name, self.schema_id, self.renamed = cls, name, schema_id, renamed
        self.fields: tuple[str, ...] = cls.__struct_fields__
        self.schema: bytes = msgspec.json.encode(
            {"type": name, "fields": self.fields, "id": schema_id}
        )
        self.encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
        self.handlers: dict[str, Handler] = {}
        self._decoder: Any = None
        self._round_trip: RoundTrip

    def equip(self) -> None:
        """Make the codec and the handlers; called again when methods were filled in later.

        Raises:
            TypeError: a field or a default can't be stored, or a method can't be a handler.
        """
        cls = self.cls
        for field in msgspec.structs.fields(cls):
            refuse_custom(field.type, f"{self.name}.{field.name}")
        try:
            self._decoder = msgspec.msgpack.Decoder(cls)
        except TypeError as error:
            raise TypeError(f"{self.name}: a field can't be stored: {error}") from error
        self._round_trip = RoundTrip(cls)
        self._check_defaults()
        handlers: dict[str, Handler] = {}
        for name, function in _functions(cls).items():
            handlers[name] = Handler(cls, self.name, name, function)
        self.handlers = handlers
        reference = cls.at
        for name, made in handlers.items():
            called = hint(self.name, name)
            if not made.private:  # Verbs find what they may send to by this, at no price.
                called.handler = made  # type: ignore[attr-defined]
            setattr(reference, name, called)

    def _check_defaults(self) -> None:
        """Refuse a default that can't be stored. Raises TypeError."""
        fresh = self.cls()
        try:
            self.encode(fresh)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(f"{self.name}: a default can't be stored: {error}") from error
        if fault := self._round_trip.fault(fresh):
            raise TypeError(f"{self.name}: the default of {fault.removeprefix('.')}")

    def seal(self, entities: Sequence[Entity]) -> bytes:
        """Encode the states of entities as one array.

        Raises:
            TypeError, ValueError: names an entity, its field and the cause: a value would be
                read back as something else, or not at all.
        """
        try:
            states = self.encode(entities)
        except (TypeError, ValueError, OverflowError, RecursionError):
            for entity in entities:
                self._check_encodes(entity)
            raise
        if not self._round_trip.holds(entities):
            for entity in entities:
                if fault := self._round_trip.fault(entity):
                    raise TypeError(
                        f"{self.name}/{entity.key} can't be kept: its field {fault.removeprefix('.')}"
                    )
        if len(states) > STATE_BYTES_MAX:
            for entity in entities:
                self._check_size(entity)
        return states

    def _check_encodes(self, entity: Entity) -> None:
        for field in self.fields:
            try:
                self.encode(getattr(entity, field))
            except RecursionError:
                raise ValueError(
                    f"{self.name}/{entity.key} can't be kept: its field {field} nests without end, "
                    f"or deeper than {NESTING_MAX} levels"
                ) from None
            except (TypeError, ValueError, OverflowError) as error:
                raise TypeError(
                    f"{self.name}/{entity.key} can't be kept: its field {field}: {error}"
                ) from error

    def _check_size(self, entity: Entity) -> None:
        sizes = {field: len(self.encode(getattr(entity, field))) for field in self.fields}
        whole = sum(sizes.values())
        if whole > STATE_BYTES_MAX:
            most = max(sizes, key=sizes.__getitem__)
            raise ValueError(
                f"{self.name}/{entity.key} can't be kept: its state has {whole:,} bytes, more than "
                f"the {STATE_BYTES_MAX:,} of one entity; {sizes[most]:,} of them are its field "
                f"{most}. Deal it out to several entities."
            )

    def new(self, key: str) -> Entity:
        """Return a fresh entity, every field at its default."""
        entity = self.cls()
        entity._key, entity._store_entry = key, 0
        return entity

    def decode(self, data: bytes, key: str, schemas: Callable[[int], bytes | None]) -> Entity:
        """Read an entity from its stored state, which may be of an older release.

        Args:
            data: the state.
            key: the entity's key.
            schemas: returns the stored schema of an id.

        Raises:
            IncompatibleState: the state does not fit the class.
        """
        try:
            entity = typing.cast("Entity", self._decoder.decode(data))
        except msgspec.MsgspecError as error:
            entity = self._decode_old(data, key, schemas, error)
        except RecursionError:
            raise IncompatibleState(self.name, key, _TOO_DEEP, _DEEPER) from None
        entity._key, entity._store_entry = key, 0
        return entity

    def _decode_old(
        self, data: bytes, key: str, schemas: Callable[[int], bytes | None], error: Exception
    ) -> Entity:
        try:
            schema_id, *values = _decode(data)
        except RecursionError:
            raise IncompatibleState(self.name, key, _TOO_DEEP, _DEEPER) from None
        upgrade = getattr(self.cls, "_upgrade", None)
        # Our own schema, too: an id covers the names of field types, not what they consist of.
        stored = self.schema if schema_id == self.schema_id else schemas(schema_id)
        if stored is None:
            raise IncompatibleState(
                self.name, key, f"its schema {schema_id:016x} is unknown to this store"
            ) from error
        old = dict(zip(msgspec.json.decode(stored)["fields"], values))
        if upgrade is not None:
            old = upgrade(old)
        else:
            old = {self.renamed.get(name, name): value for name, value in old.items()}
        fields = {name: old[name] for name in self.fields if name in old}
        hints = typing.get_type_hints(self.cls, include_extras=True)
        made = {}
        for name, value in fields.items():
            try:
                made[name] = msgspec.convert(value, hints[name])
            except msgspec.ValidationError as wrong:
                raise IncompatibleState(self.name, key, f"field `{name}`: {wrong}") from wrong
        entity = self.cls(**made)
        entity._key = key
        try:
            self.seal([entity])
        except (TypeError, ValueError) as wrong:
            raise IncompatibleState(self.name, key, str(wrong)) from wrong
        return entity


def _functions(cls: type) -> dict[str, types.FunctionType]:
    """Return the methods of a class that are handlers, inherited ones included."""
    found: dict[str, types.FunctionType] = {}
    for base in reversed(cls.__mro__):
        if base in (Entity, _Beside, msgspec.Struct, object):
            continue
        found |= {
            name: value
            for name, value in vars(base).items()
            if isinstance(value, types.FunctionType) and not name.startswith("__")
        }
    # A private generator is a helper of the handlers: no verb could run it.
    return {
        name: function
        for name, function in found.items()
        if not (name.startswith("_") and inspect.isgeneratorfunction(function))
    }


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
        raise TypeError(f"{name}: was= is the class's old name, as `was='Konto'`, not {was!r:.80}")
    if not isinstance(renamed, dict) or not all(
        isinstance(field, str) for pair in renamed.items() for field in pair
    ):
        raise TypeError(
            f"{name}: renamed= is a dict of fields' old names to their new ones, as "
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

    Source: Helland, "Life beyond Distributed Transactions", CIDR 2007; docs/entities.md.
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
