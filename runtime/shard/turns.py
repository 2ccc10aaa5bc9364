"""Runs handlers: optimistic, careful, rejected, failed.

A batch runs optimistically: one message after the other on live objects, nothing kept to
go back to. When a handler raises, the whole batch is thrown away and run again carefully:
each entity's bytes are kept before each turn and restored on a raise. So the states and
messages of exactly one run are ever used (I11), however the handler came to differ.

Reads go: live object, then the store's newest sealed bytes. A type that raised lately
is run carefully from the start for a while, since most batches with it would be run twice.

No I/O but `Committed`; reads no clock. Idea: docs/entities.md. Asserts I11.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from skerry import turn as seam
from skerry.entity import Entity, EntityType
from skerry.errors import InvalidMessage, Rejected, StoreDamaged
from skerry.message import Args, Handler
from skerry.runtime.shard.events import StateGroup
from skerry.turn import Turn

CAREFUL_BATCHES = 64
"""How many batches a type stays careful after a raise: a careful turn costs about 0.3 µs more."""

STATE_COST_BYTES = 400
"""What a cached entity costs in memory beside its fields, about; for the cache's bound."""

CHECKED_STATES = 16
"""How many states of a type are decoded again in each batch, optimistic ones too: a handler that
puts a text where a number belongs is found before a restart stumbles over it."""

FIELD_COST = 4
"""How many bytes of objects a byte of an encoded state becomes, about."""


_encode = msgspec.msgpack.Encoder().encode


class Raised(Exception):
    """Something in an optimistic batch raised: throw the batch away.

    `type` is the entity type whose turn raised; None when it was a stage of a source, or
    what does not encode.
    """

    def __init__(self, type_name: str | None = None) -> None:
        super().__init__(type_name)
        self.type = type_name


class Done(Struct, frozen=True, gc=False):
    """The handler returned; `reply` is its encoded result, None when nobody asked."""

    reply: bytes | None


class Refused(Struct, frozen=True):
    """The handler raised Rejected; the turn left no trace."""

    rejected: Rejected


class Broke(Struct, frozen=True):
    """The handler raised on every retry; the turn left no trace."""

    error: str
    traceback: str


Result = Done | Refused | Broke

Given = Args | Callable[[], tuple[Any, ...]]
"""A message's arguments: as values, as bytes, or as what makes them."""


class Kept:
    """What the shard holds of one entity type in memory."""

    __slots__ = ("careful", "dirty", "name", "objects", "old", "state_bytes", "type")

    def __init__(self, entity_type: EntityType) -> None:
        self.type = entity_type
        self.name = entity_type.name
        self.objects: dict[str, Entity] = {}
        self.old: dict[str, Entity] = {}
        """The generation before: dropped at the next turnover unless used again."""
        self.dirty: dict[str, Entity | None] = {}
        """Changed in the open batch; None: forgotten."""
        self.careful = 0
        self.state_bytes = 0.0
        """The mean size of the states seen lately, encoded."""

    def note_size(self, size: float) -> None:
        """Let the mean follow what is seen."""
        self.state_bytes += (size - self.state_bytes) / 8


