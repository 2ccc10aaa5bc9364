"""Redis by hand: INCR with each write synced, one at a time and in pipelines of 1,000.

After redis.io: "Redis persistence" (appendfsync always), "Redis pipelining", "Transactions"
(MULTI and EXEC around the two sides of a transfer). redis-py with hiredis, as its page says.
"""

from collections.abc import Callable

import redis

from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given


def connect(given: Given) -> redis.Redis:
    """A client of its own for each process."""
    host, port = given.server.split(":")
    return redis.Redis(host=host, port=int(port), decode_responses=True)


def one_by_one(given: Given, ready: Callable[[], None]) -> None:
    """An INCR, and its reply, before the next."""
    client = connect(given)
    ready()
    for name in load.keys(given.partitions, given.count):
        client.incr(name)


def pipelined(given: Given, ready: Callable[[], None]) -> None:
    """A thousand INCRs, then their replies."""
    client = connect(given)
    ready()
    for partition in given.partitions:
        for batch in load.batches(partition, given.count):
            pipe = client.pipeline(transaction=False)
            for name in batch:
                pipe.incr(name)
            pipe.execute()


def transfer(client: redis.Redis, batch: list[str]) -> None:
    """Both sides of each transfer, all together or not at all."""
    pipe = client.pipeline(transaction=True)
    for name in batch:
        pipe.decr(name)
        pipe.incr(load.other(name))
    pipe.execute()


def transfers(given: Given, ready: Callable[[], None]) -> None:
    """A MULTI a transfer."""
    client = connect(given)
    ready()
    for name in load.keys(given.partitions, given.count):
        transfer(client, [name])


def transfers_pipelined(given: Given, ready: Callable[[], None]) -> None:
    """A thousand transfers a MULTI."""
    client = connect(given)
    ready()
    for partition in given.partitions:
        for batch in load.batches(partition, given.count):
            transfer(client, batch)


def states(client: redis.Redis) -> dict[str, int]:
    """What the server holds."""
    names = list(client.scan_iter(count=1000))
    return {name: int(value) for name, value in zip(names, client.mget(names))}


def measured(
    clients: int, work: Callable[[Given, Callable[[], None]], None]
) -> Callable[[Given], Done]:
    """With so many client processes, on an empty server."""

    def run(given: Given) -> Done:
        client = connect(given)
        client.flushall()
        return Done(figure.at_once(clients, work, given), states(client))

    return run


def ask(given: Given) -> Done:
    """An INCR and its reply is a request."""
    client = connect(given)
    client.flushall()
    took = figure.asked(client.incr, given)
    return Done(sum(took) / 1000, states(client), took)


SYNCED = "each write synced before its reply; a retry may count twice"
FIGURES = [
    Figure("keyed_counter", "one at a time", SYNCED, 3_000, measured(1, one_by_one)),
    Figure("keyed_counter", "one at a time, 8 clients", SYNCED, 8_000, measured(8, one_by_one), 8),
    Figure("keyed_counter", "pipelines of 1,000", SYNCED, 190_000, measured(2, pipelined)),
    Figure("transfers", "MULTI each", SYNCED, 3_000, measured(1, transfers)),
    Figure("transfers", "MULTI each, 8 clients", SYNCED, 6_000, measured(8, transfers), 8),
    Figure("transfers", "1,000 a MULTI", SYNCED, 90_000, measured(2, transfers_pipelined)),
    Figure("ask", "INCR", SYNCED, 3_000, ask, 1),
]

if __name__ == "__main__":
    figure.main("redis", FIGURES, first=ask)
