"""`import skerry` is cheap, loads no store and no socket, and starts nothing."""

import subprocess
import sys

LOOK = """
import sys, threading
import skerry
loaded = {"lmdb", "zmq", "typer", "rich", "cloudpickle"} & set(sys.modules)
loaded |= {name for name in sys.modules if name.startswith("skerry.runtime")}
print(*sorted(loaded), threading.active_count())
"""


def test_import_skerry_loads_and_starts_nothing() -> None:
    seen = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    assert seen.stdout.split() == ["1"]
    assert seen.stderr == ""
