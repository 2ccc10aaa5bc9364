"""The launcher, as a shell uses it: what it prints, where, and how it ends."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import pty
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

import skerry
from skerry import SkerryError, message
from skerry.runtime import cli
from skerry.runtime.app import directory, launch
from skerry.runtime.cli import settings
from skerry.runtime.cli.settings import SETTINGS, from_pyproject
from skerry.runtime.config import Config, Program
from tests.processes.apps import Counter
from tests.processes.started import CLI, ROOT, launcher, running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of an app that runs."""
    folder = tmp_path_factory.mktemp("launcher") / "data"
    with running(folder):
        yield folder


def ok(*args: str) -> str:
    """What a command prints that must succeed, and say nothing else."""
    done = launcher(*args)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def refused(code: int, *args: str) -> str:
    """What a command complains of that must end with this code, and print nothing else."""
    done = launcher(*args)
    assert (done.returncode, done.stdout) == (code, ""), (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_message_from_the_shell_is_answered_as_json(data: Path) -> None:
    at = ("--data", str(data))
    assert ok("ask", "Counter/shell", "add", *at) == "1\n"
    assert ok("ask", "Counter/shell", "add", "[2]", *at) == "3\n"
    assert ok("ask", "Counter/shell", "add", '{"amount": 3}', *at) == "6\n"
    assert ok("ask", "Counter/shell", "add", "4", *at) == "10\n"
    assert ok("send", "Counter/shell", "name", '["x"]', *at) == ""
    assert ok("ask", "Counter/shell", "value", *at) == "10\n"
    assert json.loads(ok("get", "Counter/shell", *at)) == {"count": 10, "names": ["x"]}


def test_numbers_that_json_lacks_are_printed_as_null(data: Path) -> None:
    assert ok("ask", "Counter/shell", "ratios", "--data", str(data)) == "[0.5, null, null]\n"


def test_a_named_request_counts_once(data: Path) -> None:
    once = ("ask", "Counter/named", "add", "--idempotency-key", "order-17", "--data", str(data))
    assert [ok(*once), ok(*once)] == ["1\n", "1\n"]


@pytest.mark.parametrize(
    ("name", "step"), [(None, "Look with `skerry get`"), ("n", "same --idempotency-key: it runs")]
)
def test_a_time_out_says_what_a_shell_can_do(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, step: str
) -> None:
    class Silent:
        def request(self, *args: object, **options: object) -> None: ...

        async def close(self) -> None: ...

    async def connect(folder: Path) -> Silent:
        return Silent()

    monkeypatch.setattr(launch, "connect", connect)
    with pytest.raises(SkerryError, match=f"unknown whether it ran. .*{step}"):
        cli.message.ask("Counter/a", "add", None, data, 0.01, name)


def test_refusals_and_failures_end_with_1_and_say_why(data: Path) -> None:
    at = ("--data", str(data))
    said = refused(1, "ask", "Counter/bad", "add", "[-1]", *at)
    assert "Counter/bad rejected it: no negative amounts" in said
    assert '{"amount": -1}' in said
    assert "ValueError: always" in refused(1, "ask", "Counter/bad", "fail", *at)
    assert "Counter/bad has no state" in refused(1, "get", "Counter/bad", *at)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("ask", "Counter/a", "ad"), "Did you mean `add`?"),
        (("ask", "Count/a", "add"), "Did you mean `Counter`?"),
        (("ask", "Counter/a", "_tick"), "has no handler `_tick`"),
        (("ask", "Counter/a", "add", '["x"]'), "argument `amount`: Expected `int`, got `str`"),
        (("ask", "Counter/a", "add", '{"amount": "x"}'), "argument `amount`: Expected `int`"),
        (("ask", "Counter/a", "add", '{"ammount": 5}'), "has no argument `ammount`"),
        (("send", "Counter/a", "add", '{"amount": 5, "more": 1}'), "has no argument `more`"),
        (("ask", "Counter/a", "name", "{}"), "misses its argument `name`"),
        (("ask", "Counter/a", "add", "99999999999999999999999"), "a number beyond 64 bits"),
        (("ask", "Counter/a", "add", '{"amount": 99999999999999999999}'), "beyond 64 bits"),
        (("ask", "Counter/a", "add", "[" * 9999), "the arguments are no JSON"),
        (("ask", "Counter/a", "add", "{"), "the arguments are no JSON"),
        (("ask", "Counter/a", "add", "[1, 2]"), "takes"),
        (("ask", "Counter", "add"), "write TYPE/KEY"),
        (("ask", "Counter/" + "k" * 481, "add"), "480"),
        (("ask", "Counter/a", "add", "--idempotency-key", ""), "names no request"),
        (("send", "Counter/a", "add", "--idempotency-key="), "names no request"),
        (("ask", "Counter/a", "add", "--timeout", "0"), "0 s is no time"),
        (("send", "Counter/a", "add", "--timeout", "-1"), "-1 s is no time"),
        (("get", "Count/a"), "Did you mean `Counter`?"),
        (("export", "Counter", "--format", "xml"), "jsonl or csv"),
        (("dead", "show", "xyz"), "no id"),
        (("fly",), "No such command"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_mistake(
    data: Path, args: tuple[str, ...], said: str
) -> None:
    at = () if args == ("fly",) else ("--data", str(data))
    assert said in refused(2, *args, *at)


def test_states_are_exported_and_counted_also_when_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    at = ("--data", str(folder))
    with running(folder):
        for key in ("a", "b", 'c"ä'):
            ok("ask", f"Counter/{key}", "add", *at)
        ok("send", "Counter/a", "name", '["x"]', *at)
        live = [ok("export", "Counter", *at), ok("count", "Counter", *at)]
        status = json.loads(ok("status", "--json", *at))
        assert status["running"] is True
        assert [shard["shard"] for shard in status["shards"]] == [0, 1]
        assert "runs, process" in ok("status", *at)
    assert [ok("export", "Counter", *at), ok("count", "Counter", *at)] == live
    rows = {row["key"]: row["state"] for row in map(json.loads, live[0].splitlines())}
    assert rows == {
        "a": {"count": 1, "names": ["x"]},
        "b": {"count": 1, "names": []},
        'c"ä': {"count": 1, "names": []},
    }
    table = list(csv.DictReader(io.StringIO(ok("export", "Counter", "--format", "csv", *at))))
    assert {row["key"]: row["count"] for row in table} == dict.fromkeys(rows, "1")
    assert json.loads(ok("count", "Counter", "--json", *at)) == {"type": "Counter", "count": 3}
    assert json.loads(ok("get", "Counter/b", "--json", *at)) == {"count": 1, "names": []}
    assert json.loads(ok("status", "--json", *at))["running"] is False
    assert "all clean" in ok("check", str(folder))
    assert json.loads(ok("check", str(folder), "--json")) == {
        "clean": True,
        "damage": [],
        "unknown": [],
    }
    assert "No app runs" in refused(1, "ask", "Counter/a", "add", *at)


PLOTS = """
from datetime import UTC, datetime
from msgspec import Struct
from skerry import App, Entity

class Corner(Struct, frozen=True):
    x: int

class Plot(Entity):
    size: int = 0
    %s
    def grow(self) -> int:
        self.size += 1
        return self.size

    def fill(self, where: dict[tuple[int, int], str]) -> None:
        self.cells, self.corners = where, {Corner(1): "y"}

app = App("plots", entities=[Plot])
"""

NEWER_FIELDS = """
    cells: dict[tuple[int, int], str] = {}
    seen: datetime = datetime(2026, 1, 2, tzinfo=UTC)
    raw: bytes = b"a"
    corners: dict[Corner, str] = {}
"""


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of two releases: `a` has one field, `b` and `c` have all; JSON has no keys for `c`'s."""
    folder = tmp_path_factory.mktemp("plots")
    (folder / "plots.py").write_text(PLOTS % "")
    with running(folder / "data", target="plots.py", cwd=folder):
        ok("ask", "Plot/a", "grow", "--data", str(folder / "data"))
    (folder / "plots.py").write_text(PLOTS % NEWER_FIELDS)
    with running(folder / "data", target="plots.py", cwd=folder):
        ok("ask", "Plot/b", "grow", "--data", str(folder / "data"))
        with skerry.Client(folder / "data") as client:
            plot = runpy.run_path(str(folder / "plots.py"))["Plot"]
            client.ask(plot.at("c").fill, {(1, 2): "x"})
    return folder / "data"


@pytest.mark.parametrize("command", [("count", "Plod"), ("export", "Plod"), ("get", "Plod/a")])
def test_a_stopped_app_names_an_unknown_type_as_a_running_one_does(
    plots: Path, command: tuple[str, ...]
) -> None:
    assert "Did you mean `Plot`?" in refused(2, *command, "--data", str(plots))


def test_what_json_has_no_keys_for_is_printed_as_pairs(plots: Path) -> None:
    at = ("--data", str(plots))
    state = json.loads(ok("get", "Plot/c", *at))
    assert state["cells"] == [[[1, 2], "x"]]
    assert base64.b64decode(state["corners"]) == msgspec.msgpack.encode({"x": 1}).join(
        (b"\x81", b"\xa1y")
    )
    rows = [json.loads(line) for line in ok("export", "Plot", *at).splitlines()]
    assert {row["key"]: row["state"]["size"] for row in rows} == {"a": 1, "b": 1, "c": 0}


def test_a_table_has_the_fields_of_every_release_and_plain_texts(plots: Path) -> None:
    exported = ok("export", "Plot", "--format", "csv", "--data", str(plots))
    rows = {row.pop("key"): row for row in csv.DictReader(io.StringIO(exported))}
    newer = {"size": "1", "cells": "{}", "seen": "2026-01-02T00:00:00Z", "raw": "YQ=="}
    newer["corners"] = rows["c"]["corners"]
    assert rows["a"] == dict.fromkeys(newer, "") | {"size": "1"}
    assert rows["b"] == newer | {"corners": "{}"}
    assert rows["c"] == newer | {"size": "0", "cells": '[[[1, 2], "x"]]'}


def test_dead_letters_are_listed_shown_retried_and_dropped(data: Path) -> None:
    at = ("--data", str(data))
    ok("send", "Counter/dead", "fail", *at)
    ok("send", "Counter/dead", "add", "[-5]", *at)
    letters = [json.loads(line) for line in ok("dead", "list", "--json", *at).splitlines()]
    mine = [letter for letter in letters if letter["entity"] == "Counter/dead"]
    assert [(letter["handler"], letter["arguments"]) for letter in mine] == [
        ("fail", []),
        ("add", [-5]),
    ]
    failed, rejected = (letter["id"] for letter in mine)
    assert "raise ValueError" in json.loads(ok("dead", "show", failed, *at))["traceback"]
    ok("dead", "retry", failed, *at)
    ok("dead", "drop", rejected, *at)
    assert "no dead letter" in refused(1, "dead", "drop", rejected, *at)
    after = [line for line in ok("dead", "list", *at).splitlines() if "Counter/dead" in line]
    assert len(after) == 1
    assert failed not in after[0]


def test_dead_letters_are_retried_by_type_and_handler_and_those_that_come_back_stay(
    tmp_path: Path,
) -> None:
    at = ("--data", str(tmp_path / "data"))
    with running(tmp_path / "data"):
        for key in ("a", "b", "c"):
            ok("send", f"Counter/{key}", "fail", *at)
        ok("send", "Counter/a", "add", "[-5]", *at)
        refused(1, "ask", "Counter/a", "fail", *at)
        for wrong in ((), ("--type", "Counter"), ("00", "--all"), ("00", "--handler", "add")):
            assert "--all" in refused(2, "dead", "retry", *wrong, *at)
        by_handler = ("--type", "Counter", "--handler", "fail")
        said = ok("dead", "retry", "--all", *by_handler, *at)
        assert "retried 3 of 4 dead letters\n1 stay: their askers were given an outcome" in said
        assert (
            ok("dead", "retry", "--all", "--type", "Blob", *at) == "retried 0 of 0 dead letters\n"
        )
        assert ok("dead", "list", *at).count("Counter/") == 5, "these fail again"


def test_an_app_that_can_t_be_found_or_imported_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import skerry\n1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "field.py").write_text(
        "from skerry import App, Entity\nclass A(Entity):\n    x: int\napp = App('a', entities=[A])\n"
    )
    (tmp_path / "reserved.py").write_text(
        "from skerry import App, Entity\nclass A(Entity):\n    def key(self) -> None: ...\n"
        "app = App('a', entities=[A])\n"
    )

    def said(target: str) -> str:
        done = launcher("run", target, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode == 1, done
        return done.stderr

    assert "there is no file nowhere.py" in said("nowhere.py")
    assert "there is no module nowhere" in said("nowhere:app")
    assert "ZeroDivisionError" in said("broken.py")
    assert 'broken.py", line 2' in said("broken.py")
    assert "make one with `app = App(…)`" in said("empty.py")
    assert "no app named `other`" in said("empty.py:other")
    assert "A.x has no default" in said("field.py")
    assert "`key`" in said("reserved.py")
    assert not (tmp_path / ".skerry").exists()


def test_output_without_a_terminal_is_plain_and_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a b\n" * 200_000)
    command = [*CLI, "run", "examples.word_count", "--data", str(tmp_path / "data"), "--"]
    command.append(str(tmp_path / "lines.txt"))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    assert process.wait() == 0
    assert "━" in shown.decode()
    plain = launcher(*command[len(CLI) :])
    assert plain.returncode == 0
    assert "\x1b" not in plain.stderr
    assert "turns in" in plain.stderr


def test_the_last_line_counts_every_turn_however_soon_the_app_is_stopped(tmp_path: Path) -> None:
    said = tmp_path / "said"
    data = tmp_path / "data"
    with running(data, said=said) as process, skerry.Client(data) as client:
        client.ask_many([message(Counter.at(f"soon-{n}").add, 1) for n in range(1000)])
        process.terminate()
        assert process.wait() == 0
    assert ": 1,000 turns in" in said.read_text().splitlines()[-1]


def test_defaults_come_from_pyproject_then_the_environment_then_flags(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.skerry]\nworkers = 3\ndata = "here"\n')
    (tmp_path / "once.py").write_text(
        "from skerry import App, Entity, Generate\n"
        "class N(Entity):\n    n: int = 0\n    def see(self) -> None:\n        self.n += 1\n"
        "app = App('once', entities=[N])\n"
        "app.source(Generate(lambda p, at: at, count=5)).key_by(str).to(N.see)\n"
    )

    def shards(*options: str, **environment: str) -> int:
        done = launcher("run", "once.py", *options, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        said = launcher("status", cwd=tmp_path).stdout
        assert said.endswith("in here\n")
        return int(re.findall(r"(\d+) shards", said)[0])

    assert shards() == 3
    assert shards(SKERRY_WORKERS="2") == 2
    assert shards("--workers", "1", SKERRY_WORKERS="2") == 1
    (tmp_path / "pyproject.toml").write_text("[tool.skerry]\nworker = 3\n")
    wrong = launcher("status", cwd=tmp_path)
    assert (wrong.returncode, "'worker'" in wrong.stderr) == (1, True)


def test_settings_that_make_no_sense_are_named_wherever_they_stand(tmp_path: Path) -> None:
    for text, said in [
        ("tool = 3", "[tool.skerry] is a table of options, not 3"),
        ("[tool]\nskerry = 'x'", "[tool.skerry] is a table of options, not 'x'"),
    ]:
        (tmp_path / "pyproject.toml").write_text(text)
        wrong = launcher("status", cwd=tmp_path)
        assert (wrong.returncode, "Traceback" in wrong.stderr) == (1, False)
        assert f"pyproject.toml: {said}" in wrong.stderr
    for hang in ("abc", "0"):
        wrong = launcher("run", "examples.bank", "--data", str(tmp_path / "data"), SKERRY_HANG=hang)
        assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
        assert "SKERRY_HANG" in wrong.stderr
    wrong = launcher("run", "examples.bank", "--data", str(tmp_path / "data"), "--quota", "1M")
    assert (wrong.returncode, "quota is 1,048,576 bytes" in wrong.stderr) == (2, True)
    assert not (tmp_path / "data").exists()


def test_the_settings_table_tells_the_defaults_that_count() -> None:
    config = Config(program=Program(app="any"), data="")
    told = {key: setting.default for key, setting in SETTINGS.items()}
    assert told["sync"] == config.storage.sync
    assert settings.size(told["cache"]) == config.limits.cache_bytes
    assert settings.size(told["quota"]) == config.storage.quota_bytes
    assert float(told["hang"]) == config.supervision.hang_s
    run = dict(commands(typer.main.get_command(cli.app)))[("run",)]
    assert set(SETTINGS) <= {option.name for option in run.params}
    for option in run.params:
        if setting := SETTINGS.get(option.name):
            assert (option.envvar, option.opts) == (setting.variable, [setting.flag])


def commands(group: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from (((name, *words), each) for words, each in commands(command))
        else:
            yield (name,), command


def test_every_command_for_an_app_takes_its_data_directory_from_pyproject_environment_and_flag(
    tmp_path: Path,
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.skerry]\ndata = "here"\n')
    found = dict(commands(typer.main.get_command(cli.app)))
    assert ("dead", "list") in found
    for words, command in found.items():
        if words[0] == "cluster":
            continue  # It has servers in its folder, and no app.
        options = {option.name: option for option in command.params}
        assert options["data"].envvar == "SKERRY_DATA", words
        assert settings.defaults(command, from_pyproject(tmp_path)) == {"data": "here"}, words


def test_check_and_backup_take_the_configured_app_not_the_one_beside_it(tmp_path: Path) -> None:
    with running(tmp_path / ".skerry" / "other", said=tmp_path / "said"):
        pass
    with running(tmp_path / "here"):
        ok("ask", "Counter/a", "add", "--data", str(tmp_path / "here"))
    (tmp_path / "pyproject.toml").write_text('[tool.skerry]\ndata = "here"\n')
    assert launcher("check", cwd=tmp_path).stdout.startswith("here: ")
    assert launcher("check", ".skerry/other", cwd=tmp_path).stdout.startswith(".skerry/other: ")
    assert launcher("check", cwd=tmp_path, SKERRY_DATA=".skerry/other").stdout.startswith(".skerry")
    assert launcher("backup", "kept", cwd=tmp_path).returncode == 0
    assert ok("count", "Counter", "--data", str(tmp_path / "kept")) == "1\n"
    assert launcher("restore", "kept", cwd=tmp_path, SKERRY_DATA="again").returncode == 0
    assert ok("count", "Counter", "--data", str(tmp_path / "again")) == "1\n"


def test_stop_ends_an_app_and_a_second_look_finds_none(tmp_path: Path) -> None:
    for how in ([], ["--now"]):
        with running(tmp_path / "data") as process:
            ok("ask", "Counter/a", "add", "--data", str(tmp_path / "data"))
            ok("stop", *how, "--data", str(tmp_path / "data"))
            process.wait(timeout=30)
    assert process.returncode == -9
    assert "No app runs" in refused(1, "stop", "--data", str(tmp_path / "data"))
    assert "There is no app" in refused(1, "get", "Counter/a", "--data", str(tmp_path / "none"))
    assert json.loads(ok("get", "Counter/a", "--data", str(tmp_path / "data")))["count"] == 2


def test_folders_that_are_no_data_directory_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    assert "'letter.txt'" in refused(
        1, "run", "tests.processes.apps", "--data", str(tmp_path / "home")
    )
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    data = tmp_path / "data"
    with running(data):
        ok("ask", "Counter/a", "add", "--data", str(data))
    kept = (data / "app.json").read_bytes()
    known = directory.load(data)
    assert known is not None
    (data / "app.json").unlink()
    said = refused(3, "run", "tests.processes.apps", "--data", str(data))
    assert "no app.json" in said
    directory.save(data, msgspec.structs.replace(known, format=99))
    assert "format 99" in refused(3, "run", "tests.processes.apps", "--data", str(data))
    (data / "app.json").write_bytes(kept[:40])
    assert "app.json does not read" in refused(3, "count", "Counter", "--data", str(data))
    (data / "app.json").write_bytes(kept)
    assert ok("count", "Counter", "--data", str(data)) == "1\n"
    file = tmp_path / "file"
    file.write_text("")
    assert str(file) in refused(1, "run", "tests.processes.apps", "--data", str(file))
