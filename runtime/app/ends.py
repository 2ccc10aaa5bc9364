"""Acts on the end of a worker by itself: it is started again, or the app ends, and says why.

Whether a crash is one too many is decided in `watch.py`.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

from skerry.runtime.app.children import Child, Ended
from skerry.runtime.app.machine import oom_kills
from skerry.runtime.app.watch import RESTARTS_WITHIN_S, GiveUp, Restart
from skerry.runtime.printable import Say
from skerry.runtime.store.check import check_apart
from skerry.runtime.worker.assignment import AGAIN, DAMAGED, HOPELESS, LOG_DAMAGED

RETRY_S = 5.0
"""How long a worker that can't go on waits until it is tried again, where that does not end the app."""


class Ends:
    """The ends of the workers of one run."""

    def __init__(self, data: Path, say: Say) -> None:
        self._data, self._say = data, say
        self._oom_kills = oom_kills()

    def judge(self, child: Child, ended: Ended, *, patient: bool) -> int | None:
        """Return the exit code with which the app ends since this worker ended; None: start it again.

        Args:
            patient: whether a worker that can't go on is tried again now and then.
        """
        shard = child.shard
        if ended.deliberate and ended.code == DAMAGED:
            self._say(f"worker {shard} stopped: its store needs a person. The app ends.")
            return DAMAGED
        if ended.deliberate and ended.code == LOG_DAMAGED:
            # Did this host end, the next one that takes the shard over would, too, and then all.
            return self._given_up(child, f"the log of shard {shard} needs a person", patient=True)
        if ended.deliberate and ended.code == HOPELESS:
            return self._given_up(child, f"worker {shard} stopped for the reason above", patient)
        kills_before, self._oom_kills = self._oom_kills, oom_kills()
        for_memory = self._oom_kills != kills_before
        crashed = ended.code in (-signal.SIGBUS, -signal.SIGSEGV)
        store = self._data / f"shard-{shard}"
        if crashed and (damage := check_apart(store, shard=shard)):
            self._say(f"worker {shard} ended ({ended.how}): {damage[0]}")
            return DAMAGED
        if not (ended.was_killed or ended.code == AGAIN or ended.had_served):
            why = f"worker {shard} ended ({ended.how}) before it served anybody, and would again"
            return self._given_up(child, why, patient)
        did, by_itself = ended.done_by_handler(for_memory=for_memory), not ended.was_killed
        judged = child.watch.crashed if by_itself or for_memory else child.watch.killed
        match judged(time.monotonic(), ended.beat, did):
            case Restart(at_s):
                self._say(f"worker {shard} ended ({ended.how}) and is started again")
                child.start_at = at_s
                return None
            case GiveUp(crashes):
                why = (
                    f"worker {shard} ended {crashes} times in {RESTARTS_WITHIN_S:.0f} s "
                    f"(now: {ended.how})"
                )
                return self._given_up(child, why, patient)

    def _given_up(self, child: Child, why: str, patient: bool) -> int | None:
        log = self._data / "logs" / f"worker-{child.shard}.log"
        if not patient:
            self._say(f"{why}. The app ends; its log: {log}")
            return 1
        self._say(
            f"{why}. The others serve on, and it is tried again in {RETRY_S:.0f} s; its log: {log}"
        )
        child.start_at = time.monotonic() + RETRY_S
        return None
