"""Book a seat and give up when the answer takes too long: the wrong way and the right way.

    skerry run examples.booking
    pytest tests/examples/test_booking.py

A time-out says that we stopped waiting, not that nothing will happen: the seat may be taken
after all. `HastyTrip` forgets that, and occasionally a seat stays taken for nobody. No unit test
shows this; a simulation does. `Trip` gives the seat back.
"""

from skerry import App, Entity, Rejected, ask, send


class Seat(Entity):
    """A seat, taken by one trip at a time."""

    taken_by: str = ""

    def take(self, trip: str) -> None:
        """Take the seat. Raises Rejected: another trip has it."""
        if self.taken_by and self.taken_by != trip:
            raise Rejected("taken", by=self.taken_by)
        self.taken_by = trip

    def leave(self, trip: str) -> None:
        """Give the seat back. Nothing happens if another trip has it."""
        if self.taken_by == trip:
            self.taken_by = ""


class HastyTrip(Entity):
    """A trip that is wrong: it takes a time-out for a no."""

    seat: str = ""

    def book(self, seat: str, patience: float = 1.0) -> None:
        """Ask for a seat, and wait `patience` seconds for the answer."""
        (
            ask(Seat.at(seat).take, self.key)
            .then(self._booked, seat)
            .rejected(self._refused, seat)
            .timeout(patience, self._late, seat)
        )

    def _booked(self, seat: str) -> None:
        self.seat = seat

    def _refused(self, error: Rejected, seat: str) -> None:
        self.seat = ""

    def _late(self, seat: str) -> None:
        self.seat = ""


class Trip(HastyTrip):
    """A trip that is right: it undoes what may have happened."""

    def _late(self, seat: str) -> None:
        # This arrives after our own `take`: messages from one entity to another keep their order.
        send(Seat.at(seat).leave, self.key)


app = App("booking", entities=[Seat, HastyTrip, Trip])
