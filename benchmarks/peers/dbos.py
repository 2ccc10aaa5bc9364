"""DBOS: a durable workflow a message, whose one step is a transaction of a datasource.

After its guide: "Workflows" (in the background: `start_workflow`), "Transactions & Datasources"
(what it recommends for state in a database; READ COMMITTED is enough for an upsert) and
"Database Connections" (SQLite by default, PostgreSQL for production).
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg
from dbos import DBOS, DBOSConfig, SQLAlchemyDatasource
from sqlalchemy import create_engine, text

from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given

PENDING = 5
"""Workflows in flight; more is slower."""

TABLE = text("CREATE TABLE states (key TEXT PRIMARY KEY, value BIGINT NOT NULL)")
ADD = text(
    "INSERT INTO states (key, value) VALUES (:key, :amount) "
    "ON CONFLICT (key) DO UPDATE SET value = states.value + excluded.value RETURNING value"
)
source: Any
"""The datasource of the database that is measured now."""
step: Any
"""How its transactions run."""


@DBOS.workflow()
def deposit(name: str) -> int:
    """One message."""
    return source.run_tx_step(step, add, [(name, 1)])


@DBOS.workflow()
def transfer(name: str) -> int:
    """Both sides in one transaction, the smaller key first."""
    sides = sorted([(name, -1), (load.other(name), 1)])
    return source.run_tx_step(step, add, sides)


def add(sides: list[tuple[str, int]]) -> int:
    """Upserts; the last new value."""
    session = source.sql_session()
    for name, amount in sides:
        value = session.execute(ADD, {"key": name, "amount": amount}).scalar_one()
    return int(value)


def launch(url: str, executor: str = "first") -> None:
    """DBOS and a datasource in this process."""
    global source, step
    level = "SERIALIZABLE" if url.startswith("sqlite") else "READ COMMITTED"
    step = {"name": "add", "isolation_level": level}
    settings: DBOSConfig = {
        "name": "peers",
        "application_version": "1",
        "executor_id": executor,
        "system_database_url": url,
        "log_level": "WARNING",
    }
    DBOS(config=settings)
    source = SQLAlchemyDatasource.create(url)
    DBOS.launch()


def stop() -> None:
    """DBOS ends in this process."""
    DBOS.destroy()
    source.engine.dispose()


def prepared(url: str) -> None:
    """DBOS's tables and ours, in an empty database."""
    launch(url)
    with source.engine.begin() as connection:
        connection.execute(TABLE)
    stop()


def states(url: str) -> dict[str, int]:
    """What the table holds."""
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT key, value FROM states"))
        found = {row.key: row.value for row in rows}
    engine.dispose()
    return found


def on_postgres(given: Given) -> str:
    """A database of its own for each figure."""
    server, name = given.server.rpartition("/")[0], f"figure_{given.folder.name}"
    with psycopg.connect(given.server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}".replace("postgresql://", "postgresql+psycopg://")


def on_sqlite(given: Given) -> str:
    """A file of its own for each figure."""
    return f"sqlite:///{given.folder}/dbos.sqlite"


def measured(
    workflow: Callable[[str], int], place: Callable[[Given], str], processes: int
) -> Callable[[Given], Done]:
    """Workflows in the background, a few in flight, to the last result."""

    def run(given: Given) -> Done:
        url = place(given)
        prepared(url)

        def work(part: Given, ready: Callable[[], None]) -> None:
            launch(url, executor=f"executor {part.partitions[0]}")
            ready()
            pending: deque[Any] = deque()
            for name in load.keys(part.partitions, part.count):
                pending.append(DBOS.start_workflow(workflow, name))
                if len(pending) > PENDING:
                    pending.popleft().get_result()
            for handle in pending:
                handle.get_result()

        return Done(figure.at_once(processes, work, given), states(url))

    return run


def ask(place: Callable[[Given], str]) -> Callable[[Given], Done]:
    """A workflow, called and waited for, is a request."""

    def run(given: Given) -> Done:
        url = place(given)
        prepared(url)
        launch(url)
        took = figure.asked(deposit, given)
        stop()
        return Done(sum(took) / 1000, states(url), took)

    return run


def one(given: Given) -> Done:
    """A single workflow, on what DBOS takes by default."""
    url = on_sqlite(given)
    launch(url)
    with source.engine.begin() as connection:
        connection.execute(TABLE)
    took = figure.asked(deposit, given)
    stop()
    return Done(sum(took) / 1000, states(url), took)


ONCE = "workflows and steps synced, each takes effect once"
FIGURES = [
    Figure("keyed_counter", "PostgreSQL", ONCE, 120, measured(deposit, on_postgres, 2)),
    Figure("keyed_counter", "SQLite", ONCE, 60, measured(deposit, on_sqlite, 1)),
    Figure("transfers", "PostgreSQL", ONCE, 120, measured(transfer, on_postgres, 2)),
    Figure("transfers", "SQLite", ONCE, 60, measured(transfer, on_sqlite, 1)),
    Figure("ask", "PostgreSQL", ONCE, 60, ask(on_postgres), 1),
    Figure("ask", "SQLite", ONCE, 60, ask(on_sqlite), 1),
]

if __name__ == "__main__":
    figure.main("dbos", FIGURES, first=one)
