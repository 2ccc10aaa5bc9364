"""`skerry ask` and `skerry send`: send one message to a running app from the shell."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from skerry.limits import check_key
from skerry.runtime.cli.settings import Data
from skerry.runtime.printable import one_line

T = TypeVar("T")

NESTING_MAX = 20_000
"""How deep a value may nest and still be shown, if the interpreter lets a decoder go there."""

Target = Annotated[str, typer.Argument(help="TYPE/KEY, as Account/alice")]
HandlerName = Annotated[str, typer.Argument(help="a public handler, as deposit")]
Arguments = Annotated[
    str | None, typer.Argument(help="arguments as JSON: an object by name, or an array")
]


def _positive(seconds: float) -> float:
    if not seconds > 0:
        raise typer.BadParameter(f"{seconds:g} s is no time: give more than 0")
    return seconds


def _not_empty(name: str | None) -> str | None:
    if name == "":
        raise typer.BadParameter(
            "it is empty and names no request: is a variable of the shell not set?"
        )
    return name


Timeout = Annotated[float, typer.Option(callback=_positive, help="seconds to wait for the outcome")]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(callback=_not_empty, help="names the request: made again, it runs no second time"),
]


def split(target: str) -> tuple[str, str]:
    """The type and key of TYPE/KEY. Raises BadParameter."""
    type_name, slash, key = target.partition("/")
    if not slash or not type_name or not key:
        raise typer.BadParameter(f"{target!r} is no entity: write TYPE/KEY, as Account/alice")
    try:
        check_key(key)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    return type_name, key


def ask(
    target: Target,
    handler: HandlerName,
    arguments: Arguments = None,
    data: Data = None,
    timeout: Timeout = 30,
    idempotency_key: IdempotencyKey = None,
) -> None:
    """Send one message and print its reply as JSON.

    \b
    Example: skerry ask Account/alice deposit '{"amount": 10}'
    """
    _request(target, handler, arguments, data, timeout, idempotency_key, reply=True)


def send(
    target: Target,
    handler: HandlerName,
    arguments: Arguments = None,
    data: Data = None,
    timeout: Timeout = 30,
    idempotency_key: IdempotencyKey = None,
) -> None:
    """Send one message and return when it is durable.

    \b
    Example: skerry send Account/alice deposit '[10]'
    """
    _request(target, handler, arguments, data, timeout, idempotency_key, reply=False)


def _arguments(text: str | None) -> bytes:
    try:
        given: Any = msgspec.json.decode(text) if text else []
        return msgspec.msgpack.encode(given if isinstance(given, dict | list) else [given])
    except OverflowError:
        raise typer.BadParameter("the arguments have a number beyond 64 bits") from None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise typer.BadParameter(f"the arguments are no JSON: {error}") from None


def _request(
    target: str,
    handler: str,
    arguments: str | None,
    data: Path | None,
    timeout: float,
    idempotency_key: str | None,
    *,
    reply: bool,
) -> None:
    type_name, key = split(target)
    args = _arguments(arguments)
    outcome = asyncio.run(
        _outcome(data, type_name, key, handler, args, timeout, idempotency_key, reply=reply)
    )
    if outcome.kind == "done":
        if reply:
            print(as_json(msgspec.msgpack.decode(outcome.body)))
        return
    body = msgspec.msgpack.decode(outcome.body)
    if outcome.kind == "rejected":
        details = f" {as_json(body[1])}" if body[1] else ""
        print(one_line(f"skerry: {target} rejected it: {body[0]}{details}"), file=sys.stderr)
    elif outcome.kind == "invalid":
        print(one_line(f"skerry: {body[1]}"), file=sys.stderr)
        raise typer.Exit(2)
    else:
        text = f"skerry: {target} {handler} {outcome.kind}: {body and body[0]}"
        print(one_line(text), file=sys.stderr)
        if os.environ.get("SKERRY_TRACEBACK") and body:
            print(body[1], file=sys.stderr)
    raise typer.Exit(1)


async def _outcome(
    data: Path | None,
    type_name: str,
    key: str,
    handler: str,
    args: bytes,
    timeout: float,
    idempotency_key: str | None,
    *,
    reply: bool,
) -> Any:
    from skerry.client.requests import named_id
    from skerry.errors import SkerryError
    from skerry.runtime.app.directory import find_data, stored_name
    from skerry.runtime.app.launch import connect

    folder = find_data(data)
    type_name = stored_name(folder, type_name)
    session = await connect(folder)
    came: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        named = named_id(type_name, key, handler, idempotency_key) if idempotency_key else b""
        session.request(
            type_name,
            key,
            handler,
            args,
            lambda number, outcome: came.set_result(outcome),
            reply=reply,
            named=named,
        )
        try:
            return await asyncio.wait_for(asyncio.shield(came), timeout)
        except TimeoutError:
            step = (
                "Ask again under the same --idempotency-key: it runs once."
                if idempotency_key
                else "Look with `skerry get` before you ask again: it may run twice. Under an "
                "--idempotency-key, given from the first time on, it runs once."
            )
            raise SkerryError(
                f"No outcome of {type_name}/{key} {handler} within {timeout:g} s: it is unknown "
                f"whether it ran. {step}"
            ) from None
    finally:
        await session.close()


def patiently(read: Callable[[Any], T], data: Any) -> T:
    """Read or show a stored value that nests deeper than the recursion limit, if the interpreter can."""
    try:
        return read(data)
    except RecursionError:
        limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, NESTING_MAX))
    try:
        return read(data)
    finally:
        sys.setrecursionlimit(limit)


def as_json(value: Any, indent: int = 0) -> str:
    """A stored value as JSON, in one line unless indented. A dict whose keys JSON can't have becomes a
    list of [key, value]; a number that JSON lacks becomes null."""
    try:
        text = patiently(msgspec.json.encode, value)
    except TypeError:
        text = msgspec.json.encode(_in_pairs(value))
    shown: bytes = patiently(lambda text: msgspec.json.format(text, indent=indent), text)
    return shown.decode()


def _in_pairs(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_in_pairs(each) for each in value]
    if not isinstance(value, dict):
        return value
    try:
        msgspec.json.encode(dict.fromkeys(value))
    except TypeError:
        return [[key, _in_pairs(each)] for key, each in value.items()]
    return {key: _in_pairs(each) for key, each in value.items()}
