"""Runs turns: many together while all goes well, each alone where one may fail.

A batch has one mode. An optimistic batch runs its messages as columns, one after the other on
live objects, and keeps nothing to go back to. When a handler raises, the whole batch is thrown
away and run again isolated: the state of each entity is kept before its turn and restored when
that raises. So the states and messages of exactly one run are ever used (I11), whatever made
the handler behave differently. In quarantine, after a worker hung or died, a batch is one
message, and it is isolated, too.

There are two ways to run a turn. `alone` can run any. `together` runs a column in a loop that
does little but call the handler: a message of keyed_counter_10k costs the core 0.3 µs in it, and
2.5 µs alone, so that without it the figure would be less than a third.

The app's code is called in one place, `call`. Reads no clock. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from skerry.arguments import Args
from skerry.entity import Entity
from skerry.errors import InvalidMessage, StoreDamaged
from skerry.handler import Handler
from skerry.runtime.core.buffer import Extra, Head
from skerry.runtime.core.cache import Cache, Cached
from skerry.runtime.core.events import Identity
from skerry.runtime.core.intentions import Intentions
from skerry.runtime.core.loops import Shape, Waits, loop_of
from skerry.runtime.core.results import (
    Broke,
    Done,
    OutcomeArgs,
    Raised,
    Refused,
    Result,
    broke,
    ending,
)
from skerry.runtime.core.settings import TURN_ERRORS, Settings
from skerry.turn import Turn, here, leave

ISOLATED_BATCHES = 64
"""For how many batches a type runs isolated after a raise: such a turn costs about 0.3 µs more, and
most optimistic batches with it would be run twice."""


class Mode(enum.Enum):
    """How the turns of a batch run."""

    OPTIMISTIC = "together: a turn that raises throws the batch away"
    ISOLATED = "each alone: a turn that raises harms only its own message"
    QUARANTINE = "each alone, one a batch, and named before it runs: it may hang or kill the worker"


class Executor:
    """Runs the turns of one shard's entities."""

    def __init__(
        self,
        cache: Cache,
        turn: Turn,
        intentions: Intentions,
        settings: Settings,
        watch: Callable[[Identity], None],
    ) -> None:
        self.cache, self.turn = cache, turn
        self._intentions, self._watch = intentions, watch
        self._retries, self._errors = settings.retries, settings.turn_errors
        self._poison, self._verdict = settings.poison, settings.verdict
        self.mode = Mode.OPTIMISTIC
        self._poisoned = False
        """Whether the message that runs next has ended workers before: a dead letter instead."""
        self.ran: Callable[[str, Sequence[str]], None] | None = None
        """See `Budget`."""

    def begin(self, mode: Mode, now_ns: int, seed: tuple[bytes | int, ...]) -> None:
        """Begin a batch, or begin it again: its time, and the seed of its random numbers."""
        self.mode = mode
        self.turn.begin(now_ns, seed)

    def optimistic(self, handler: Handler) -> bool:
        """Whether turns of this handler run together now."""
        return (
            self.mode is Mode.OPTIMISTIC
            and not handler.query
            and not self.cache.types[handler.entity].isolated
        )

    def distrust(self, type_name: str | None) -> None:
        """Run the turns of a type isolated for a while: one of them has raised."""
        if type_name is not None:
            self.cache.types[type_name].isolated = ISOLATED_BATCHES

    def announce(self, identity: Identity) -> None:
        """Name the message that runs next, so that its name survives it. Only in quarantine."""
        self._watch(identity)
        self._poisoned = identity == self._poison

    def poison(self, what: str) -> Broke | None:
        """The result of a message that has ended workers before, and does not run again."""
        if not self._poisoned:
            return None
        self._poisoned = False
        return Broke(f"{what} {self._verdict}", "")

    def call(
        self, turn: Turn | None, function: Callable[..., Any], *args: Any
    ) -> tuple[Any, BaseException | None]:
        """Call the app's code, in this turn or in none: (value, None), or (None, its error)."""
        here.turn = turn
        try:
            value = function(*args)
        except BaseException as error:
            leave(self.turn)  # While the error is at hand: a forked child ends as it says.
            if isinstance(error, self._errors):
                return None, error
            raise
        leave(self.turn)
        return value, None

    # ── together ──

    def together(
        self,
        handler: Handler,
        keys: Sequence[str],
        column: Sequence[Any],
        shape: Shape,
        *,
        head: Head | None = None,
        extras: Sequence[Extra] = (),
        waits: Waits = Waits.NOBODY,
        tell: Callable[..., None] | None = None,
    ) -> None:
        """Run turns of one handler, in order. Raises Raised.

        Args:
            head: that of these messages; those to other shards join their buffers under it. None
                when all keys live here.
            tell: told each reply, and by `Waits.ASKER` who waits for it (`extras`).
        """
        cached = self.cache.types[handler.entity]
        locations = self.cache.locations(cached, keys)
        if head is None:
            assert {cached.type.cls}.issuperset(map(type, locations)), (
                f"I5: {cached.name} elsewhere"
            )
        turn, leave = self.turn, self._intentions.apply
        given = turn, leave, cached.dirty, cached.type.cls, handler, head, keys, locations
        away, error = self.call(turn, loop_of(shape, waits), *given, column, extras, tell)
        if error is not None:
            raise Raised(cached.name) from error
        turn.count += len(keys) - away
        self._intentions.collect()
        if self.ran is not None:
            self.ran(cached.name, keys)

    # ── alone ──

    def alone(
        self, handler: Handler, key: str, args: Args | OutcomeArgs, *, wanted: bool
    ) -> Result:
        """Run one turn; its entity is restored when it raises. `wanted`: its reply is encoded.

        Raises Raised when an earlier turn of an optimistic batch spoilt the entity.
        """
        if poison := self.poison("the handler"):
            return poison
        cached = self.cache.types[handler.entity]
        try:
            entity = self.cache.location(cached, key)
        except StoreDamaged:
            raise
        except Exception as unfit:  # A state that does not fit, or an `_upgrade` that raises.
            return broke(unfit)
        assert isinstance(entity, Entity), f"I5: {cached.name}/{key} lives on another shard"
        try:
            before = cached.type.encode(entity)
        except TURN_ERRORS as unfit:
            return self._spoilt(cached, key, unfit)
        result: Result | None = None
        for _ in range(1 if handler.query else 1 + self._retries):
            result = self._try(cached, handler, entity, args, before, wanted)
            if isinstance(result, Done):
                break
            self.turn.clear()
            try:
                entity = self.cache.restore(cached, key, before)
            except Exception as unfit:
                return self._spoilt(cached, key, unfit)
            if key in cached.dirty:  # An earlier turn of this batch has changed it, and counts.
                cached.dirty[key] = entity
            if isinstance(result, Refused):
                break
        self.turn.end()
        if self.ran is not None:
            self.ran(cached.name, (key,))
        assert result is not None, "a turn was tried at least once"
        return result

    def _try(
        self,
        cached: Cached,
        handler: Handler,
        entity: Entity,
        args: Args | OutcomeArgs,
        before: bytes,
        wanted: bool,
    ) -> Result:
        """Call a handler once. Its turn counts when all that it changed and left can be kept."""
        turn = self.turn
        try:
            values = _values(handler, args)
        except InvalidMessage as unfit:
            return broke(unfit)
        turn.count += 1
        turn.entity, turn.reading = entity, handler.query
        reply, error = self.call(turn, handler.function, entity, *values)
        turn.reading = False
        if error is None and wanted:
            reply, error = self.call(None, handler.encode_reply, reply)
        if error is None:
            if not handler.query:
                error = self._intentions.fault(entity)
            elif not _still(cached, entity, before):
                error = TypeError(
                    f"{handler.entity}.{handler.name} is a @query and changed its entity's state"
                )
        if error is not None:
            if not handler.query:
                cached.isolated = ISOLATED_BATCHES
            return ending(error)
        if not handler.query:
            cached.dirty[entity.key] = entity
            self._intentions.apply(entity)
        return Done(reply if wanted else None)

    def _spoilt(self, cached: Cached, key: str, unfit: BaseException) -> Broke:
        """Refuse a turn on an entity that can't be kept as it is. Raises Raised while an earlier turn
        of the batch may have left it so; isolated, it was changed outside of turns."""
        if self.mode is Mode.OPTIMISTIC and not cached.isolated:
            raise Raised(cached.name) from unfit
        if key not in cached.dirty:
            cached.evict((key,))
        return broke(unfit)


def _values(handler: Handler, args: Args | OutcomeArgs) -> tuple[Any, ...]:
    """A handler's arguments as values, made anew for each try: it may change them and then raise."""
    if isinstance(args, OutcomeArgs):
        return handler.outcome(args.first, args.rest, args.with_first)
    return handler.unpack(args) if isinstance(args, bytes) else args


def _still(cached: Cached, entity: Entity, before: bytes) -> bool:
    """Whether an entity's state is what it was."""
    try:
        return cached.type.encode(entity) == before
    except Exception:  # What was there before did encode.
        return False
