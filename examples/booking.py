"""Book a seat, and give up when the answer takes too long: a wrong way, and the right one.

    skerry run examples.booking
    pytest tests/examples/test_booking.py

A time-out says that we stopped waiting, not that nothing will happen: the seat may be taken
after all. `HastyTrip` forgets that, and now and then a seat stays taken by nobody. No unit
test shows it, a simulation does. `Trip` gives the seat back.
"""

from skerry import App, Entity, Rejected, ask, send


class Seat(Entity):
    """Taken by one trip at a time."""

    taken_by: str = ""

    def take(self, trip: str) -> None:
        """Take the seat. Raises Rejected when another has it."""
        if self.taken_by and self.taken_by != trip:
            raise Rejected("taken", by=self.taken_by)
        self.taken_by = trip

    def leave(self, trip: str) -> None:
        """Give the seat back; nothing happens when it is not ours."""
        if self.taken_by == trip:
            self.taken_by = ""


class HastyTrip(Entity):
    """Wrong: believes that a time-out means no."""

    seat: str = ""

    def book(self, seat: str, patience: float = 1.0) -> None:
        """Ask for a seat, and wait so many seconds for it."""
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
    """Right: what may have happened is undone."""

    def _late(self, seat: str) -> None:
        # Sent behind our own `take`, so it comes behind it: order is kept from us to the seat.
        send(Seat.at(seat).leave, self.key)


app = App("booking", entities=[Seat, HastyTrip, Trip])
