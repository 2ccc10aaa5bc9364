"""Runs a supervisor as a process of its own, beside the program that asks for it: `app.running()`."""

from __future__ import annotations

import os
import signal
import sys
import threading

from skerry.errors import SkerryError
from skerry.runtime import as_json
from skerry.runtime.app.supervisor import Supervisor
from skerry.runtime.config import Config
from skerry.runtime.printable import say


def main() -> int:
    """Run an app. Its configuration comes as a line of JSON on standard input; when that is closed, the
    supervisor ends."""
    config = as_json.decode(sys.stdin.buffer.readline(), Config)
    parent_gone = threading.Thread(target=_end_with_parent, daemon=True)
    parent_gone.start()
    try:
        return Supervisor(config, say=say).run()
    except SkerryError as error:
        say(f"skerry: {error}")
        return 1


def _end_with_parent() -> None:
    # Unbuffered: a thread that holds the buffer's lock stops the interpreter's exit.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
