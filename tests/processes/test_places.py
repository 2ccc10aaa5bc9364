"""Where an app's sockets are, who may take their place, and what becomes of one that is swept."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import skerry
from skerry import SkerryError, Unavailable
from skerry.runtime import private
from skerry.runtime.app.directory import running_app
from skerry.runtime.client import connection as connections
from skerry.runtime.client.connection import Connection
from skerry.runtime.description import Running
from skerry.runtime.gateway import knock
from tests.processes.apps import Counter
from tests.processes.started import CLI, ROOT, launcher, running
from tests.processes.test_start import limited

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for sockets, which that of a test does not always."""
    folder = Path("/tmp") / f"place-{os.getpid()}"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run_file(data: Path) -> Running:
    """Who runs an app."""
    return running_app(data)


def serves(data: Path) -> bool:
    """Whether an app answers."""
    with skerry.Client(data) as client:
        return client.ask(Counter.at("a").value) == 0


@pytest.mark.parametrize(
    ("data", "runtime", "temporary", "place"),
    [
        ("data", "r", "t", "data/sockets"),
        ("d" * 90, "r", "t", "r/skerry-"),
        ("d" * 90, "missing", "t", "t/skerry-"),
        ("d" * 90, "r" * 90, "t", "t/skerry-"),
        ("d" * 90, "r" * 90, "t" * 90, "/tmp/skerry-"),
    ],
)
def test_sockets_are_where_their_paths_are_short_enough(
    short: Path, data: str, runtime: str, temporary: str, place: str
) -> None:
    for name in (runtime, temporary):
        (short / name).mkdir(exist_ok=True)
    (short / "missing").rmdir() if runtime == "missing" else None
    places = {"XDG_RUNTIME_DIR": str(short / runtime), "TMPDIR": str(short / temporary)}
    with running(short / data, said=short / "said", **places):
        folder = Path(run_file(short / data).sockets)
        assert str(folder).startswith(str(short / place))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert serves(short / data)
    assert not folder.exists()


def test_without_a_place_for_sockets_one_sentence_names_all_that_were_tried(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "PATH_BYTES_MAX", 20)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "runtime"))
    with pytest.raises(SkerryError, match="may have 20 bytes") as caught:
        private.SocketsFolder(short)
    said = str(caught.value)
    assert f"{short}/sockets" in said and f"{short}/runtime" in said
    assert "Set XDG_RUNTIME_DIR" in said


