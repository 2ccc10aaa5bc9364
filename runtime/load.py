"""Finds the app that a target names: `module:app`, `package.module`, `file.py` or `file.py:app`.

Imports the user's code, and says clearly whose fault it is when that fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from skerry.app import App
from skerry.errors import BadApp


class Loaded(BaseException):
    """A program that runs its app is imported to get that app: what stands above is enough."""


_loading = False


def not_while_loading() -> None:
    """Called before an app is run: ends the import of a program that does so when imported."""
    if _loading:
        raise Loaded


def extend_path(folders: Sequence[str]) -> None:
    """Import from these folders too, first from them."""
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]


def load(target: str, path: Sequence[str] = (".",)) -> App:
    """The app. `path` is put before the import path. Raises BadApp."""
    global _loading
    extend_path(path)
    _loading = True
    try:
        return _load(target)
    finally:
        _loading = False


def _load(target: str) -> App:
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    module = _file(Path(place), target) if place.endswith(".py") else _module(place, target)
    if name:
        found = getattr(module, name, None)
        if not isinstance(found, App):
            raise BadApp(f"{target}: {place} has no app named `{name}`.{_apps_of(module)}")
        return found
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if len(apps) != 1:
        raise BadApp(f"{target}: name the app, as `{place}:app`.{_apps_of(module)}")
    return next(iter(apps.values()))


def _apps_of(module: ModuleType) -> str:
    names = [key for key, value in vars(module).items() if isinstance(value, App)]
    return (
        f" It has: {', '.join(names)}." if names else " It has none: make one with `app = App(…)`."
    )


def _file(path: Path, target: str) -> ModuleType:
    if not path.is_file():
        raise BadApp(f"{target}: there is no file {path}.")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Loaded:
        return module
    except (Exception, SystemExit) as error:
        raise BadApp(_failed(target, error)) from error
    return module


def _module(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise BadApp(
                f"{target}: there is no module {error.name} here or on the import path."
            ) from error
        raise BadApp(_failed(target, error)) from error
    except Loaded:
        raise BadApp(
            f"{target}: {name} runs its app when it is imported. Put that under "
            f"`if __name__ == '__main__':`."
        ) from None
    except (Exception, SystemExit) as error:
        raise BadApp(_failed(target, error)) from error


def _failed(target: str, error: BaseException) -> str:
    """The user's own lines of the traceback, without the import machinery's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    lines = "".join(traceback.format_list(frames) + traceback.format_exception_only(error))
    return f"{target} fails on import:\n{lines.rstrip()}"
