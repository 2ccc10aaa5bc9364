"""An app whose handlers use what a process has: forks, programs, signals, its standard input."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from skerry import App, Entity, OutsideTurn, send

_fork = multiprocessing.get_context("fork")
_pools = []


class Job(Entity):
    count: int = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def slow(self, seconds: float, begun: str = "") -> int:
        """`begun`: a file that says so."""
        if begun:
            Path(begun).touch()
        threading.Event().wait(seconds)
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def pool(self) -> list[int]:
        """A pool that forks, and that nobody shuts down."""
        pool = ProcessPoolExecutor(2, mp_context=_fork)
        _pools.append(pool)
        pool.submit(os.getpid).result()
        return [child.pid or 0 for child in _pools[-1]._processes.values()]

    def stray(self, how: str) -> int:
        """A child that is no worker; its exit code."""
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if how == "exit":
            sys.exit(3)
        if how == "send":
            try:
                send(Job.at("other").add)
            except OutsideTurn:
                os._exit(4)
        return 0

    def orphan(self) -> int:
        """A grandchild whose parent has ended, and that ends, too."""
        started = subprocess.run(["sh", "-c", "sleep 0.01 & echo $!"], stdout=subprocess.PIPE)
        return int(started.stdout)

    def inherited(self) -> list[str]:
        """What the descriptors of a forked child lead to."""
        ours, theirs = os.pipe()
        if not os.fork():
            for link in list(Path("/proc/self/fd").iterdir()):
                if link.exists():
                    os.write(theirs, f"{link.readlink()}\n".encode())
            os._exit(0)
        os.close(theirs)
        os.wait()
        with open(ours) as found:
            return found.read().splitlines()

    def read(self) -> list[str]:
        """What there is to read: for a program, and for ourselves."""
        program = subprocess.run(["cat"], capture_output=True, text=True)
        return [program.stdout, sys.stdin.read()]

    def end_children(self) -> list[int | None]:
        """By SIGTERM: a program, and a fork in the moment that it begins."""
        program = subprocess.Popen(["sleep", "60"])
        program.terminate()
        program.wait()
        child = _fork.Process(target=signal.pause)
        child.start()
        child.terminate()
        child.join()
        return [program.returncode, child.exitcode]

    def later(self) -> None:
        """A thread that sends, again and again, whatever runs meanwhile."""

        def act() -> None:
            while True:
                try:
                    send(Job.at("never").add)
                except OutsideTurn:
                    os.sched_yield()

        threading.Thread(target=act, daemon=True).start()

    def move(self, folder: str) -> None:
        os.chdir(folder)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def leave(self, code: int) -> None:
        os._exit(code)

    def kill(self, number: int) -> None:
        os.kill(os.getpid(), number)
        signal.pause()


app = App("hosted", entities=[Job])
