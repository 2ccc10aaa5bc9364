"""One append to a replicated log, whose outcome may be unknown for a while.

    publish, expecting sequence e -> acked e + 1                                    durable
                                  -> refused | no answer | an answer that is not ours -> look
    look at e + 1                 -> our bytes                                      durable
                                  -> others' bytes                                  fenced
                                  -> nothing, or no answer                          publish again

An append that expects what its owner knows as the newest sequence is the fence: of two owners one
fails. But a refusal does not say whose message stands there, it may be our own of a try before; and
"nothing" may be the answer of a server that is not the leader any more. So the same bytes are
published with the same expectation until it is known whose they are (protocol, "Several hosts").

Pure. Asserts I5, I6.
"""

from __future__ import annotations

import enum

from msgspec import Struct

BEHIND_MAX = 20
"""How often in a row the log may say that it ends before what it has acknowledged. A server that has
just come back says so for a moment; a log that has lost messages goes on saying it."""


class Acked(Struct, frozen=True):
    """The log says that a message stands in it."""

    log: str
    sequence: int
    duplicate: bool = False


class Refused(Struct, frozen=True):
    """The log has another newest sequence than was expected."""

    last: int


class Found(Struct, frozen=True):
    """The message of a sequence."""

    payload: bytes


class Missing(Struct, frozen=True):
    """No message has this sequence, says whoever was asked."""


class Unknown(Struct, frozen=True):
    """No answer, or one that settles nothing."""

    why: str = ""
    """What to tell a person about it."""


class Step(enum.Enum):
    """What to do next, or how it has ended."""

    PUBLISH = enum.auto()
    LOOK = enum.auto()
    DURABLE = enum.auto()
    FENCED = enum.auto()
    """Another owner has appended: this one is replaced."""
    LOST = enum.auto()
    """The log ends before what it has acknowledged to this owner."""


class Appending:
    """The state of one append.

    Args:
        log: the log's name.
        expected: the newest sequence that the owner knows.
        payload: tells the owner, too: no two owners append the same bytes.
    """

    def __init__(self, log: str, expected: int, payload: bytes) -> None:
        self._log, self._expected, self._payload = log, expected, payload
        self.step = Step.PUBLISH
        self.tries = 0
        """Answers that have settled nothing."""
        self._behind = 0
        self.last = expected
        """Where the log ends, as it said last."""

    @property
    def expected(self) -> int:
        """The sequence that each publish names as the newest one."""
        return self._expected

    @property
    def payload(self) -> bytes:
        """What each publish carries."""
        return self._payload

    @property
    def sequence(self) -> int:
        """The sequence that the message gets."""
        return self._expected + 1

    def published(self, answer: Acked | Refused | Unknown) -> None:
        """Take the answer to a publish."""
        assert self.step is Step.PUBLISH, f"I6: {self.step} does not publish"
        match answer:
            case Acked(log, sequence, duplicate) if (
                log == self._log and sequence == self.sequence and not duplicate
            ):
                self.step = Step.DURABLE
                return
            case Refused(last):
                self.last = last
                self._behind = self._behind + 1 if last < self._expected else 0
                if self._behind > BEHIND_MAX:
                    self.step = Step.LOST
                elif last > self._expected:
                    self.step = Step.LOOK
            case _:
                self.step = Step.LOOK
        self.tries += 1

    def looked(self, answer: Found | Missing | Unknown) -> None:
        """Take the answer to a look at the sequence."""
        assert self.step is Step.LOOK, f"I6: {self.step} does not look"
        match answer:
            case Found(payload):
                self.step = Step.DURABLE if payload == self._payload else Step.FENCED
            case _:
                self.step = Step.PUBLISH
                self.tries += 1
