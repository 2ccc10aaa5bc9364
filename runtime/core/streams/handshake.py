"""What a packet is answered with: a table of its kind, and of the lives that it names.

A packet names the epoch of its sender and the epoch of its receiver as the sender knows it. So
it may come from a life of the sender that was replaced, from the one that we know, or from a new
one; and be meant for an earlier life of ours, for this one, or for a later one. Whatever is not
in the table cannot happen.

Pure: epochs in, a reaction out. Protocol: docs/ideas/streams.md.
"""

from __future__ import annotations

import enum

from skerry.runtime.core.wire import Kind


class Reaction(enum.Enum):
    """The answer to a packet. The value is the reason, in words."""

    STOP = "it is meant for a later life of ours: we were replaced, and stop"
    FENCE = "its sender was replaced: say so"
    STEP_DOWN = "it says that we were replaced: stop, unless it means an earlier life"
    GREET = "one of the two lives does not know of the other: say HELLO"
    ANSWER = "a HELLO: adopt its epoch, and say where to go on"
    GO_ON = "a RESUME: adopt its epoch, and go on from there"
    TAKE = "a frame of the life that we know: judge it by its number"
    HEAR = "an ack of the life that we know"


_F, _S, _G = Reaction.FENCE, Reaction.STEP_DOWN, Reaction.GREET
_A, _R, _T, _H = Reaction.ANSWER, Reaction.GO_ON, Reaction.TAKE, Reaction.HEAR

REPLACED, KNOWN, NEW = range(3)
"""Lives of a sender."""

TABLE: dict[tuple[Kind, bool], tuple[Reaction, Reaction, Reaction]] = {
    # (kind, for this life of ours): from a sender's life that was replaced, is known, is new
    (Kind.FRAME, True): (_F, _T, _G),
    (Kind.FRAME, False): (_F, _G, _G),
    (Kind.ACK, True): (_F, _H, _G),
    (Kind.ACK, False): (_F, _G, _G),
    (Kind.HELLO, True): (_F, _A, _A),
    (Kind.HELLO, False): (_F, _A, _A),
    (Kind.RESUME, True): (_F, _R, _R),
    (Kind.RESUME, False): (_F, _G, _R),
    (Kind.FENCED, True): (_S, _S, _S),
    (Kind.FENCED, False): (_S, _S, _S),
}


def reaction(kind: Kind, *, sender: int, known: int, receiver: int, ours: int) -> Reaction:
    """Return the answer to a packet.

    Args:
        sender, receiver: the epochs that the packet names.
        known: the sender's newest epoch that we know; 0: none.
        ours: our epoch.
    """
    if receiver > ours:
        return Reaction.STOP
    life = REPLACED if sender < known else KNOWN if sender == known else NEW
    return TABLE[kind, receiver == ours][life]
