"""EntityType: the stored form of an entity class, which its metaclass makes.

A stored state is `[schema id, field, field, ...]`, so it says itself what its values mean, and a
state of an older release is read by the names of its fields.
"""

from __future__ import annotations

import copy
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from skerry.annotations import refuse_custom
from skerry.errors import IncompatibleState
from skerry.handler import Handler
from skerry.message import hint
from skerry.roundtrip import NESTING_MAX, RoundTrip

if TYPE_CHECKING:
    from skerry.entity import Entity

STATE_BYTES_MAX = 128 << 20
"""The size of one entity's encoded state: `get`, `scan` and a restart take it in one piece."""

_TOO_DEEP = "it nests deeper than this interpreter reads"
_DEEPER = (
    "Raise `sys.setrecursionlimit` where the app is made, and have a handler store it flatter."
)

_decode = msgspec.msgpack.Decoder().decode


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

    def with_handler(self, made: Handler) -> EntityType:
        """Return this type with one more handler, which no reference names."""
        kind = copy.copy(self)
        kind.handlers = {**self.handlers, made.name: made}
        return kind

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
