"""Bugs of the simulated disk, which stands for what a real one may do."""

from unittest.mock import patch

from tests.mutants.bugs import bug


@bug("what is kept for a backup is older than what has left", "simulator.disk:MemoryStore.keep")
def _(keep, self, no):
    ahead = self.ahead
    with patch.object(self, "ahead", lambda synced, _: ahead(max(0, synced - 1), synced)):
        keep(self, no)