class Turns:
    """Runs turns on the shard's entities, and knows which they changed."""

    def __init__(
        self,
        types: dict[str, EntityType],
        *,
        state: Callable[[str, str], bytes | None],
        schemas: Callable[[int], bytes | None],
        encode_reply: Callable[[Any], bytes],
        retries: int,
        cache_bytes: int,
        turn: Turn,
        leave: Callable[[Entity], None],
    ) -> None:
        self.kept = {name: Kept(entity_type) for name, entity_type in types.items()}
        self._state = state
        self._schemas = schemas
        self._encode_reply = encode_reply
        self._retries = retries
        self._cache_bytes = cache_bytes // max(1, len(types))
        self.turn = turn
        self._leave = leave

    # ── entities ──

    def load(self, kept: Kept, key: str) -> Entity:
        """The live object of an entity, made from its newest sealed bytes."""
        entity = kept.old.pop(key, None)
        if entity is None:
            data = self._state(kept.name, key)
            if data is None:
                entity = kept.type.new(key)
            else:
                entity = kept.type.decode(data, key, self._schemas)
                kept.note_size(len(data))
        kept.objects[key] = entity
        return entity

    def forget(self, kept: Kept, key: str) -> None:
        """The entity's state goes when the batch commits; what comes after makes a new one."""
        kept.objects[key] = kept.type.new(key)
        kept.dirty[key] = None

    # ── running ──

    def begin(self, now_ns: int, seed: tuple[int, ...]) -> None:
        """A batch begins, or begins again: its time, and what its random numbers grow from."""
        self.turn.begin(now_ns, seed)
        for kept in self.kept.values():
            assert not kept.dirty, f"I11: a run of {kept.name} begins on what another run left"

    def run_columns(
        self, kept: Kept, handler: Handler, keys: Sequence[str], rows: Iterable[tuple[Any, ...]]
    ) -> None:
        """Messages that nobody waits for, in order, optimistically. Raises Raised."""
        turn, leave = self.turn, self._leave
        get, load, dirty = kept.objects.get, self.load, kept.dirty
        function, sends = handler.function, turn.sends
        seam.current = turn
        try:
            for key, args in zip(keys, rows):
                entity = get(key)
                if entity is None:
                    entity = load(kept, key)
                dirty[key] = entity
                turn.entity = entity
                function(entity, *args)
                if sends or turn.extra:
                    leave(entity)
        except (Exception, SystemExit) as error:
            raise Raised(kept.name) from error
        finally:
            seam.current = turn.entity = None
        turn.count += len(keys)

    def run(
        self, kept: Kept, handler: Handler, key: str, args: Given, *, wanted: bool, careful: bool
    ) -> Result:
        """One message. Careful: the entity is restored when it raises; else Raised.

        `wanted`: somebody waits for the reply, so it is encoded.
        """
        entity = kept.objects.get(key)
        if entity is None:
            try:
                entity = self.load(kept, key)
            except StoreDamaged:
                raise
            except Exception as unfit:  # A state that does not fit, or an `_upgrade` that raises.
                return Broke(f"{type(unfit).__name__}: {unfit}", _traceback(unfit))
        if handler.query:
            return self._query(kept, handler, entity, args)
        if careful or kept.careful:
            return self._carefully(kept, handler, entity, args, wanted)
        kept.dirty[key] = entity
        reply, error = self._attempt(handler, entity, args, wanted)
        if error is not None:
            raise Raised(kept.name) from error
        self._leave(entity)
        return Done(reply)

    def _carefully(
        self, kept: Kept, handler: Handler, entity: Entity, args: Given, wanted: bool
    ) -> Result:
        key = entity.key
        fresh = object()
        dirty_before = kept.dirty.get(key, fresh)
        before = kept.type.encode(entity)
        result: Result | None = None
        for _ in range(self._retries + 1):
            reply, error = self._attempt(handler, entity, args, wanted)
            if error is None:
                error = self._unsealable(kept, entity)
            if error is None:
                kept.dirty[key] = entity
                self._leave(entity)
                return Done(reply)
            self.turn.clear()
            kept.careful = CAREFUL_BATCHES
            entity = kept.objects[key] = kept.type.decode(before, key, self._schemas)
            if isinstance(error, Rejected):
                result = Refused(error)
                break
            result = Broke(f"{type(error).__name__}: {error}", _traceback(error))
        if dirty_before is not fresh:
            # Another turn of this batch had changed it (or forgotten it): that change stays.
            kept.dirty[key] = None if dirty_before is None else entity
        assert result is not None, "a turn was tried at least once"
        return result

    def _attempt(
        self, handler: Handler, entity: Entity, args: Given, wanted: bool
    ) -> tuple[bytes | None, BaseException | None]:
        """Call the handler once. The only place where the user's exceptions are caught one by one."""
        turn = self.turn
        try:
            values = _values(handler, args)
        except InvalidMessage as error:
            return None, error
        turn.entity = entity
        turn.count += 1
        seam.current = turn
        try:
            reply = handler.function(entity, *values)
            return (self._encode_reply(reply) if wanted else None), None
        except (Exception, SystemExit) as error:
            return None, error
        finally:
            seam.current = turn.entity = None

    def _unsealable(self, kept: Kept, entity: Entity) -> BaseException | None:
        """What the commit or a restart would stumble over, found while it harms one turn only.

        A state must encode, and decode again; so must the arguments of what was sent.
        """
        try:
            kept.type.decode(kept.type.encode(entity), entity.key, self._schemas)
            _encode([(key, args) for _, key, args, _ in self.turn.sends])
        except (Exception, SystemExit) as error:
            return error
        return None

    def _query(self, kept: Kept, handler: Handler, entity: Entity, args: Given) -> Result:
        before = kept.type.encode(entity)
        self.turn.reading = True
        try:
            reply, error = self._attempt(handler, entity, args, True)
        finally:
            self.turn.reading = False
        if error is None and kept.type.encode(entity) != before:
            error = TypeError(
                f"{handler.entity}.{handler.name} is a @query and changed its entity's state"
            )
        if error is None:
            return Done(reply)
        key = entity.key
        restored = kept.objects[key] = kept.type.decode(before, key, self._schemas)
        if kept.dirty.get(key) is not None:
            kept.dirty[key] = restored
        if isinstance(error, Rejected):
            return Refused(error)
        return Broke(f"{type(error).__name__}: {error}", _traceback(error))

    # ── the end of a batch ──

    def states(self) -> list[StateGroup]:
        """The states that the batch changed, encoded. Raises Raised for one that does not encode."""
        groups = []
        for kept in self.kept.values():
            if kept.dirty:
                try:
                    encode = kept.type.encode
                    values = [None if e is None else encode(e) for e in kept.dirty.values()]
                    kept.note_size(sum(map(len, filter(None, values))) / len(values))
                    for key, value in zip(kept.dirty, values[:CHECKED_STATES]):
                        if value is not None:
                            kept.type.decode(value, key, self._schemas)
                except (Exception, SystemExit) as error:
                    raise Raised(kept.name) from error
                groups.append(StateGroup(kept.name, list(kept.dirty), values))
        return groups

    def undo(self) -> None:
        """Throw away what the batch did to live objects."""
        self.turn.clear()
        for kept in self.kept.values():
            for key in kept.dirty:
                kept.objects.pop(key, None)
                kept.old.pop(key, None)
            kept.dirty.clear()

    def distrust(self, type_name: str | None) -> None:
        """A turn of this type raised: run it carefully for a while."""
        if type_name is not None:
            self.kept[type_name].careful = CAREFUL_BATCHES

    def sealed(self) -> None:
        """The batch counts from now on; what was not used for long leaves the memory."""
        for kept in self.kept.values():
            if kept.dirty:
                kept.dirty.clear()
                if kept.careful:
                    kept.careful -= 1
            object_bytes = STATE_COST_BYTES + FIELD_COST * kept.state_bytes
            if len(kept.objects) * object_bytes > self._cache_bytes // 2:
                kept.old, kept.objects = kept.objects, {}


def _values(handler: Handler, args: Given) -> tuple[Any, ...]:
    if isinstance(args, tuple):
        return args
    return handler.unpack(args) if isinstance(args, bytes) else args()


def _traceback(error: BaseException) -> str:
    """The part of a traceback that the user's code wrote, newest call last."""
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.format_exception(type(error), error, frames))
