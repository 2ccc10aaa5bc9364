"""An environment for each peer, with nothing in it but the peer: made once, kept in .venv-peers.

The package installer of this environment fills it, so that none lies inside and its size is the
peer's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import venv
from pathlib import Path

from benchmarks.peers.catalog import Peer
from benchmarks.peers.servers import ENVIRONMENTS, ROOT, debian, run

STAMP = "made-for"
"""Says for which packages an environment was made."""


def made(peer: Peer) -> Path:
    """The Python of a peer's environment. Raises Missing when something cannot be installed."""
    folder = ENVIRONMENTS / peer.name
    wanted = "\n".join([sys.version, *peer.pip, *peer.npm])
    stamp, python = folder / STAMP, folder / "bin" / "python"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=False)
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        run([*pip, "install", "--disable-pip-version-check", *peer.pip])
        if peer.npm:
            npm = str(debian("npm", "npm"))
            run([npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *peer.npm])
        stamp.write_text(wanted)
    if peer.server:
        peer.server.binary()
    return python


def size_mb(peer: Peer) -> int:
    """What a peer takes on the disk: its environment, and its server where that lies elsewhere."""
    folder = ENVIRONMENTS / peer.name
    places = [folder]
    if peer.name == "skerry":
        places += [ROOT / "api", ROOT / "runtime"]
    if peer.server:
        server = peer.server.size_of(peer.server.binary())
        places += [] if server.is_relative_to(folder) else [server]
    return round(sum(map(size, places)) / 1e6)


def size(place: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count as nothing."""
    if place.is_file():
        return place.stat().st_size
    found = (Path(folder, name) for folder, _, names in os.walk(place) for name in names)
    return sum(path.stat().st_size for path in found if not path.is_symlink())
