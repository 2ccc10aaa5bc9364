"""Tools for a program's tests, from one turn to a whole app under faults.

    turn(account)            one entity in one turn, no app
    Harness(app)             the app in this process: no files, no clock but `advance`
    Simulation(app, seed=7)  the app on shards that crash, over a network that loses

The last two run the code that workers run. Idea: docs/testing.md.
"""

from skerry.testing.faults import KINDS, NO_FAULTS, Faults
from skerry.testing.harness import Harness
from skerry.testing.observed import Observed, turn
from skerry.testing.simulated import Dead, Reply
from skerry.testing.simulation import Simulation

__all__ = [
    "KINDS",
    "NO_FAULTS",
    "Dead",
    "Faults",
    "Harness",
    "Observed",
    "Reply",
    "Simulation",
    "turn",
]
