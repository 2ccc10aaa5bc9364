"""Measures how busy a worker is, and which slots and entities make it so.

    every batch    its time is added up
    one in some    the time of its turns, and the bytes that it writes, are dealt out to their keys
    a look         all of it as a rate, in which older time counts less and less

Keys are looked at one by one only in a sampled batch, and there only a part of them: what a
message costs does not change. The rest of a batch's time, in which states are encoded and
written, is dealt out by bytes. Work of no slot that is served here, such as sorting out messages
for other workers, stays with the worker: no move would take it away.

Of entities only the heaviest are remembered, as Misra and Gries do: when there are too many, the
same is taken from all, and those go that have nothing left. So an entity is never said to cost
more than it does, and less by a 65th of the whole at most.

Reads the time at sampled batches and looks only. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from skerry.runtime.core.demand import Load
from skerry.runtime.core.events import Commit
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.stored import split
from skerry.runtime.worker.ports import Clock, Stopwatch

K = TypeVar("K")

EVERY = 17
"""One batch in so many is sampled. Odd: a worker may serve clients in every other batch."""

KEYS = 128
"""How many keys of a sampled batch are looked at, about."""

TURN_BYTES = 256
"""A turn counts like so many bytes when the time around the turns is dealt out."""

SPLIT = 1024
"""Above so many states of a type in a commit, all count as equally large."""

ENTITIES = 64
"""Entities that are remembered at least."""

ENTITIES_MAX = 1024
"""When there are more, only the heaviest stay."""

TICKS = 30
"""So many times in a half-life, what was measured before loses weight."""

HOT = 12
"""Entities that a look names."""

SLOTS_TOLD = 256
"""Slots that a look tells, the heaviest."""

LEAST = 1 / 4096
"""Seconds per second: slots and entities below are not told."""


class Sample:
    """The turns of one batch as they run: the core calls it after each run of messages."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self.marks: list[tuple[str, Sequence[str], float]] = []
        """Entity type, keys, and when their turns had ended."""

    def __call__(self, type: str, keys: Sequence[str]) -> None:
        """Note that turns of these keys have run."""
        self.marks.append((type, keys, self._stopwatch.clock_s))


