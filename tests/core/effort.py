"""What a call costs, in instructions of the interpreter: the same on every machine, at every load."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def effort(call: Callable[[], object]) -> int:
    """How many instructions run in all that this calls, C code left out."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for this when tracing begins.
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def grows_like(small: int, large: int, times: float) -> bool:
    """Whether effort grew about as much as what is to be done, and not like its square."""
    return large < small * times * 1.3
