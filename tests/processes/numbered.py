"""An app whose entities send numbered messages, in turns that take their time."""

import threading

from skerry import App, Entity, send
from tests.crash.apps import RECEIVERS, Receiver


class Sender(Entity):
    sent: int = 0

    def next(self, seconds: float) -> int:
        threading.Event().wait(seconds)
        self.sent += 1
        for receiver in range(RECEIVERS):
            send(Receiver.at(f"receiver-{receiver}").take, self.key, self.sent)
        return self.sent


app = App("numbered", entities=[Sender, Receiver])
