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
from itertools import islice
from typing import Any

import msgspec
from msgspec import Raw, Struct

from skerry.arguments import Args
from skerry.entity import Entity, EntityType
from skerry.errors import InvalidMessage, Rejected, StoreDamaged, UnknownEntity, storable, told
from skerry.handler import Handler
from skerry.limits import check_keys, measured
from skerry.roundtrip import RoundTrip
from skerry.runtime.core.buffer import Buffer, Extra, Runs
from skerry.runtime.core.events import StateGroup
from skerry.runtime.core.loops import IMMUTABLE, answering_loop_of, asking_loop_of, loop_of
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.core.settings import TURN_ERRORS
from skerry.runtime.core.stored import split
from skerry.turn import Turn, here, leave

CAREFUL_BATCHES = 64
"""How many batches a type stays careful after a raise: a careful turn costs about 0.3 µs more."""

ENTITY_BYTES = 176
"""What a cached entity costs in memory beside its fields, about: its object, its key and its
entry in a dict that has room to grow."""

AWAY_BYTES = 130
"""What it costs to remember of a key that it belongs to another shard: the key and its entry."""

ERROR_CHARS_MAX, TRACEBACK_CHARS_MAX = 1 << 14, 1 << 16
"""What is kept of an error's text and of its traceback: the beginning, and the end."""

LEAVES = 64
"""When the cache is full, about this part of it leaves at once, and not one place at a time."""

OBJECTS_BYTES = 4
"""How many bytes of objects a byte of an encoded state becomes, about."""


_encode = msgspec.msgpack.Encoder().encode
_REASON, _DETAILS = RoundTrip(str), RoundTrip(dict[str, Any])


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

    text: str
    body: bytes
    """Its reason and details, encoded."""


class Broke(Struct, frozen=True):
    """The handler raised on every retry; the turn left no trace."""

    error: str
    traceback: str


Result = Done | Refused | Broke


Given = Args | Callable[[], tuple[Any, ...]]
"""A message's arguments: as values, as bytes, or as what makes them."""


Place = Entity | Buffer
"""Where a key's messages go: a live entity of ours, or the buffer of another shard."""


Calling = tuple[str, Entity, Handler, tuple[Any, ...]]
"""A turn to be run: (key, entity, handler, arguments)."""


class Places(dict[str, Place]):
    """Places by key. A key that is looked up and not there is noted, and there is no place then."""

    __slots__ = ("missing",)

    def __init__(self) -> None:
        self.missing: dict[str, None] = {}

    def __missing__(self, key: str) -> None:
        self.missing[key] = None


class Kept:
    """What the shard holds of one entity type in memory."""

    __slots__ = (
        "away",
        "careful",
        "dirty",
        "forgotten",
        "name",
        "places",
        "state_bytes",
        "type",
    )

    def __init__(self, entity_type: EntityType) -> None:
        self.type = entity_type
        self.name = entity_type.name
        self.places = Places()
        self.away = 0
        """How many of the places are other shards."""
        self.dirty: dict[str, Entity] = {}
        """Changed in the open batch."""
        self.forgotten: set[str] = set()
        """Forgotten in the open batch; it may have come back since."""
        self.careful = 0
        self.state_bytes = 0.0
        """The mean size of the states seen lately, encoded."""

    @property
    def bytes(self) -> float:
        """The memory that its places take, about."""
        return self.away * AWAY_BYTES + self.bytes_of(len(self.places) - self.away)

    def bytes_of(self, entities: int) -> float:
        """The memory that so many entities take, about."""
        return entities * (ENTITY_BYTES + OBJECTS_BYTES * self.state_bytes)

    def shrink(self, bytes_max: int) -> None:
        """What came first leaves the memory, if it is used or not: to note each use, or to move
        what is used again, would cost each turn more than to load it again costs a few."""
        size = self.bytes
        if size > bytes_max:
            count = int(len(self.places) * (1 - bytes_max / size)) + len(self.places) // LEAVES
            for key in list(islice(self.places, count + 1)):
                if isinstance(self.places.pop(key), Buffer):
                    self.away -= 1

    def note_size(self, size: float) -> None:
        """Let the mean follow what is seen."""
        self.state_bytes += (size - self.state_bytes) / 8


