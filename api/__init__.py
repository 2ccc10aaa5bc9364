"""Skerry: stateful applications made of durable entities.

Everything that a program needs is here; `skerry.sources` and `skerry.sinks` hold what is
ready-made to read and to write, and `skerry.testing` what a program's tests need.
"""

from skerry import sinks, sources
from skerry.app import App, args
from skerry.asked import Asked
from skerry.client import AsyncClient, Client
from skerry.entity import Entity, handler, query
from skerry.errors import (
    BadApp,
    Failed,
    IncompatibleState,
    InvalidMessage,
    OutsideTurn,
    Rejected,
    SkerryError,
    StoreDamaged,
    StoreFull,
    StoreLocked,
    TimedOut,
    Unavailable,
    UnknownEntity,
    UnknownHandler,
)
from skerry.message import Message, message
from skerry.sources import Generate, JsonLines, TextFiles
from skerry.stream.builder import Keyed, Stream
from skerry.stream.changes import Change
from skerry.stream.ends import Sink, Source
from skerry.stream.outputs import Output
from skerry.verbs import (
    ask,
    cancel_timer,
    emit,
    forget,
    now,
    rng,
    send,
    send_later,
    set_timer,
)

__all__ = [  # noqa: RUF022 - grouped by what one does with them
    # entities
    "Entity",
    "handler",
    "query",
    # in a turn
    "Asked",
    "ask",
    "cancel_timer",
    "emit",
    "forget",
    "Message",
    "message",
    "now",
    "rng",
    "send",
    "send_later",
    "set_timer",
    # the app and its streams
    "App",
    "args",
    "Change",
    "Generate",
    "JsonLines",
    "Keyed",
    "Output",
    "Sink",
    "sinks",
    "Source",
    "sources",
    "Stream",
    "TextFiles",
    # from outside
    "AsyncClient",
    "Client",
    # errors
    "BadApp",
    "Failed",
    "IncompatibleState",
    "InvalidMessage",
    "OutsideTurn",
    "Rejected",
    "SkerryError",
    "StoreDamaged",
    "StoreFull",
    "StoreLocked",
    "TimedOut",
    "Unavailable",
    "UnknownEntity",
    "UnknownHandler",
]
