"""Makes sure that an app's description and its stores belong together, and removes old stores.

    description at generation g -> labels at g -> workers                        a start
    new stores -> "dealt out" on the old ones -> description -> old ones go      other shards

A start raises the generation, first in the description and then in the labels of the stores. So a
description or a store that somebody puts back from earlier does not fit the others, while a crash
in between leaves a store at most one generation behind.

No folder is removed merely because a description does not mention it. A store is removed only if its
own label proves that the members hold all that it holds. Everything else is left, and named.

Does file I/O. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.app import directory, placer
from skerry.runtime.app.directory import LOCK, NAME, RUNNING, load
from skerry.runtime.core.progress import stored
from skerry.runtime.description import Description
from skerry.runtime.private import IN_DATA
from skerry.runtime.store import label as labels
from skerry.runtime.store import sealed_file
from skerry.runtime.store.check import check_apart
from skerry.runtime.store.disk import sync_path
from skerry.runtime.store.environment import TREE, missing
from skerry.runtime.store.label import Label
from skerry.runtime.store.segment import NAMES
from skerry.runtime.store.store import LmdbStore, has_commits

OWN = {
    *(NAME, RUNNING, *map(sealed_file.name_meanwhile, (NAME, RUNNING))),
    *(LOCK, "logs", IN_DATA, "lost+found"),
}
"""Entries of a data directory beside stores; a data directory that is a disk of its own has the last."""

_STORE = re.compile(r"shard-(0|[1-9]\d*)")
_LABEL_FILES = (labels.NAME, sealed_file.name_meanwhile(labels.NAME))


def folder_of(data: Path, shard: int) -> Path:
    """Return the folder of a shard's store."""
    return data / f"shard-{shard}"


def label_of(app: Description) -> Label:
    """Return the label of a new store of this app."""
    return Label(
        app=app.app,
        directory=app.directory,
        incarnation=app.incarnation,
        version=app.placement.version,
        generation=app.generation,
    )


