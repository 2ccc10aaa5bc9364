"""xoscar actors: an actor a key, and the users' own batches of 1,000 into two actors.

After its guide: "Actor pool" (a process a core, by `n_process`), "Actor" (a stateful one takes
one message at a time) and "Quickstart" (calls gathered, not awaited one by one). The load is
made by an actor in each process, so both cores do everything.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import xoscar as xo

from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given


class Account(xo.Actor):
    """One key."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int) -> int:
        """Its state."""
        self.value += amount
        return self.value

    # Two that transfer to each other would wait for each other's lock.
    @xo.no_lock
    async def transfer(self, to: Any) -> None:
        """Take one, send it to another key."""
        self.value -= 1
        await to.add(1)

    def read(self) -> int:
        """What it holds."""
        return self.value


class Owner(xo.Actor):
    """Half of the keys."""

    def __init__(self) -> None:
        self.states: dict[str, int] = {}

    def add_all(self, names: list[str]) -> None:
        """A message each."""
        states = self.states
        for name in names:
            states[name] = states.get(name, 0) + 1

    def transfer_all(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Take one from each; where each goes, by owner."""
        states = self.states
        for name in names:
            states[name] = states.get(name, 0) - 1
        return load.halves(map(load.other, names))

    def read(self) -> dict[str, int]:
        """What it holds."""
        return self.states


class Feeder(xo.StatelessActor):
    """A program of its own that makes a part of the load."""

    def __init__(self, accounts: dict[str, Any], owners: Sequence[Any]) -> None:
        self.accounts, self.owners = accounts, owners

    async def add(self, names: list[str]) -> None:
        """A call a message, a thousand in flight."""
        await asyncio.gather(*(self.accounts[name].add(1) for name in names))

    async def transfer(self, names: list[str]) -> None:
        """A call a transfer, a thousand in flight."""
        accounts = self.accounts
        calls = (accounts[name].transfer(accounts[load.other(name)]) for name in names)
        await asyncio.gather(*calls)

    async def add_all(self, names: list[str]) -> None:
        """A call a batch, to both owners at once."""
        parts = zip(self.owners, load.halves(names))
        await asyncio.gather(*(owner.add_all(part) for owner, part in parts))

    async def transfer_all(self, names: list[str]) -> None:
        """The same; then what was taken is brought to its owners."""
        parts = zip(self.owners, load.halves(names))
        taken = await asyncio.gather(*(owner.transfer_all(part) for owner, part in parts))
        for to in taken:
            await asyncio.gather(*(owner.add_all(part) for owner, part in zip(self.owners, to)))

    async def feed(self, method: str, size: int, partitions: Sequence[str], count: int) -> None:
        """So many keys at a time."""
        send = getattr(self, method)
        for partition in partitions:
            for names in load.batches(partition, count, size):
                await send(names)


async def pools() -> tuple[Any, list[str]]:
    """Two processes on loopback."""
    address = f"127.0.0.1:{figure.free_port()}"
    pool = await xo.create_actor_pool(address=address, n_process=2)
    config = await xo.get_pool_config(address)
    return pool, [one for one in config.get_external_addresses() if one != address]


async def accounts(addresses: Sequence[str]) -> dict[str, Any]:
    """An actor a key, half of them in each process."""
    creating = [
        xo.create_actor(Account, uid=name, address=addresses[load.half(name)])
        for name in load.NAMES
    ]
    return dict(zip(load.NAMES, await asyncio.gather(*creating)))


async def each(method: str, given: Given) -> Done:
    """Calls of single messages, from the start of the load to the last reply."""
    pool, addresses = await pools()
    named = await accounts(addresses)
    seconds = await fed(addresses, (named, ()), method, load.BATCH, given)
    values = await asyncio.gather(*(actor.read() for actor in named.values()))
    await pool.stop()
    return Done(seconds, dict(zip(named, values)))


async def batches(method: str, given: Given) -> Done:
    """Calls of a thousand messages each."""
    pool, addresses = await pools()
    owners = [await xo.create_actor(Owner, uid=f"owner {at}", address=at) for at in addresses]
    seconds = await fed(addresses, ({}, owners), method, 2 * load.BATCH, given)
    first, second = await asyncio.gather(*(owner.read() for owner in owners))
    await pool.stop()
    return Done(seconds, {**first, **second})


async def fed(
    addresses: Sequence[str], known: tuple[Any, Any], method: str, size: int, given: Given
) -> float:
    """Seconds that both feeders take, each with half of the load."""
    feeders = [
        await xo.create_actor(Feeder, *known, uid=f"feeder {at}", address=at) for at in addresses
    ]
    start = time.perf_counter()
    feeding = [
        feeder.feed(method, size, given.partitions[number::2], given.count)
        for number, feeder in enumerate(feeders)
    ]
    await asyncio.gather(*feeding)
    return time.perf_counter() - start


async def asks(given: Given) -> Done:
    """A call and its result is a request."""
    pool, addresses = await pools()
    named = await accounts(addresses)
    took = []
    for name in load.keys(given.partitions, given.count):
        start = time.perf_counter()
        await named[name].add(1)
        took.append((time.perf_counter() - start) * 1000)
    values = await asyncio.gather(*(actor.read() for actor in named.values()))
    await pool.stop()
    return Done(sum(took) / 1000, dict(zip(named, values)), took)


async def one(given: Given) -> Done:
    """A single actor and a single call."""
    pool, addresses = await pools()
    (name,) = load.keys(given.partitions, given.count)
    actor = await xo.create_actor(Account, uid=name, address=addresses[0])
    start = time.perf_counter()
    value = await actor.add(1)
    seconds = time.perf_counter() - start
    await pool.stop()
    return Done(seconds, {name: value}, [seconds * 1000])


def measured(work: Callable[..., Any], *shape: object) -> Callable[[Given], Done]:
    """In an event loop and processes of its own."""
    return lambda given: asyncio.run(work(*shape, given))


NONE = "nothing kept; each call at most once"
FIGURES = [
    Figure("keyed_counter", "an actor a key", NONE, 8_000, measured(each, "add")),
    Figure(
        *("keyed_counter", "batches of 1,000 by hand", NONE, 2_000_000),
        measured(batches, "add_all"),
    ),
    Figure("transfers", "an actor a key", NONE, 4_000, measured(each, "transfer")),
    Figure(
        *("transfers", "batches of 1,000 by hand", NONE, 500_000),
        measured(batches, "transfer_all"),
    ),
    Figure("ask", "an actor a key", NONE, 2_000, measured(asks), 1),
]

if __name__ == "__main__":
    figure.main("xoscar", FIGURES, first=measured(one))
