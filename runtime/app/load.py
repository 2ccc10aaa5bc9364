"""Loads the app that a target names: `module:app`, `package.module`, `file.py` or `file.py:app`.

Imports the user's code; when that fails, the error says whose fault it is.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from types import ModuleType

from skerry.app import App
from skerry.errors import BadApp, SkerryError


class Loaded(BaseException):
    """Ends the import of a program where it runs its app: by then the app is complete."""


OURS = tuple(
    str(Path(sys.modules[name].__file__ or "").parent) for name in ("skerry", "skerry.runtime")
)
"""The folders of skerry's own code."""

_loading = False
_files: set[str] = set()
"""Names of the modules that were loaded as files."""


def not_while_loading() -> None:
    """End the import of a program that runs its app while it is imported."""
    if _loading:
        raise Loaded


def split(target: str) -> tuple[str, str]:
    """Return the file or module of a target, and the name of the app in it; empty: the target has none."""
    if target.endswith(".py") or ":" not in target:
        return target, ""
    place, _, name = target.rpartition(":")
    return place, name


def current_folder() -> Path:
    """Return the folder in which we are, by the name under which a shell has entered it: that may lead
    over a symbolic link, to another folder later."""
    named = Path(os.environ.get("PWD", ""))
    with contextlib.suppress(OSError):
        if named.is_absolute() and named.samefile("."):
            return named
    return Path.cwd()


def absolute(target: str) -> str:
    """Return the target in a form that means the same wherever it is loaded: a file by its whole path.

    Raises BadApp: there is no such file.
    """
    place, name = split(target)
    if not place.endswith(".py"):
        return target
    if not Path(place).is_file():
        raise BadApp(f"{target}: there is no file {place}.")
    return f"{current_folder() / place}{':' if name else ''}{name}"


def path_for(target: str) -> list[str]:
    """Return the import path for a target: like Python's for programs, the target's own folder first.

    For a module, that is the current folder. For a file, it is the folder of the file; the current
    folder, which may hold anything, comes last.
    """
    here, place = str(current_folder()), split(target)[0]
    path = [entry for entry in absolute_path() if entry not in (here, str(Path.cwd()))]
    if not place.endswith(".py"):
        return [here, *path]
    folder = str((current_folder() / place).parent)
    return [folder, *(entry for entry in path if entry != folder), here]


def resolved(target: str, path: Sequence[str]) -> tuple[str, list[str]]:
    """Return a target and its import path with the program's own folder as links lead there now. A
    process goes on with that folder, wherever they lead later."""
    place, name = split(target)
    if not place.endswith(".py"):
        return target, [str(Path(path[0]).resolve()), *path[1:]]
    file = Path(place).resolve()
    # Python, too, takes the folder of what a link to a program leads to.
    return f"{file}{':' if name else ''}{name}", [str(file.parent), *path[1:]]


def absolute_path() -> list[str]:
    """Return `sys.path` with absolute paths, which a change of directory does not affect."""
    return [str(Path(entry).absolute()) for entry in sys.path]


def import_from(path: Sequence[str]) -> None:
    """Import from these folders first, in this order."""
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]


def hidden(folder: str) -> list[str]:
    """Return names of modules in a folder under which this process has already imported others.

    A process that is to import the same modules imports those before the folder is on its path.
    """
    files = (*Path(folder).glob("*.py"), *Path(folder).glob("*/__init__.py"))
    names = {file.parent.name if file.stem == "__init__" else file.stem for file in files}
    return sorted(name for name in names if _is_elsewhere(name, folder))


def _is_elsewhere(name: str, folder: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and Path(folder) not in Path(str(spec.origin)).parents


def check(app: App, target: str) -> None:
    """Refuse an app that can't run, before anything starts. Raises BadApp, SkerryError."""
    app.check()
    for pipeline in app.pipelines:
        try:
            pipeline.source.partitions()
        except SkerryError:
            raise
        except Exception as error:
            raise BadApp(
                f"{target}: a source does not name its partitions:\n{_told(error)}"
            ) from error


def load(target: str, path: Sequence[str]) -> App:
    """Load an app, with `path` first on the import path. Raises BadApp."""
    global _loading
    target, path = resolved(target, path)
    import_from(path)
    _loading = True
    try:
        return _load(target)
    finally:
        _loading = False


def _load(target: str) -> App:
    place, name = split(target)
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
    name, folder = path.stem, str(path.parent)
    if name in sys.stdlib_module_names or (name not in _files and _is_elsewhere(name, folder)):
        raise BadApp(
            f"{target}: {path.name} has the name of the module `{name}`, which Python's own library "
            f"or one of those that skerry is made of imports. Rename the file."
        )
    if not path.is_file():
        raise BadApp(f"{target}: there is no file {path}.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _files.add(name)
    return _run(module, target)


def _run(module: ModuleType, target: str) -> ModuleType:
    """Run a module, up to where it runs its app. Raises BadApp."""
    assert module.__spec__ is not None and module.__spec__.loader is not None, "it was found"
    try:
        module.__spec__.loader.exec_module(module)
    except Loaded:
        pass
    except (Exception, SystemExit) as error:
        raise BadApp(_failed(target, error) + _step(error, module)) from error
    return module


def _step(error: BaseException, module: ModuleType) -> str:
    """Return the next step for a file that imports its neighbours relatively, as in a package."""
    if not isinstance(error, ImportError) or "no known parent package" not in str(error):
        return ""
    folder = Path(str(module.__file__)).parent
    names = [folder.name, module.__name__]
    while ((folder := folder.parent) / "__init__.py").is_file():
        names.insert(0, folder.name)
    return (
        f"\nIt is a part of a package. Run it as a module, from {folder}: "
        f"`skerry run {'.'.join(names)}`."
    )


def _module(name: str, target: str) -> ModuleType:
    try:
        if name.endswith(".__main__") and (spec := importlib.util.find_spec(name)) is not None:
            # Imported only to be run, so it may run its app as a script does.
            return _run(importlib.util.module_from_spec(spec), target)
        module = importlib.import_module(name)
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
    outer, file = name.partition(".")[0], getattr(module, "__file__", None)
    if outer in hidden(sys.path[0]):
        raise BadApp(
            f"{target}: `{outer}` in {sys.path[0]} has the name of another module, which was "
            f"imported from {file or 'Python itself'}. Rename yours."
        )
    return module


def _failed(target: str, error: BaseException) -> str:
    return f"{target} fails on import:\n{_told(error)}"


def _told(error: BaseException) -> str:
    """Return a traceback of the user's own lines, without those of ours that led to them."""
    frames = list(dropwhile(_is_ours, traceback.extract_tb(error.__traceback__)))
    if isinstance(error, TypeError | SkerryError):
        # What skerry refuses, it names; where it does so is nobody's concern.
        frames = list(takewhile(lambda frame: not frame.filename.startswith(OURS), frames))
    lines = "".join(traceback.format_list(frames) + traceback.format_exception_only(error))
    return lines.rstrip()


def _is_ours(frame: traceback.FrameSummary) -> bool:
    """Tell whether a line is skerry's, or of the import machinery."""
    return frame.filename.startswith(OURS) or "importlib" in frame.filename
