"""App: what belongs together, and its checks.

An app names its entity types and its sources. It is data: making one starts nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from skerry.entity import Entity, EntityMeta, EntityType
from skerry.errors import BadApp
from skerry.host import launch
from skerry.stream import Pipeline, Source, Stream, check_source

if TYPE_CHECKING:
    from skerry.client import Client

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
RETRIES_MAX = 100


def args() -> list[str]:
    """What followed `--` on the command line of `skerry run`; empty elsewhere."""
    return [str(arg) for arg in json.loads(os.environ.get("SKERRY_ARGS", "[]"))]


class App:
    """Entity types and sources that run together.

    Args:
        name: letters, digits, `_` and `-`, at most 64: also the default data folder's name.
        entities: the entity classes; any entity that a handler sends to must be among them.
        retries: how often a message is tried again when its handler raises, before it becomes
            a dead letter.

    Raises:
        BadApp: a bad name, a class that is no Entity, two classes of one name.

    Example:
        >>> app = App("bank", entities=[Account])
    """

    def __init__(self, name: str, *, entities: Sequence[type[Entity]] = (), retries: int = 3):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadApp(f"An app's name is 1 to 64 letters, digits, _ or -, not {name!r}.")
        if not isinstance(retries, int) or not 0 <= retries <= RETRIES_MAX:
            raise BadApp(f"App {name}: retries is 0 to {RETRIES_MAX}, not {retries!r}.")
        self.name, self.retries = name, retries
        self.types: dict[str, EntityType] = {}
        self.pipelines: list[Pipeline] = []
        ids: dict[int, str] = {}
        for cls in entities:
            if not isinstance(cls, EntityMeta) or cls is Entity:
                raise BadApp(f"App {name}: {cls!r} is no subclass of skerry.Entity.")
            kind: EntityType = cls.__skerry__
            if kind.name in self.types:
                raise BadApp(f"App {name}: two entity types are called {kind.name!r}.")
            self.types[kind.name] = kind
            named = {kind.schema_id: kind.name}
            named |= {h.id: f"{kind.name}.{h.name}" for h in kind.handlers.values()}
            for id, what in named.items():
                if id in ids:
                    raise BadApp(f"App {name}: {ids[id]} and {what} have one id; rename one.")
                ids[id] = what

    @property
    def renamed(self) -> dict[str, str]:
        """Classes that were renamed with `was=`: their name, and the one they are stored under."""
        kinds = self.types.values()
        return {kind.cls.__name__: kind.name for kind in kinds if kind.cls.__name__ != kind.name}

    def source(self, source: Source[T], *, name: str | None = None) -> Stream[T]:
        """A stream of a source's items.

        Args:
            source: as `TextFiles(…)`, or your own with `partitions` and `read`.
            name: under which its positions are kept; default: its class and place among the
                sources. Give one when sources may be added or moved later.
        """
        check_source(source)
        same = sum(type(p.source) is type(source) for p in self.pipelines)
        name = name or f"{type(source).__name__}-{same}"
        if any(p.name == name for p in self.pipelines):
            raise BadApp(f"App {self.name}: two sources are called {name!r}.")
        pipeline = Pipeline(name, source)
        self.pipelines.append(pipeline)
        return pipeline.stream

    def run(self, workers: int | None = None, data: str | Path | None = None) -> None:
        """Run until the app ends or is stopped.

        Args:
            workers: how many processes; default: one per usable core.
            data: the data directory; default: ./.skerry/<name>.

        Raises:
            SkerryError: the app failed; what is acknowledged is safe.
        """
        launch().run_app(self, workers, data)

    def running(self) -> AbstractContextManager[Client]:
        """The app runs, on a data directory that is thrown away, while the context is open.

        Example:
            >>> with app.running() as client:
            ...     client.ask(Account.at("alice").deposit, 10)
            10
        """
        return launch().running(self)
