"""What a turn left behind becomes messages, timers, asks and items, in its order.

A verb writes one tagged intention on the Turn; each tag has one applier here, and they run
in the order in which the verbs were called. So a new verb is a tag and an applier, and what
comes before or after `forget()` needs no rule of its own.

    send(a); ask(b); forget(); set_timer(c)
        message to a -> message to b and the ask's row -> both rows and state of the old
        life gone -> a timer that meets a new entity

Most turns leave nothing but plain sends. These do not depend on their sender, so they lie on
the Turn while other turns run, and are collected as runs of one handler.

No I/O, no clock. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

from skerry.entity import Entity
from skerry.errors import UnknownEntity
from skerry.handler import Handler
from skerry.runtime.core.buffer import ASKS, EMITS, SENDS, Runs
from skerry.runtime.core.cache import Cache
from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.ids import Ids
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.results import Raised
from skerry.runtime.core.settings import TURN_ERRORS
from skerry.runtime.core.stored import split
from skerry.runtime.core.tables.asks import Ask, Asks, Continuation
from skerry.runtime.core.tables.outputs import home, partition_of
from skerry.runtime.core.tables.timers import Timer, Timers, timer_key, unnamed_key
from skerry.turn import Intention, Turn


class Intentions:
    """Applies what the turns of a shard leave behind; their messages gather in `left`."""

    def __init__(
        self, turn: Turn, cache: Cache, timers: Timers, asks: Asks, left: Runs, ids: Ids
    ) -> None:
        self._turn, self._cache = turn, cache
        self._timers, self._asks, self._left, self._ids = timers, asks, left, ids
        self._appliers = {
            "send": self._send,
            "ask": self._ask,
            "later": self._later,
            "timer": self._timer,
            "cancel": self._cancel,
            "emit": self._emit,
            "forget": self._forget,
        }
        turn.timer_set = self._timer_set

    def apply(self, entity: Entity) -> None:
        """Apply what the turn of `entity` left behind. Raises Raised."""
        turn = self._turn
        if not turn.extra:
            self.collect()
            return
        if turn.forgotten is not None and self.fault(entity):
            raise Raised(entity.__skerry__.name)
        appliers = self._appliers
        for intention in turn.intentions:
            appliers[intention[0]](entity, intention)
        turn.end()

    def collect(self) -> None:
        """Take the plain sends of any number of turns."""
        intentions = self._turn.intentions
        if not intentions:
            return
        for handler, sends in groupby(intentions, itemgetter(1)):
            _, _, keys, args = zip(*sends)
            self._left.extend(handler, keys, handler.column(args))
        intentions.clear()

    def fault(self, entity: Entity) -> BaseException | None:
        """The error of a turn whose state or intentions could not be sealed, or be run later."""
        turn, kind = self._turn, entity.__skerry__
        try:
            kind.seal([entity])
            for intention in turn.intentions:
                for part in intention:
                    if isinstance(part, Handler) and part.entity not in self._cache.types:
                        return UnknownEntity(part.entity, self._cache.types)
            if turn.forgotten is not None and (changed := _changed(turn.forgotten, entity)):
                return TypeError(
                    f"{kind.name} changed `{changed[0]}` after `forget()`, which removes its state "
                    f"when the turn ends. Change it before, or in a message that is sent to it"
                )
        except TURN_ERRORS as error:
            return error
        return None

    def _timer_set(self, entity: Entity, name: str) -> bool:
        """Whether a named timer stands, as the open batch sees it."""
        row_key = timer_key(entity.__skerry__.name, entity.key, name)
        return self._timers.stands(row_key) is not None

    # ── one applier for each tag ──

    def _send(self, entity: Entity, intention: Intention) -> None:
        _, handler, key, args = intention
        self._left.add(SENDS[handler], key, handler.entry(args), None)

    def _ask(self, entity: Entity, intention: Intention) -> None:
        _, handler, to, args, asked = intention
        name, key = entity.__skerry__.name, entity.key
        id = slot_prefix(slot_of(name, key)) + self._ids.new()
        timer = b""
        then, rejected, failed, timeout = asked.outcomes
        if timeout is not None:
            delay_ns, late, late_args = timeout
            timer = unnamed_key(name, key, id)
            due_ns = self._turn.now_ns + delay_ns
            row = Timer("timeout", due_ns, name, key, "", late.id, late.params_id, late_args, id=id)
            self._timers.set(timer, row)
        self._asks.add(
            Ask(
                name,
                key,
                id,
                asked.replies,
                _continuation(then),
                _continuation(rejected),
                _continuation(failed),
                timer,
            )
        )
        self._left.add(ASKS[handler], to, handler.entry(args), (name, key, id))

    def _later(self, entity: Entity, intention: Intention) -> None:
        _, delay_ns, handler, to, args = intention
        if handler.entity not in self._cache.types:
            raise Raised  # Run isolated, the turn is found that sent it.
        name, key = entity.__skerry__.name, entity.key
        id = self._ids.new()
        due_ns = self._turn.now_ns + delay_ns
        ours = name, key, "", handler.id, handler.params_id, args
        row = Timer("later", due_ns, *ours, to, handler.entity, id)
        self._timers.set(unnamed_key(name, key, id), row)

    def _timer(self, entity: Entity, intention: Intention) -> None:
        _, timer_name, delay_ns, handler, args = intention
        name, key = entity.__skerry__.name, entity.key
        due_ns = self._turn.now_ns + delay_ns
        row = Timer("named", due_ns, name, key, timer_name, handler.id, handler.params_id, args)
        self._timers.set(timer_key(name, key, timer_name), row)

    def _cancel(self, entity: Entity, intention: Intention) -> None:
        self._timers.cancel(timer_key(entity.__skerry__.name, entity.key, intention[1]))

    def _emit(self, entity: Entity, intention: Intention) -> None:
        _, output, item = intention
        partition = partition_of(entity.__skerry__.name, entity.key, output.partitions)
        self._left.add(EMITS[home(output.name)], partition, None, (item,))

    def _forget(self, entity: Entity, intention: Intention) -> None:
        """End a life: its state, its named timers, its pending asks and their time-outs."""
        cached = self._cache.types[entity.__skerry__.name]
        self._cache.forget(cached, entity)
        self._timers.cancel_all(cached.name, entity.key)
        for ask in self._asks.take_all(cached.name, entity.key):
            if ask.timer:
                self._timers.cancel(ask.timer)


def _continuation(then: tuple[Handler, bytes] | None) -> Continuation | None:
    return None if then is None else (then[0].id, then[0].params_id, then[1])


def _changed(before: bytes, entity: Entity) -> list[str]:
    """The fields that have changed since the state of an entity was encoded."""
    kind = entity.__skerry__
    state = kind.encode(entity)
    if before == state:
        return []
    fields = zip(kind.fields, split(before)[1:], split(state)[1:])
    return [name for name, old, new in fields if bytes(old) != bytes(new)]
