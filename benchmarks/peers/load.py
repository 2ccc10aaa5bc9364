"""The load that everybody is given, and the sums that must come out.

Keys, transfers and words come from these functions alone, inside the measured time, for
skerry as for everybody. Only `split` is said again, for those who run where skerry is not
installed: a test holds it to that of examples/word_count.py.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

KEYS = 10_000
BATCH = 1000
"""What users send at once where they batch by hand."""

PARTITIONS_MAX = 8
"""The most clients that share a load."""

NAMES = [f"a{number:07d}" for number in range(KEYS)]
DRAWN = NAMES * -(-(1 << 17) // len(NAMES))
"""Each name equally often, at random places; drawn before the run, and looked up inside it."""
random.Random(1).shuffle(DRAWN)
STARTS = {str(number): number * len(DRAWN) // 4 for number in range(PARTITIONS_MAX)}
WORD = re.compile("[a-z]{1,40}")


def key(partition: str, position: int) -> str:
    """The key of a message: drawn at random, the same each time."""
    return DRAWN[(position + STARTS[partition]) % len(DRAWN)]


def other(name: str) -> str:
    """Another key: where a transfer from this one goes."""
    return NAMES[(int(name[1:]) * 7919 + 1) % len(NAMES)]


def split(line: str) -> list[str]:
    """The words of a line."""
    return WORD.findall(line.lower())


def batches(partition: str, count: int, size: int = BATCH) -> Iterator[list[str]]:
    """The keys of a partition, a thousand at a time unless said."""
    for start in range(0, count, size):
        stop = min(start + size, count)
        yield [key(partition, position) for position in range(start, stop)]


def half(name: str) -> int:
    """Which of two owners has a key, where users divide keys by hand."""
    return 0 if name[-1] in "02468" else 1


def halved(partition: str, count: int) -> Iterator[tuple[int, list[str]]]:
    """Which owner, and about a thousand keys of its own, again and again."""
    for batch in batches(partition, count, 2 * BATCH):
        yield from enumerate(halves(batch))


def halves(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """These keys, divided between two owners."""
    evens, odds = [], []
    for name in names:
        (evens if name[-1] in "02468" else odds).append(name)
    return evens, odds


def keys(partitions: Iterable[str], count: int) -> Iterator[str]:
    """Everything that a run is given."""
    return (key(partition, position) for partition in partitions for position in range(count))


def counted(partitions: Iterable[str], count: int) -> dict[str, int]:
    """The counters after a run."""
    return dict(Counter(keys(partitions, count)))


def moved(partitions: Iterable[str], count: int) -> dict[str, int]:
    """The balances after a run of transfers, each of 1; they add up to nothing."""
    balances: Counter[str] = Counter()
    for name in keys(partitions, count):
        balances[name] -= 1
        balances[other(name)] += 1
    return dict(balances)


def words(texts: Path) -> dict[str, int]:
    """The words of all files of a folder."""
    found: Counter[str] = Counter()
    for path in texts.iterdir():
        found.update(split(path.read_text(encoding="utf-8")))
    return dict(found)


class WrongSum(Exception):
    """What came out is not what went in. The peer's fault, or ours in using it."""


def check(found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Refuse a run whose states are not those of the load. Zeros say nothing: 0 is as good as none.

    Raises:
        WrongSum: names the sums, and one key.
    """
    names = {*found, *expected}
    wrong = sorted(name for name in names if found.get(name, 0) != expected.get(name, 0))
    if wrong:
        came, should = sum(found.values()), sum(expected.values())
        one = f"{wrong[0]} has {found.get(wrong[0], 0):,} instead of {expected.get(wrong[0], 0):,}"
        raise WrongSum(f"{came:,} instead of {should:,}; {len(wrong):,} keys are wrong: {one}")