class Turns:
    """Runs turns on the shard's entities, and knows which they changed."""

    def __init__(
        self,
        types: dict[str, EntityType],
        *,
        states: Callable[[str, Sequence[str], Sequence[int]], list[bytes | None]],
        schemas: Callable[[int], bytes | None],
        retries: int,
        cache_bytes: int,
        turn: Turn,
        leave: Callable[[Entity], None],
        elsewhere: Callable[[int], Buffer | None],
        turn_errors: tuple[type[BaseException], ...] = TURN_ERRORS,
    ) -> None:
        self._turn_errors = turn_errors
        self.kept = {name: Kept(entity_type) for name, entity_type in types.items()}
        self._elsewhere = elsewhere
        self._states = states
        self._schemas = schemas
        self._retries = retries
        self._cache_bytes = cache_bytes // max(1, len(types))
        self.turn = turn
        self._leave = leave

    # ── entities ──

    def place(self, kept: Kept, key: str) -> Place:
        """The place of a key. Raises what stands against loading its entity."""
        place = kept.places[key]
        if place is None:
            self._find(kept)
            place = kept.places[key]
        return place

    def _find(self, kept: Kept) -> None:
        """Find the places that were missing. Raises TypeError, ValueError: a key can't be one."""
        missing, kept.places.missing = kept.places.missing, {}
        keys = list(missing)
        check_keys(keys)
        own, own_slots = list[str](), list[int]()
        for key, slot in zip(keys, slots_of(kept.name, keys)):
            buffer = self._elsewhere(slot)
            if buffer is None:
                own.append(key)
                own_slots.append(slot)
            else:
                kept.places[key] = buffer
                kept.away += 1
        for key, state in zip(own, self._states(kept.name, own, own_slots)):
            if state is None:
                kept.places[key] = kept.type.new(key)
            else:
                kept.places[key] = kept.type.decode(state, key, self._schemas)
                kept.note_size(len(state))

    def forget(self, kept: Kept, entity: Entity) -> None:
        """Its state goes when the batch commits. What comes after meets the defaults, in the same
        object: the run that is under way holds it as the place of its key. Raises Raised: the turn
        has changed it since it was to be forgotten."""
        try:
            changed = self._changed_since(kept, entity)
        except TURN_ERRORS as unfit:
            raise Raised(kept.name) from unfit
        if changed:
            raise Raised(kept.name)
        fresh = kept.type.new(entity.key)
        for field in kept.type.fields:
            setattr(entity, field, getattr(fresh, field))
        kept.dirty.pop(entity.key, None)
        kept.forgotten.add(entity.key)

    # ── running ──

    def begin(self, now_ns: int, seed: tuple[bytes | int, ...]) -> None:
        """A batch begins, or begins again: its time, and what its random numbers grow from."""
        self.turn.begin(now_ns, seed)
        for kept in self.kept.values():
            clean = not kept.dirty and not kept.forgotten
            assert clean, f"I11: a run of {kept.name} begins on what another run left"

    def places(self, kept: Kept, keys: Sequence[str]) -> list[Place]:
        """Where each of these keys is. Raises Raised: one can't be a key, or can't be loaded."""
        try:
            known = kept.places
            found = list(map(known.__getitem__, keys))
            if known.missing:
                self._find(kept)
                found = [known[k] if place is None else place for k, place in zip(keys, found)]
        except StoreDamaged:
            raise
        except Exception as error:
            kept.places.missing.clear()
            unfit = isinstance(error, TypeError | ValueError)
            raise Raised(None if unfit else kept.name) from error
        assert not kept.places.missing, "each place that was missing has been found"
        return found

    def run_columns(
        self,
        kept: Kept,
        handler: Handler,
        keys: Sequence[str],
        places: Sequence[Place],
        column: Sequence[Any],
    ) -> None:
        """Messages that nobody waits for, in order, optimistically; those for others join their
        buffers. `column`: as `Handler.column`. Raises Raised.
        """
        cls, given = kept.type.cls, (handler, keys, places, column)
        self.turn.count += len(keys) - self._guarded(kept, loop_of(handler), cls, *given)

    def _guarded(self, kept: Kept, loop: Callable[..., Any], *given: Any) -> Any:
        """Run a loop over turns optimistically. Raises Raised."""
        turn = self.turn
        here.turn = turn
        try:
            return loop(turn, self._leave, kept.dirty, *given)
        except self._turn_errors as error:
            raise Raised(kept.name) from error
        finally:
            leave(turn)

    def spread(
        self,
        handler: Handler,
        keys: Sequence[str],
        buffers: Sequence[Buffer],
        column: Sequence[Any],
    ) -> None:
        """Messages that nobody waits for join these buffers: the same loop, that meets no entity."""
        loop_of(handler)(self.turn, self._leave, {}, None, handler, keys, buffers, column)

    def answer_columns(
        self,
        kept: Kept,
        handler: Handler,
        keys: Sequence[str],
        places: Sequence[Place],
        column: Sequence[Any],
        askers: Sequence[Extra],
        left: Runs,
    ) -> None:
        """As `run_columns`, for messages whose senders wait: the outcomes go to `left`."""
        given = (handler, keys, places, column, handler.encode_reply, left, askers)
        away = self._guarded(kept, answering_loop_of(handler), kept.type.cls, *given)
        self.turn.count += len(keys) - away

    def run_each(self, kept: Kept, calls: Iterable[Calling]) -> None:
        """Turns that have little in common, in order, optimistically. Raises Raised."""
        self.turn.count += self._guarded(kept, _each, calls)

    def ask_columns(
        self,
        kept: Kept,
        handler: Handler,
        keys: Sequence[str],
        column: Sequence[Any],
        *,
        wanted: bool,
    ) -> list[Any]:
        """As `run_columns`, for entities of this shard whose callers wait: what they are told, ready
        to be encoded. `wanted`: they wait for replies, and not only for the turns."""
        places = self.places(kept, keys)
        assert Buffer not in set(map(type, places)), f"I5: of {kept.name} some live elsewhere"
        in_turn = wanted and handler.returns not in IMMUTABLE
        loop = asking_loop_of(handler, in_turn=in_turn)
        given = (handler.encode_reply, handler.function, keys, places, column)
        replies: list[Any] = self._guarded(kept, loop, *given)
        self.turn.count += len(keys)
        if not wanted:
            return [None] * len(keys)
        if not in_turn and not handler.replies_hold(replies):
            raise Raised(kept.name)  # One is not what it promises. Run carefully, it is found.
        return replies

    def run(
        self, kept: Kept, handler: Handler, key: str, args: Given, *, wanted: bool, careful: bool
    ) -> Result:
        """One message. Careful: the entity is restored when it raises; else Raised.

        `wanted`: somebody waits for the reply, so it is encoded.
        """
        try:
            entity = self.place(kept, key)
        except StoreDamaged:
            raise
        except Exception as unfit:  # A state that does not fit, or an `_upgrade` that raises.
            return broke(unfit)
        assert isinstance(entity, Entity), f"I5: {kept.name}/{key} lives on another shard"
        if handler.query:
            return self._query(kept, handler, entity, args, careful=careful or kept.careful > 0)
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
        try:
            before = kept.type.encode(entity)
        except TURN_ERRORS as unfit:
            return self._spoilt(kept, key, unfit, careful=True)
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
            entity = kept.places[key] = kept.type.decode(before, key, self._schemas)
            result = _ending(error)
            if isinstance(result, Refused):
                break
        if key in kept.dirty:  # Another turn of this batch had changed it: that change stays.
            kept.dirty[key] = entity
        self.turn.end()
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
        here.turn = turn
        try:
            reply = handler.function(entity, *values)
            return (handler.encode_reply(reply) if wanted else None), None
        except self._turn_errors as error:
            return None, error
        finally:
            leave(turn)

    def _unsealable(self, kept: Kept, entity: Entity) -> BaseException | None:
        """What the commit or a later reader would stumble over, found while it harms one turn only.

        A state must come back as it is. What was sent must have an entity here.
        """
        turn = self.turn
        try:
            kept.type.seal([entity])
            for handler, _, _, _ in turn.sends:
                self._check_known(handler)
            for _, handler, _, _ in turn.laters:
                self._check_known(handler)
            if turn.forgotten and (changed := self._changed_since(kept, entity)):
                raise TypeError(
                    f"{kept.name} changed `{changed[0]}` after `forget()`, which removes its state "
                    f"when the turn ends. Change it before, or in a message that is sent to it"
                )
        except TURN_ERRORS as error:
            return error
        return None

    def _changed_since(self, kept: Kept, entity: Entity) -> list[str]:
        """The fields that the turn changed after it called `forget`."""
        then, state = self.turn.forgotten_state, kept.type.encode(entity)
        if then == state:
            return []
        fields = zip(kept.type.fields, split(then)[1:], split(state)[1:])
        return [name for name, before, after in fields if bytes(before) != bytes(after)]

    def _check_known(self, handler: Handler) -> None:
        if handler.entity not in self.kept:
            raise UnknownEntity(handler.entity, self.kept)

    def _query(
        self, kept: Kept, handler: Handler, entity: Entity, args: Given, *, careful: bool
    ) -> Result:
        try:
            before = kept.type.encode(entity)
        except TURN_ERRORS as unfit:
            return self._spoilt(kept, entity.key, unfit, careful=careful)
        self.turn.reading = True
        try:
            reply, error = self._attempt(handler, entity, args, True)
        finally:
            self.turn.reading = False
            self.turn.end()
        if error is None and not _still(kept, entity, before):
            error = TypeError(
                f"{handler.entity}.{handler.name} is a @query and changed its entity's state"
            )
        if error is None:
            return Done(reply)
        key = entity.key
        try:
            restored = kept.places[key] = kept.type.decode(before, key, self._schemas)
        except Exception as unfit:
            return self._spoilt(kept, key, unfit, careful=careful)
        if key in kept.dirty:
            kept.dirty[key] = restored
        return _ending(error)

    def _spoilt(self, kept: Kept, key: str, unfit: BaseException, *, careful: bool) -> Broke:
        """A turn met an entity that could not be kept as it is. Raises Raised while an earlier turn
        of the batch may have left it so; carefully, it was changed outside of turns."""
        if not careful:
            raise Raised(kept.name) from unfit
        if key not in kept.dirty:
            del kept.places[key]
        return broke(unfit)

    # ── the end of a batch ──

    def states(self) -> tuple[list[StateGroup], list[list[Entity]]]:
        """The states that the batch changed, encoded; and whose they are. Raises Raised for one that
        would not come back as it is."""
        changed = [kept for kept in self.kept.values() if kept.dirty or kept.forgotten]
        live = [list(kept.dirty.values()) for kept in changed]
        return list(map(self._states_of, changed, live)), live

    def _states_of(self, kept: Kept, live: list[Entity]) -> StateGroup:
        dirty = kept.dirty
        try:
            states = kept.type.seal(live)
        except TURN_ERRORS as error:
            raise Raised(kept.name) from error
        kept.note_size(len(states) / max(1, len(dirty)))
        gone = [key for key in kept.forgotten if key not in dirty]
        return StateGroup(kept.name, list(dirty), Raw(states), gone)

    def undo(self) -> None:
        """Throw away what the batch did to live objects."""
        self.turn.clear()
        for kept in self.kept.values():
            for key in (*kept.dirty, *kept.forgotten):
                kept.places.pop(key, None)
            kept.dirty.clear()
            kept.forgotten.clear()

    def distrust(self, type_name: str | None) -> None:
        """A turn of this type raised: run it carefully for a while."""
        if type_name is not None:
            self.kept[type_name].careful = CAREFUL_BATCHES

    def sealed(self) -> None:
        """The batch counts from now on; what has no room in the cache leaves it."""
        for kept in self.kept.values():
            if kept.dirty or kept.forgotten:
                kept.dirty.clear()
                kept.forgotten.clear()
                if kept.careful:
                    kept.careful -= 1
            kept.shrink(self._cache_bytes)


