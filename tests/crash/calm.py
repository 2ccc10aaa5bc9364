"""The app of the kill loop with a source that leaves time for slots to move."""

import time
from collections.abc import Iterator
from itertools import count

from tests.crash.apps import SENDERS, sender, witness


class Paced:
    """The same items, a few hundred a second: nothing piles up, so slots move soon."""

    def partitions(self) -> list[str]:
        return [str(number) for number in range(SENDERS)]

    def read(self, partition: str, after: int | None) -> Iterator[tuple[int, str]]:
        for position in count(0 if after is None else after + 1):
            time.sleep(0.005)
            yield position, sender(partition, position)


app = witness(Paced())
