"""A program that passes for `nats-server`, and never serves: for what is rare with the real one.

It is found by its command line, as the real one is.
"""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPT = """\
#!/bin/bash
if [ "$1" = --version ]; then echo "{version}"; exit; fi
exec -a nats-server {python} -c '{program}' "$@"
"""

WAITS = "import signal; signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
ENDS = 'import sys; sys.exit("nats-server: the disk is made of cheese")'


def server(folder: Path, program: str = WAITS, version: str = "nats-server: v2.15.1") -> Path:
    """Put such a program into a folder, to be found there first of all."""
    folder.mkdir(exist_ok=True)
    path = folder / "nats-server"
    path.write_text(SCRIPT.format(version=version, python=sys.executable, program=program))
    path.chmod(0o755)
    return path