def create(data: Path, *, app: str, workers: int) -> Description:
    """Make a new app: its stores first, then app.json, which makes them members."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in sorted(data.iterdir()):
        if entry.name in OWN:
            continue
        if not _STORE.fullmatch(entry.name):
            raise SkerryError(
                f"{data} holds {entry.name!r} and no app.json: it is no data directory of skerry. "
                f"Choose an empty or new folder with --data."
            )
        if not _never_used(entry):
            raise StoreDamaged(
                f"{data} holds the store {entry.name} and no app.json, which says what it is a part "
                f"of. Put app.json back, or restore the app's last backup; or choose another folder "
                f"with --data."
            )
        _remove(entry)  # Left by a first start that was cut short.
    made = Description.first(app, placer.first(workers))
    for shard in made.placement.members:
        LmdbStore.create(folder_of(data, shard), shard=shard, label=label_of(made))
    directory.replace(data, made, generation=0)
    return made


def _never_used(folder: Path) -> bool:
    """Tell whether a start that was cut short made this store, and nothing was written to it."""
    if not _only_ours(folder):
        return False
    if not (folder / labels.NAME).exists():
        return not _beside_label(folder)
    try:
        return not labels.read(folder).opened and not has_commits(folder)
    except StoreDamaged:
        return False


# ── the description and its stores ──


def described(data: Path) -> Description:
    """Return the description of a stopped app. Raises StoreDamaged: it does not fit a store."""
    app, damage = compared(data)
    if damage:
        raise StoreDamaged(damage[0])
    return app


def settled(data: Path, only: Iterable[int] = ()) -> Description:
    """Return the description of a stopped app whose rows are where it says; of these shards, if any.

    Raises SkerryError: the app was stopped while slots moved. StoreDamaged.
    """
    app = described(data)
    for shard in only or app.placement.members:
        store = LmdbStore.open(folder_of(data, shard), shard=shard)
        try:
            moves = stored(store, app.placement)
        finally:
            store.close()
        if moves.placement.version != app.placement.version:
            under_way = f"shard {shard} has not begun with it"
        elif moves.busy:
            under_way = (
                f"{len(moves.leaving) + len(moves.stopped)} slots have not left shard {shard}, and "
                f"{len(moves.arriving)} have not come to it"
            )
        else:
            continue
        raise SkerryError(
            f"{data} was stopped while slots moved between its shards (version "
            f"{app.placement.version} of the placement): {under_way}. Start the app, which finishes "
            f"the move, and ask again."
        )
    return app


def compared(data: Path) -> tuple[Description, list[str]]:
    """Return the description of a stopped app, and a sentence for each store that it does not fit.

    Raises SkerryError: it is a host's copy of what a cluster has.
    """
    while True:
        app, found = load(data), _labels(data)
        if load(data) == app:  # Else a start has begun meanwhile: look again.
            break
    assert app is not None, "callers have looked for the app"
    directory.refuse_copy(data, app)
    return app, [damage for _, damage in disagreements(data, app, found)]


def disagreements(
    data: Path, app: Description, found: dict[int, Label | str] | None = None
) -> Iterator[tuple[int, str]]:
    """Return (shard, sentence) for each store that the description does not fit."""
    found = _labels(data) if found is None else found
    members = app.placement.members
    for shard, label in found.items():
        if shard not in members and isinstance(label, Label) and _outlives(label, app):
            yield shard, _older(data, app, folder_of(data, shard), label)
    for shard in members:
        folder, known = folder_of(data, shard), found.get(shard)
        if known is None or not (folder / TREE).is_file():
            yield shard, missing(folder, shard)
        elif isinstance(known, str):
            yield shard, known
        elif damage := _disagreement(folder, shard, known, app):
            yield shard, damage


def _labels(data: Path) -> dict[int, Label | str]:
    """Return the label of each store, or a sentence on what is wrong with the store."""
    found: dict[int, Label | str] = {}
    for folder in data.glob("shard-*"):
        match = _STORE.fullmatch(folder.name)
        if match and folder.is_dir():
            try:
                found[int(match[1])] = labels.read(folder)
            except StoreDamaged as damage:
                found[int(match[1])] = str(damage)
    return found


def _outlives(label: Label, app: Description) -> bool:
    """Tell whether a store is of a later placement than the description, and was already in use."""
    later = label.version > app.placement.version
    return label.directory == app.directory and later and label.opened


def _disagreement(folder: Path, shard: int, label: Label, app: Description) -> str | None:
    """Return a sentence on what is wrong with a member; None: it is sound."""
    described, version, generation = folder.parent / NAME, app.placement.version, app.generation
    if label.directory != app.directory:
        return (
            f"The store {folder} is of the app {label.app!r} in another data directory than "
            f"{described} describes: one of them was put here from elsewhere. Put the right one "
            f"back, or restore the app's last backup. Nothing was changed."
        )
    if label.shard != shard:
        return (
            f"The store {folder} belongs to shard {label.shard}, not {shard}: folders were swapped. "
            f"Put them back. Nothing was changed."
        )
    if (label.version, label.generation) > (version, generation):
        return _older(folder.parent, app, folder, label)
    oldest = generation if app.clean else generation - 1
    if label.generation < oldest:
        return (
            f"The store {folder} is older than {described}: it was last opened at start "
            f"{label.generation}, and start {generation} has been. Put the newest one back, or "
            f"restore the app's last backup: all shards together. Nothing was changed."
        )
    if label.incarnation != app.incarnation:
        return (
            f"The store {folder} is of another incarnation than {described} describes: "
            f"{label.incarnation}, not {app.incarnation}. Restore the app's last backup."
        )
    return None


def _older(data: Path, app: Description, folder: Path, label: Label) -> str:
    return (
        f"{data / NAME} is older than the store {folder}: it describes start "
        f"{app.generation}, and that one has seen start {label.generation}. Put the newest app.json "
        f"back, or restore the app's last backup. Nothing was changed."
    )


def damages(data: Path, app: Description, shard: int) -> list[str]:
    """Return a sentence for each damage in a member's store."""
    return check_apart(folder_of(data, shard), shard=shard, placement=app.placement)


def enlist(data: Path, app: Description) -> None:
    """Note a start: raise the generation of the description, then of the labels of its stores.

    Raises StoreFull, SkerryError: a file could not be written; another start works as before.
    """
    known = {shard: labels.read(folder_of(data, shard)) for shard in app.placement.members}
    before = app.generation
    if all(label.generation == app.generation for label in known.values()):
        app.generation += 1  # Else a start was cut short here, and this one completes it.
    directory.replace(data, app, generation=before)
    for shard, label in known.items():
        version, generation = app.placement.version, app.generation
        told = replace(label, version=version, generation=generation, opened=True, dealt_into=0)
        labels.write(folder_of(data, shard), told)


def recruit(data: Path, app: Description, shard: int) -> None:
    """Make the store of a shard that the next version of the placement will name, unless it is there."""
    folder = folder_of(data, shard)
    if not (folder / labels.NAME).exists():
        label = replace(label_of(app), version=app.placement.version + 1)
        LmdbStore.create(folder, shard=shard, label=label)


