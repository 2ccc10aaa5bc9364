"""PostgreSQL by hand: upserts, one a commit and in batches of 1,000.

After the manual's "INSERT, ON CONFLICT", "Populating a Database" (many rows a commit) and
"Deadlocks" (locks taken in one order), and psycopg 3's "Batch operations" (executemany).
The server runs with its defaults: fsync and synchronous_commit on.
"""

from collections.abc import Callable

import psycopg

from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given

TABLE = """
DROP TABLE IF EXISTS states;
CREATE TABLE states (key text PRIMARY KEY, value bigint NOT NULL)
"""
ADD = """
INSERT INTO states AS old (key, value) VALUES (%s, %s)
ON CONFLICT (key) DO UPDATE SET value = old.value + excluded.value
"""
ADD_ONE, TAKE_ONE = ADD.replace("%s, %s", "%s, 1"), ADD.replace("%s, %s", "%s, -1")
ADD_SUMMED = """
INSERT INTO states AS old (key, value)
SELECT key, count(*) FROM unnest(%s::text[]) AS key GROUP BY key ORDER BY key
ON CONFLICT (key) DO UPDATE SET value = old.value + excluded.value
"""


def connect(given: Given) -> psycopg.Connection:
    """A connection of its own for each process; each statement a commit, unless said."""
    return psycopg.connect(given.server, autocommit=True)


def one_by_one(given: Given, ready: Callable[[], None]) -> None:
    """An upsert, committed, before the next."""
    connection = connect(given)
    ready()
    for name in load.keys(given.partitions, given.count):
        connection.execute(ADD_ONE, [name])


def batched(given: Given, ready: Callable[[], None]) -> None:
    """A thousand upserts a commit."""
    connection = connect(given)
    ready()
    for partition in given.partitions:
        for batch in load.batches(partition, given.count):
            with connection.transaction():
                connection.cursor().executemany(ADD_ONE, [[name] for name in sorted(batch)])


def summed(given: Given, ready: Callable[[], None]) -> None:
    """A thousand messages added up by key in one statement, which is a commit."""
    connection = connect(given)
    ready()
    for partition in given.partitions:
        for batch in load.batches(partition, given.count):
            connection.execute(ADD_SUMMED, [batch])


def transfers(given: Given, ready: Callable[[], None]) -> None:
    """Both sides of a transfer a commit, the smaller key first."""
    connection = connect(given)
    ready()
    for name in load.keys(given.partitions, given.count):
        sides = sorted([(name, TAKE_ONE), (load.other(name), ADD_ONE)])
        with connection.transaction():
            for side, statement in sides:
                connection.execute(statement, [side])


def transfers_batched(given: Given, ready: Callable[[], None]) -> None:
    """A thousand transfers a commit."""
    connection = connect(given)
    ready()
    for partition in given.partitions:
        for batch in load.batches(partition, given.count):
            sides = [(name, -1) for name in batch] + [(load.other(name), 1) for name in batch]
            with connection.transaction():
                connection.cursor().executemany(ADD, sorted(sides))


def states(connection: psycopg.Connection) -> dict[str, int]:
    """What the table holds."""
    return dict(connection.execute("SELECT key, value FROM states").fetchall())


def measured(
    clients: int, work: Callable[[Given, Callable[[], None]], None]
) -> Callable[[Given], Done]:
    """With so many client processes, on an empty table."""

    def run(given: Given) -> Done:
        with connect(given) as connection:
            connection.execute(TABLE)
            return Done(figure.at_once(clients, work, given), states(connection))

    return run


def ask(given: Given) -> Done:
    """An upsert that returns the new value is a request."""
    with connect(given) as connection:
        connection.execute(TABLE)

        def request(name: str) -> object:
            return connection.execute(ADD_ONE + "RETURNING value", [name]).fetchone()

        took = figure.asked(request, given)
        return Done(sum(took) / 1000, states(connection), took)


SYNCED = "each commit synced; a retry may count twice"
FIGURES = [
    Figure("keyed_counter", "an upsert a commit", SYNCED, 3_000, measured(1, one_by_one)),
    Figure(
        "keyed_counter", "an upsert a commit, 8 clients", SYNCED, 8_000, measured(8, one_by_one), 8
    ),
    Figure("keyed_counter", "1,000 a commit", SYNCED, 50_000, measured(1, batched)),
    Figure("keyed_counter", "1,000 a commit, summed first", SYNCED, 150_000, measured(2, summed)),
    Figure("transfers", "a commit each", SYNCED, 1_500, measured(1, transfers)),
    Figure("transfers", "a commit each, 8 clients", SYNCED, 4_000, measured(8, transfers), 8),
    Figure("transfers", "1,000 a commit", SYNCED, 25_000, measured(1, transfers_batched)),
    Figure("ask", "an upsert a commit", SYNCED, 2_000, ask, 1),
]

if __name__ == "__main__":
    figure.main("psycopg", FIGURES, first=ask)
