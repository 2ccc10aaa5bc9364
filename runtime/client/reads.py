"""What a caller reads: states, counts and dead letters, while slots move between the shards.

Each slot is read once, at the shard that serves it when it is read. Pages come shard by shard.

No socket. Idea: docs/ideas/clients.md, "Order and reads".
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from skerry.errors import UnknownEntity
from skerry.runtime.client.questions import ANSWER_S, Questions
from skerry.runtime.client.session import Session
from skerry.runtime.client.walk import Walk
from skerry.runtime.core.commit import slot_of_letter
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.gateway.protocol import PAGE_ROWS

COUNT_S = 3600.0
"""How long counting may take, beside all else that a worker does."""


class Reads:
    """The reads of one connection."""

    def __init__(self, questions: Questions, session: Session) -> None:
        self._questions, self._session = questions, session

    def _owners(self) -> Sequence[int]:
        """The owner of each slot, as far as is known."""
        greeting = self._session.greeting
        assert greeting is not None, "a connection is opened before it is used"
        return greeting.placement.slots

    async def _pages(
        self,
        kind: str,
        walk: Walk,
        args: Callable[[bytes], Sequence[Any]],
        timeout_s: float = ANSWER_S,
    ) -> AsyncIterator[Any]:
        """Ask until the walk is over; yield the answers. `args`: what is asked about these slots."""

        def question() -> tuple[int, Sequence[Any]]:
            shard, slots = walk.next(self._owners())
            return shard, args(slots)

        while not walk.over:
            found = await self._questions.ask_owner(kind, question, timeout_s=timeout_s)
            rows, read = found[0], found[-1]
            walk.took(read, rows[-1][0] if isinstance(rows, list) and rows else None)
            yield found

    # ── states ──

    async def get(self, type_name: str, key: str) -> tuple[bytes | None, bytes | None]:
        """Return an entity's last committed state and its schema, None when there is none.

        Raises UnknownEntity.
        """
        state, schema = await self._questions.ask_owner(
            "get", lambda: (self._session.owner(type_name, key), (type_name, key))
        )
        return state, schema

    async def scan(
        self, type_name: str, prefix: str = ""
    ) -> AsyncIterator[tuple[list[tuple[str, bytes]], dict[int, bytes | None]]]:
        """Yield pages of (key, state) of a type, and the schemas of the states.

        Raises UnknownEntity, Unavailable.
        """
        self._check_known(type_name)
        walk = Walk("", partial(slot_of, type_name))
        pages = self._pages(
            "scan", walk, lambda slots: (type_name, prefix, walk.after, PAGE_ROWS, slots)
        )
        async for rows, schemas, _ in pages:
            yield rows, schemas

    async def count(self, type_name: str) -> int:
        """Count the entities of a type that have a state. Raises UnknownEntity."""
        self._check_known(type_name)
        answers = await self._everywhere("count", lambda slots: (type_name, slots))
        return sum(count for count, _ in answers)

    def _check_known(self, type_name: str) -> None:
        greeting = self._session.greeting
        if greeting and type_name not in greeting.types and type_name not in greeting.kept:
            raise UnknownEntity(type_name, greeting.types)

    async def _everywhere(self, kind: str, args: Callable[[bytes], Sequence[Any]]) -> list[Any]:
        """Ask all shards at once for what they find in their slots; return the answers."""
        own: dict[int, list[int]] = {}
        for slot, owner in enumerate(self._owners()):
            own.setdefault(owner, []).append(slot)

        async def answers(slots: list[int]) -> list[Any]:
            # These begin no slot that they do not read to its end.
            walk = Walk("", lambda key: -1, slots)
            return [found async for found in self._pages(kind, walk, args, COUNT_S)]

        found = await asyncio.gather(*map(answers, own.values()))
        return [each for of_one in found for each in of_one]

    # ── dead letters: (id, letter) without tracebacks, as `DeadLetter` or its fields ──

    async def letters(self) -> AsyncIterator[list[tuple[bytes, Any]]]:
        """Yield all dead letters in pages."""
        walk = Walk(b"", slot_of_letter)
        pages = self._pages("dead", walk, lambda slots: ("list", walk.after, PAGE_ROWS, slots))
        async for letters, _ in pages:
            yield letters

    async def oldest_letters(self, limit: int) -> tuple[list[tuple[bytes, Any]], int]:
        """Return the oldest dead letters, at most a page of each shard, and the number of all."""
        few = min(limit, PAGE_ROWS)
        answers = await self._everywhere("dead", lambda slots: ("oldest", None, few, slots))
        letters = [letter for found, _, _ in answers for letter in found]
        oldest = heapq.nsmallest(limit, letters, key=lambda letter: (letter[1][0], letter[0]))
        return oldest, sum(total for _, total, _ in answers)

    async def letter(self, id: bytes) -> Any:
        """Return one dead letter whole; None: there is none."""
        found = await self._questions.ask_owner("dead", self._about(id, "show"))
        return found[0][1] if found else None

    async def operate(self, id: bytes, action: str) -> tuple[str, bytes]:
        """Retry or drop a dead letter. Returns the outcome's kind and body."""
        kind, body = await self._questions.ask_owner(
            "dead", self._about(id, action), moved=lambda outcome: outcome[0] == "moved"
        )
        return kind, body

    def _about(self, id: bytes, action: str) -> Callable[[], tuple[int, Sequence[Any]]]:
        return lambda: (self._owners()[slot_of_letter(id)], (action, id))