def test_a_data_directory_without_sockets_takes_another_place(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []

    def refusing(folder: Path) -> None:
        tried.append(folder)
        if folder.parent == short:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(private, "_try", refusing)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    folder = private.SocketsFolder(short)
    assert tried == [short / "sockets", folder.path]
    assert not tried[0].exists()
    folder.remove()
    assert not folder.path.exists()


def test_the_folder_of_an_app_that_was_killed_is_removed_by_its_next_start(short: Path) -> None:
    data = short / ("d" * 90)
    with running(data, said=short / "said", XDG_RUNTIME_DIR=str(short)) as process:
        left = Path(run_file(data).sockets)
        process.kill()
        process.wait()
    assert left.exists()
    with running(data, said=short / "said", XDG_RUNTIME_DIR=str(short)):
        assert not left.exists()
        assert serves(data)


@pytest.mark.parametrize("swept", ["folder", "door-0", "pipe-0", "beat-0", "control"])
def test_sockets_that_are_swept_away_are_made_again(tmp_path: Path, swept: str) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    with running(data, said=said), skerry.Client(data) as client:
        assert [client.ask(Counter.at(key).add) for key in "abcd"] == [1, 1, 1, 1]  # Both are up.
        folder = Path(run_file(data).sockets)
        if swept == "folder":
            shutil.rmtree(folder)
        else:
            (folder / swept).unlink()
        while "were removed" not in said.read_text():
            os.sched_yield()
        assert [client.ask(Counter.at(key).add) for key in "abcd"] == [2, 2, 2, 2]
        with skerry.Client(data) as another:
            assert another.ask(Counter.at("a").add) == 3


def test_a_listener_that_is_swept_away_before_anybody_has_used_it_is_made_again(
    tmp_path: Path,
) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    with running(data, said=said) as process:
        folder = Path(run_file(data).sockets)
        while not (folder / "pipe-0").exists():  # A worker opens this one first.
            os.sched_yield()
        process.send_signal(signal.SIGSTOP)
        while not (folder / "beat-0").exists():
            os.sched_yield()
        (folder / "door-0").unlink()
        process.send_signal(signal.SIGCONT)
        while "were removed" not in said.read_text():
            os.sched_yield()
        with skerry.Client(data) as client:
            assert [client.ask(Counter.at(key).add) for key in "abcd"] == [1, 1, 1, 1]


def test_an_app_whose_data_was_replaced_ends_and_leaves_the_sockets_there_alone(
    short: Path,
) -> None:
    data, said = short / "data", short / "said"
    with running(data, said=said) as process:
        data.rename(short / "moved")
        shutil.copytree(short / "moved", data, ignore=shutil.ignore_patterns("sockets"))
        (data / "sockets").mkdir()
        (data / "sockets" / "of-another").touch()
        assert process.wait(timeout=60) == 1
        assert (data / "sockets" / "of-another").exists()
    assert "was removed or replaced while the app ran" in said.read_text()


@pytest.fixture
def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where an app that is said to run has its sockets."""
    folder = tmp_path / "sockets"
    folder.mkdir(mode=0o700)
    told = Running(1, "app", str(folder), [0], knock.new_secret())
    (tmp_path / "run.json").write_text("")
    monkeypatch.setattr(connections, "running_app", lambda data: told)
    monkeypatch.setattr(connections, "WELCOME_S", 1.0)
    return folder


def opened(folder: Path, answer: bytes) -> tuple[str, bytes]:
    """What a caller is told who tries to reach that app, and what it says to an impostor there."""
    heard = b""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += await reader.read(1 << 20)
        writer.write(len(answer).to_bytes(4, "little") + answer)
        heard += await reader.read(1 << 20)
        writer.close()

    async def attempt() -> str:
        server = await asyncio.start_unix_server(meet, str(folder / "door-0"))
        async with server:
            with pytest.raises(Unavailable) as caught:
                await Connection.open(folder.parent)
        return str(caught.value)

    said = asyncio.run(attempt())
    return said, heard


def test_who_listens_at_a_door_s_place_and_lacks_the_secret_is_told_nothing(faked: Path) -> None:
    stranger = knock.answer(other := knock.new_secret(), knock.knock(other, knock.drawn()))
    assert stranger is not None
    said, heard = opened(faked, stranger)
    assert "no worker of it answers" in said
    assert heard and b"hello" not in heard


@as_root
def test_a_folder_of_another_user_is_named_and_nothing_is_said_there(faked: Path) -> None:
    os.chown(faked, NOBODY, NOBODY)
    said, heard = opened(faked, b"")
    assert str(faked) in said and "belongs to user" in said
    assert heard == b""


def test_a_folder_that_others_can_write_to_is_not_believed(faked: Path) -> None:
    faked.chmod(0o777)
    said, heard = opened(faked, b"")
    assert "mode 0777" in said
    assert heard == b""


def test_a_process_of_another_user_is_not_spoken_to(
    faked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knock, "user_of", lambda end: NOBODY)
    said, heard = opened(faked, b"")
    assert "a process of user 65534 has taken the place" in said
    assert heard == b""


def test_a_door_answers_nobody_who_lacks_the_secret(tmp_path: Path) -> None:
    data = tmp_path / "data"
    hello = b"\x91\xa5hello"
    with running(data), socket.socket(socket.AF_UNIX) as end:
        assert serves(data)
        end.connect(f"{run_file(data).sockets}/door-0")
        end.sendall(len(hello).to_bytes(4, "little") + hello)
        said = b""
        while heard := end.recv(1 << 16):
            said += heard
        assert b"the app's secret" in said and b"welcome" not in said


def test_the_secret_of_an_app_is_its_owner_s_alone_and_another_after_each_start(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    secrets = set()
    for _ in range(2):
        with running(data):
            secrets.add(run_file(data).secret)
            assert stat.S_IMODE((data / "run.json").stat().st_mode) == 0o600
    assert len(secrets) == 2


def test_a_data_directory_that_others_can_write_to_is_narrowed(tmp_path: Path) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    (data / "logs").mkdir(parents=True)
    for folder in (data, data / "logs"):
        folder.chmod(0o777)
    with running(data, said=said):
        modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (data, data / "logs")]
    assert modes == [0o700, 0o700]
    assert said.read_text().count("now it is 0700") == 2


@as_root
@pytest.mark.parametrize(("owner", "refused"), [(NOBODY, True), (0, False)])
def test_a_data_directory_of_somebody_else_is_refused_but_root_s(
    short: Path, owner: int, refused: bool
) -> None:
    os.chown(short, owner, owner)
    short.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        os.setuid(1)
        try:
            private.narrow(short, print)
        except SkerryError as error:
            os._exit(7 if f"{short} belongs to user" in str(error) else 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (7 if refused else 0)


@as_root
def test_a_run_file_that_somebody_else_has_put_there_is_not_believed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        data.chmod(0o777)
        os.chown(data / "run.json", NOBODY, NOBODY)
        for command in (("ask", "Counter/a", "value"), ("stop",)):
            done = launcher(*command, "--data", str(data))
            assert done.returncode == 1
            assert "it is not believed" in done.stderr
        os.chown(data / "run.json", 0, 0)


def test_too_few_files_are_said_with_the_number_that_is_needed(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CLI, "run", "tests.processes.apps", "--data", str(tmp_path / "data"), "--workers", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limited(resource.RLIMIT_NOFILE, 20),
    )
    assert done.returncode == 1
    assert "20 files open" in done.stderr and "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr
