"""Faster, slower, or within noise: what pairs of runs can tell, and no more.

Base and change are run alternately, so each run of the one has a run of the other beside it,
on a machine in the same mood. What counts is the ratio within each pair. The interval is the
one of the signed-rank test: of all means of two of the logarithms (each with itself, too),
sorted, so many are cut off at both ends as chance would put there once in a hundred times.

It supposes no shape of the noise but that it is as likely up as down, and a wild run counts as
one run, however wild. With eight pairs all of them must agree before anything is said; with
twenty some may differ.

Source: Hodges and Lehmann, "Estimates of location based on rank tests", 1963.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from msgspec import Struct

CONFIDENCE = 0.99
"""Several rows are judged at once: with 95 % one in three comparisons would cry wolf."""

PAIRS_MIN = 8
"""With fewer, chance alone may make all agree more often than once in a hundred times."""


class Verdict(Struct, frozen=True):
    """What became of a row."""

    base: float
    change: float
    """Medians."""
    ratio: float
    """Change to base, in the middle of the pairs."""
    low: float
    high: float
    words: str
    """`faster`, `slower`, `within noise`, or `too few pairs` to say any of these."""


def judge(base: Sequence[float], change: Sequence[float], *, more_is_better: bool) -> Verdict:
    """Compare values that were measured in pairs."""
    assert len(base) == len(change), "each run of the base has one of the change beside it"
    ratio, low, high = interval([c / b for b, c in zip(base, change)])
    words = "within noise"
    if high == math.inf:
        words = "too few pairs"
    elif low > 1:
        words = "faster" if more_is_better else "slower"
    elif high < 1:
        words = "slower" if more_is_better else "faster"
    return Verdict(statistics.median(base), statistics.median(change), ratio, low, high, words)


def interval(ratios: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """(the middle, low, high) of ratios. With too few of them: from 0 to infinity."""
    logs = [math.log(ratio) for ratio in ratios]
    means = sorted((a + b) / 2 for place, a in enumerate(logs) for b in logs[place:])
    middle = math.exp(statistics.median(means))
    cut = cut_off(len(logs), confidence)
    if cut is None:
        return middle, 0.0, math.inf
    return middle, math.exp(means[cut]), math.exp(means[-1 - cut])


def cut_off(pairs: int, confidence: float) -> int | None:
    """How many of the sorted means lie outside at each end; None: none may, and it is too few.

    The sum of the ranks of those pairs that are above: by chance each rank is in it or not, so
    all sums can be counted.
    """
    ways = [1]
    for rank in range(1, pairs + 1):
        ways = [
            (ways[total] if total < len(ways) else 0) + (ways[total - rank] if total >= rank else 0)
            for total in range(len(ways) + rank)
        ]
    outside, most = 0, (1 - confidence) / 2 * 2**pairs
    for total, count in enumerate(ways):
        outside += count
        if outside > most:
            return total - 1 if total else None
    return None
