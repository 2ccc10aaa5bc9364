"""An event loop whose clock jumps to whatever is due next: nothing is waited for."""

import asyncio
import selectors


class _Jumping(selectors.SelectSelector):
    """Never blocks: a wait moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("everybody waits and nothing is due: it would hang for ever")
        if not ready and timeout:
            self.now += timeout
        return ready


class Clockwork(asyncio.SelectorEventLoop):
    """A loop on a clock of its own, which begins at 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def pass_time(self, seconds: float) -> None:
        """Something keeps this thread busy for so long."""
        self._jumping.now += seconds
