"""Opens an app's data for a run, and refuses data that must not run.

    data directory -> a description that agrees with its stores, of a generation that begins here

Everything that can be refused is refused before the first worker starts, and a refusal changes
nothing. The caller holds the app's lease.
"""

from __future__ import annotations

from pathlib import Path

from skerry.errors import SkerryError, StoreDamaged, storable
from skerry.runtime.app import directory, membership
from skerry.runtime.app.machine import usable_cores
from skerry.runtime.app.reshard import reshard
from skerry.runtime.config import Config
from skerry.runtime.description import Description, boot_id
from skerry.runtime.ports import Coordinator
from skerry.runtime.printable import Say


def open_app(config: Config, coordinator: Coordinator, data: Path, say: Say) -> Description:
    """Note a start in the app's description, which is made when there is none, and return it.

    Raises SkerryError: the data is another app's, a backup, or may have lost commits; StoreDamaged.
    """
    known = coordinator.read()
    if known is None:
        workers = config.workers or len(usable_cores())
        known = membership.create(data, app=config.program.app, workers=workers)
    else:
        known = _checked(known, config, data, say)
    known.sync, known.target = config.storage.sync, storable(config.program.target)
    known.renamed = config.program.renamed
    known.boot_id, known.clean = boot_id(), False
    membership.enlist(data, known)
    return known


def check_name(data: Path, known: str, name: str) -> None:
    """Refuse a program whose app is another than the one that the data is of. Raises SkerryError."""
    if name != known:
        raise SkerryError(
            f"{data} holds the app {known!r}, not {name!r}. Choose another folder with --data."
        )


def _checked(known: Description, config: Config, data: Path, say: Say) -> Description:
    """Return an app that ran before, on as many shards as it is to run on now."""
    check_name(data, known.app, config.program.app)
    if known.backup is not None:
        raise SkerryError(
            f"{data} is a backup, which is kept as it is. `skerry restore {data} "
            f"--data DIR` makes a data directory from it that can run."
        )
    directory.refuse_copy(data, known)
    for _, damage in membership.disagreements(data, known):
        raise StoreDamaged(damage)
    for sentence in membership.clear(data, known):
        say(sentence)
    lost = known.may_have_lost
    if lost and not config.storage.accept_loss:
        raise SkerryError(
            f"{data} ran with --sync off when the machine went down: its last commits "
            f"may be lost. Start with --accept-loss to go on from what is there."
        )
    if lost:
        known.begin_anew()
        # They no longer agree on the numbers of their frames: new ones begin their streams anew.
        known.goal = []
        return reshard(data, known, config.workers or len(known.placement.members))
    return known