class Meter:
    """The load of one worker.

    Args:
        half_life_s: after so long, what was measured counts half.
    """

    def __init__(self, half_life_s: float, clock: Clock, stopwatch: Stopwatch) -> None:
        self._half_life_s, self._clock, self._stopwatch = half_life_s, clock, stopwatch
        self._began_ns = self._ticked_ns = clock.steady_ns()
        self._cpu_s = stopwatch.cpu_s
        self._batches = 0
        self._ran_s = 0.0
        """The time of the batches since the last tick."""
        self._busy = 0.0
        self._sampled_s = 0.0
        """The time of sampled batches; of it, what slots and entities took:"""
        self._slots: dict[int, float] = {}
        self._entities: dict[tuple[str, str], float] = {}

    # ── batches ──

    def begin(self) -> Sample | None:
        """Begin a batch; None: it is not sampled."""
        self._batches += 1
        return None if self._batches % EVERY else Sample(self._stopwatch)

    def took(
        self,
        clock_s: float,
        own_s: float,
        commit: Commit | None,
        sample: Sample | None,
        served: Collection[int],
    ) -> None:
        """Note how long a batch took; deal its time out to the slots that are served, if it was sampled.

        Args:
            clock_s, own_s: by the clock, and without waiting for a core.
        """
        self._ran_s += own_s
        if sample is None:
            return
        self._tick()
        spent: dict[tuple[str, str], float] = {}
        weights: dict[tuple[str, str], float] = {}
        # Where the thread waited for a core, the clock says more than was spent.
        real = min(1.0, own_s / clock_s) if clock_s > 0 else 0.0
        ended_s, step = 0.0, _step(sum(len(keys) for _, keys, _ in sample.marks))
        first = self._batches % step
        for type, keys, at_s in sample.marks:
            each_s = (at_s - ended_s) * real / len(keys) * step if keys else 0.0
            ended_s = at_s
            for key in keys[first::step]:
                spent[type, key] = spent.get((type, key), 0.0) + each_s
                weights[type, key] = weights.get((type, key), 0.0) + TURN_BYTES * step
            first = (first - len(keys)) % step
        written = {} if commit is None else _written(commit, self._batches)
        for where, size in written.items():
            weights[where] = weights.get(where, 0.0) + size
        rest_s, whole = max(0.0, own_s - ended_s * real), sum(weights.values())
        for where, weight in weights.items():
            spent[where] = spent.get(where, 0.0) + rest_s * weight / whole
        self._sampled_s += own_s
        self._add(spent, served)

    def _add(self, spent: dict[tuple[str, str], float], served: Collection[int]) -> None:
        slots, entities = self._slots, self._entities
        for (type, key), seconds in spent.items():
            slot = slot_of(type, key)
            if slot in served:
                slots[slot] = slots.get(slot, 0.0) + seconds
                entities[type, key] = entities.get((type, key), 0.0) + seconds
        if len(entities) > ENTITIES_MAX:
            least = sorted(entities.values(), reverse=True)[ENTITIES]
            self._entities = {
                where: seconds - least for where, seconds in entities.items() if seconds > least
            }

    # ── rates ──

    def _tick(self) -> None:
        """Let what was measured before lose weight, if it is time."""
        now_ns = self._clock.steady_ns()
        passed_s = (now_ns - self._ticked_ns) / 1e9
        if passed_s < self._half_life_s / TICKS:
            return
        cpu_s = self._stopwatch.cpu_s
        left = 0.5 ** (passed_s / self._half_life_s)
        # Handlers may wait without a core, and threads that write need one without a batch.
        busy = max(self._ran_s, cpu_s - self._cpu_s) / passed_s
        self._busy = self._busy * left + busy * (1 - left)
        self._ticked_ns, self._cpu_s, self._ran_s = now_ns, cpu_s, 0.0
        self._sampled_s *= left
        self._slots = _faded(self._slots, left)
        self._entities = _faded(self._entities, left)

    def look(self, served: Collection[int], stored_bytes: int = 0) -> Load:
        """Return the load as it is now, of the slots that are served. They take so many bytes."""
        self._tick()
        known_s = (self._ticked_ns - self._began_ns) / 1e9
        known = 1 - 0.5 ** (known_s / self._half_life_s)
        busy = self._busy / known if known else 0.0
        rate = busy / self._sampled_s if self._sampled_s else 0.0
        heavy = sorted(self._slots.items(), key=lambda found: -found[1])
        told = [slot for slot, seconds in heavy if slot in served and seconds * rate >= LEAST]
        slots = {slot: self._slots[slot] * rate for slot in told[:SLOTS_TOLD]}
        heaviest = sorted(self._entities.items(), key=lambda found: -found[1])[:HOT]
        return Load(
            busy=busy,
            slots=slots,
            slot_bytes=stored_bytes // max(1, len(served)),
            hot=[
                (type, key, seconds * rate)
                for (type, key), seconds in heaviest
                if seconds * rate >= LEAST and slot_of(type, key) in served
            ],
        )


def _written(commit: Commit, salt: int) -> dict[tuple[str, str], float]:
    """Return the bytes of states in a commit by entity, as a part of them tells."""
    found: dict[tuple[str, str], float] = {}
    step = _step(sum(len(group.keys) for group in commit.states))
    first = salt % step
    for group in commit.states:
        keys = group.keys[first::step]
        if len(group.keys) <= SPLIT:
            sizes = [memoryview(state).nbytes for state in split(group.states)[first::step]]
        else:
            sizes = [memoryview(group.states).nbytes // len(group.keys)] * len(keys)
        for key, size in zip(keys, sizes):
            found[group.type, key] = float(size * step)
        first = (first - len(group.keys)) % step
    return found


def _step(keys: int) -> int:
    """Return which part of so many keys is looked at: one in how many."""
    return -(-keys // KEYS) or 1


def _faded(found: dict[K, float], left: float) -> dict[K, float]:
    return {where: amount * left for where, amount in found.items()}
