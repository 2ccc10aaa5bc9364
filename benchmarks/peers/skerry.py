"""skerry itself: an entity a key, run and watched as `benchmarks.run` runs and watches its apps.

After docs/ideas/entities.md, docs/ideas/streams.md and docs/ideas/clients.md. One worker a core, everything
promised: synced commits, exactly once. It runs where the benchmark runs, from this clone.
"""

from collections.abc import Callable
from pathlib import Path

import skerry
from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given
from benchmarks.peers.skerry_app import Account
from benchmarks.running import measured, options, started, stop
from skerry.runtime.cli.read import states

APP = "benchmarks.peers.skerry_app:app"


def stream(which: str, turns_each: int) -> Callable[[Given], Done]:
    """Messages that the app's own source makes."""

    def run(given: Given) -> Done:
        turns = len(given.partitions) * given.count * turns_each
        seconds, data = app(given, APP, [which, str(given.count)], turns)
        return Done(seconds, {key: state["balance"] for key, state in states(data, "Account")})

    return run


def words(given: Given) -> Done:
    """Files, to counts in the store."""
    paths = [str(path) for path in sorted(given.texts.iterdir())]
    count = sum(load.words(given.texts).values())
    seconds, data = app(given, "examples.word_count:app", paths, count)
    return Done(seconds, {key: state["count"] for key, state in states(data, "Word")})


def app(given: Given, target: str, args: list[str], turns: int) -> tuple[float, Path]:
    """Run an app to its end: the seconds that its turns take, and its data.

    Told by the rate from the workers' first answer to their last, so without the start of
    processes, but with the end, when there is not work left for all.
    """
    run = options(str(given.folder), target, args, "peer")
    moments = measured(run).moments
    first, last = moments[0], moments[-1]
    rate = (last.turns - first.turns) / (last.seconds - first.seconds)
    return turns / rate, Path(run.data)


def ask(given: Given) -> Done:
    """A client's request and its reply."""
    run = options(str(given.folder), APP, ["serve", "0"], "peer", serve=True)
    data, process = Path(run.data), started(run)
    with skerry.Client(data) as client:
        took = figure.asked(lambda key: client.ask(Account.at(key).deposit, 1), given)
    stop(process)
    found = {key: state["balance"] for key, state in states(data, "Account")}
    return Done(sum(took) / 1000, found, took)


ONCE = "each commit synced, each message takes effect once"
FIGURES = [
    Figure("keyed_counter", "2 workers", ONCE, 2_000_000, stream("counter", 1)),
    Figure("transfers", "2 workers", ONCE, 600_000, stream("transfers", 2)),
    Figure("word_count", "2 workers", ONCE, 0, words),
    Figure("ask", "Client.ask", ONCE, 400, ask, 1),
]

if __name__ == "__main__":
    figure.main("skerry", FIGURES, first=ask)