def _each(
    turn: Turn,
    leave: Callable[[Entity], None],
    dirty: dict[str, Entity],
    calls: Iterable[Calling],
) -> int:
    """The loop of turns that have little in common; how many they were."""
    count = 0
    for key, entity, handler, args in calls:
        dirty[key] = turn.entity = entity
        count += 1
        handler.function(entity, *args)
        if turn.extra or turn.sends:
            leave(entity)
    return count


def _values(handler: Handler, args: Given) -> tuple[Any, ...]:
    if isinstance(args, tuple):
        return args
    return handler.unpack(args) if isinstance(args, bytes) else args()


def _still(kept: Kept, entity: Entity, before: bytes) -> bool:
    """Whether an entity's state is what it was."""
    try:
        return kept.type.encode(entity) == before
    except Exception:  # What was there before did encode.
        return False


def _ending(error: BaseException) -> Refused | Broke:
    """What a turn that raised comes to, in words that can be kept."""
    if isinstance(error, Rejected):
        try:
            return Refused(storable(str(error)), _refusal(error.reason, error.details))
        except BaseException as wrong:  # It is a subclass without a reason, or a value's __repr__.
            return broke(wrong)
    return broke(error)


def _refusal(reason: Any, details: Any) -> bytes:
    """A refusal as who asked will have it. Raises TypeError, ValueError: it would be another."""
    body = _encode([reason, details])
    for text, value, rule in (("reason", reason, _REASON), ("details", details, _DETAILS)):
        if not rule.holds((value,)):
            raise TypeError(f"Rejected: its {text}{rule.fault(value)}")
    return measured(body, "Rejected: its details have")


def broke(error: BaseException) -> Broke:
    """A failure as it is told and kept, with the part of its traceback that the user's code wrote."""
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    lines = traceback.format_exception(type(error), error, frames)
    return Broke(
        _shortened(told(error), ERROR_CHARS_MAX),
        _shortened(storable("".join(lines)), TRACEBACK_CHARS_MAX),
    )


def _shortened(text: str, chars_max: int) -> str:
    """A text without its middle, when it is too long to keep."""
    if len(text) <= chars_max:
        return text
    half = chars_max // 2
    return f"{text[:half]} … {len(text) - chars_max:,} characters … {text[-half:]}"
