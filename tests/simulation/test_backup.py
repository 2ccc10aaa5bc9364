"""Backups by a cut, under every fault: what is restored is one moment of all shards."""

from __future__ import annotations

import pytest

from skerry.runtime.simulator.backup import Backup
from skerry.runtime.simulator.cluster import Cluster
from skerry.testing import NO_FAULTS
from tests.simulation import workload
from tests.simulation.world import drawn


class Backups:
    """Takes cuts of a cluster while it runs, and restores the first that is whole."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.restored: Cluster | None = None

    def watch(self, cluster: Cluster) -> None:
        """Begin a cut now and then, once the accounts are open."""
        backup = Backup(cluster)
        step, begun = cluster.step, 150 + 7 * self.seed % 100

        def stepped() -> None:
            step()
            opened = all(n in cluster.outcomes for n in range(1, workload.ACCOUNTS + 1))
            if self.restored is None and opened and cluster.step_no >= begun:
                if backup.whole:
                    self.restored = backup.restored()
                elif cluster.step_no % 60 == begun % 60:
                    backup.begin()

        cluster.step = stepped  # type: ignore[method-assign]


def run(seed: int) -> bool:
    """One seed of the workload, with a backup in its midst; whether one came about."""
    backup = Backups(seed)
    workload.run(seed, watch=backup.watch, world=drawn(seed))
    restored = backup.restored
    if restored is None:
        return False
    restored.settle()
    states = [restored.state("Account", f"a{n}") for n in range(workload.ACCOUNTS)]
    money = sum(state.balance for state in states)
    assert money == workload.ACCOUNTS * 100, f"seed {seed}: {money} after a restore"
    workload.check_order(restored)
    workload.check_emitted(restored)
    return True


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_a_backup_under_faults_is_one_moment_of_all_shards(first: int) -> None:
    assert sum(run(seed) for seed in range(first, first + 20)) > 10, "few backups came about"


def test_a_shard_that_was_started_anew_spoils_the_backup_that_is_under_way() -> None:
    cluster = Cluster(workload.app(), seed=1, shards=2, faults=NO_FAULTS)
    cluster.run(10)
    backup = Backup(cluster)
    backup.begin()
    cluster.run(10)
    assert backup.whole
    cluster.crash(0)
    cluster.run(100)
    assert not backup.whole