def enrolled(data: Path, app: Description, shard: int) -> None:
    """Note on a store that it is a member's, and will hold what no other store does."""
    folder = folder_of(data, shard)
    told = replace(labels.read(folder), version=app.placement.version, generation=app.generation)
    labels.write(folder, replace(told, opened=True))


def retire(data: Path, app: Description, shard: int) -> None:
    """Remove the store of a shard that has given all its slots away, and is no member any more."""
    folder = folder_of(data, shard)
    label = labels.read(folder)
    labels.write(folder, replace(label, dealt_into=app.placement.version))
    if _replaceable(data, app, folder):
        _remove(folder)


def adopt(data: Path, app: Description) -> None:
    """Make copies of another directory's stores this app's own."""
    for shard in app.placement.members:
        label = labels.read(folder_of(data, shard))
        told = replace(label_of(app), store=label.store, shard=shard, opened=True)
        labels.write(folder_of(data, shard), told)


def dealt_out(data: Path, app: Description, version: int) -> None:
    """Note on the members that the stores of a new placement hold everything, too."""
    for shard in app.placement.members:
        label = labels.read(folder_of(data, shard))
        labels.write(folder_of(data, shard), replace(label, dealt_into=version))


def free_ids(data: Path, app: Description, count: int) -> list[int]:
    """Return ids for new shards, whose folders do not exist yet."""
    found: list[int] = []
    candidate = app.placement.next_id
    while len(found) < count:
        if not os.path.lexists(folder_of(data, candidate)):
            found.append(candidate)
        candidate += 1
    return found


# ── folders of no member ──


def strangers(data: Path, app: Description) -> list[Path]:
    """Return the folders that the description does not mention, and files with the name of a store."""
    members = {folder_of(data, shard) for shard in app.placement.members}
    return [
        entry
        for entry in sorted(data.iterdir())
        if entry.name not in OWN | {path.name for path in members}
        and (entry.is_dir() or entry.name.startswith("shard-"))
    ]


def unknown(data: Path, app: Description) -> list[str]:
    """Return a sentence for each stranger that is left alone."""
    return [
        f"{entry} is no part of the app {app.app!r} as app.json describes it. It is left alone; "
        f"move it elsewhere, or remove it when you need it no more."
        for entry in strangers(data, app)
        if not _replaceable(data, app, entry)
    ]


def clear(data: Path, app: Description) -> list[str]:
    """Remove old stores that a change of shards left; return a sentence for each stranger that stays.

    The description must be durable and agree with its stores.
    """
    for entry in strangers(data, app):
        if _replaceable(data, app, entry):
            _remove(entry)
    return unknown(data, app)


def _replaceable(data: Path, app: Description, folder: Path) -> bool:
    """Tell whether a store's label says that the members hold all that the store holds, since a change
    of shards made or emptied it, completely or not."""
    match = _STORE.fullmatch(folder.name)
    if match is None or not _only_ours(folder):
        return False
    if not _beside_label(folder) and not (folder / labels.NAME).exists():
        return True  # Just begun, or nearly removed.
    try:
        label = labels.read(folder)
    except StoreDamaged:
        return False
    if label.directory != app.directory or label.shard != int(match[1]):
        return False
    version = app.placement.version
    superseded = label.version < label.dealt_into <= version
    unfinished = label.version > version and not label.opened
    return (superseded or unfinished) and _whole(data, app.placement.members)


def _whole(data: Path, members: Iterable[int]) -> bool:
    """Tell whether every member has a tree and a log."""
    folders = [folder_of(data, shard) for shard in members]
    return all((folder / TREE).is_file() and any(folder.glob(NAMES)) for folder in folders)


def _only_ours(folder: Path) -> bool:
    """Tell whether a folder has nothing but the files of a store."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    known = {TREE, "lock", "lock.mdb", *_LABEL_FILES, *(path.name for path in folder.glob(NAMES))}
    return all(entry.name in known and entry.is_file() for entry in folder.iterdir())


def _beside_label(folder: Path) -> list[Path]:
    """Return the files of a store except its label, in the order in which they are removed."""
    files = [entry for entry in folder.iterdir() if entry.name not in _LABEL_FILES]
    return sorted(files, key=lambda entry: entry.name != TREE)


def _remove(folder: Path) -> None:
    """Remove a store. The tree goes first, since a store without one counts as incomplete; the label
    goes last, so that a removal that is cut short can be completed."""
    for entry in _beside_label(folder):
        entry.unlink()
    sync_path(folder)
    for name in _LABEL_FILES:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()
    sync_path(folder.parent)
