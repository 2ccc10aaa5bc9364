"""The comparison with the peers, without any of them: the load, the sums, the rows."""

import ast
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import environments, figure, load, servers, table
from benchmarks.peers.catalog import PEERS, WORKS, Peer
from benchmarks.peers.figure import Done, Figure, Given
from benchmarks.peers.servers import Missing
from benchmarks.peers.table import Row
from examples import word_count

FOLDER = Path(peers.__file__).parent
PARTITIONS = ("0", "1", "2", "3")


def source(name: str) -> ast.Module:
    """A file of the comparison, parsed."""
    return ast.parse((FOLDER / f"{name}.py").read_text())


def imported(name: str) -> set[str]:
    """What a file of the comparison imports, by its first name."""
    found = set()
    for node in ast.walk(source(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def given(tmp_path: Path, count: int = 100) -> Given:
    """What a peer is told."""
    return Given(tmp_path, tmp_path, "", PARTITIONS, count)


def row(peer: str, name: str, value: float | None, unit: str) -> Row:
    """A row before it is compared."""
    return Row(peer, "1.0", "as they do", name, value, unit, None, "a promise")


# The same load for everybody.


def test_everybody_takes_keys_from_the_load_and_nowhere_else() -> None:
    assert set(PARTITIONS) == {str(number) for number in range(figure.PARTITIONS)}
    assert [load.key("1", 5), load.key("1", 5)] == [load.key("0", 5 + len(load.DRAWN) // 4)] * 2
    for file in ("skerry_app", *(peer.name for peer in PEERS if peer.name != table.OWN)):
        names = {node.attr for node in ast.walk(source(file)) if isinstance(node, ast.Attribute)}
        assert {"key", "keys", "batches"} & names, f"{file} makes its own"


def test_words_are_split_as_the_example_splits_them() -> None:
    for path in [__file__, word_count.__file__, load.__file__]:
        for line in [*Path(path).read_text().splitlines(), "Ünï CamelCase x9y " + "z" * 99]:
            assert load.split(line) == word_count.split(line)


@pytest.mark.parametrize("count", [1, 999, 1000, 2500])
def test_who_sends_batches_sends_the_same_messages(count: int) -> None:
    one_by_one = list(load.keys(["1"], count))
    assert [name for batch in load.batches("1", count) for name in batch] == one_by_one
    divided = [(owner, name) for owner, names in load.halved("1", count) for name in names]
    assert sorted(name for _, name in divided) == sorted(one_by_one)
    assert all(load.half(name) == owner for owner, name in divided)


def test_peers_share_nothing_that_must_be_installed() -> None:
    for name in ("load", "figure"):
        assert imported(name) <= {*sys.stdlib_module_names, "benchmarks"}


def test_no_peer_sees_skerry() -> None:
    for peer in PEERS:
        assert ("skerry" in imported(peer.name)) is (peer.name == table.OWN)


# The sums that must come out.


def test_each_message_counts_once() -> None:
    count = len(load.DRAWN)
    states = load.counted(PARTITIONS, count)
    assert sum(states.values()) == 4 * count
    # Each partition has been through all that was drawn.
    assert states == {name: 4 * times for name, times in Counter(load.DRAWN).items()}
    assert len(states) == load.KEYS


def test_transfers_conserve_what_there_is() -> None:
    states = load.moved(PARTITIONS, 777)
    assert sum(states.values()) == 0
    assert sum(abs(balance) for balance in states.values()) > 0


def test_words_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One two\ntwo 3three")
    (tmp_path / "b.txt").write_text("THREE")
    assert load.words(tmp_path) == {"one": 1, "two": 2, "three": 2}


def test_a_lost_message_and_a_doubled_one_are_found_though_the_sum_is_right() -> None:
    expected = load.counted(PARTITIONS, 100)
    load.check({**expected, "a key of no use": 0}, expected)
    first, second = list(expected)[:2]
    wrong = {**expected, first: expected[first] + 1, second: expected[second] - 1}
    with pytest.raises(load.WrongSum, match=r"400 instead of 400; 2 keys are wrong: .* has"):
        load.check(wrong, expected)


def test_a_figure_is_told_with_its_rate(tmp_path: Path) -> None:
    def run(given: Given) -> Done:
        return Done(2.0, load.counted(given.partitions, given.count))

    (told,) = figure.judged(Figure("keyed_counter", "by hand", "none", 1, run), given(tmp_path))
    assert told == {
        "name": "keyed_counter",
        "variant": "by hand",
        "promise": "none",
        "value": 200,
        "unit": "messages/s",
    }


def test_a_figure_with_a_wrong_sum_has_no_value_but_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(given: Given) -> Done:
        return Done(2.0, load.counted(given.partitions, given.count - 1))

    (told,) = figure.judged(Figure("transfers", "by hand", "none", 1, run), given(tmp_path))
    assert "value" not in told
    assert told["wrong"].startswith("WrongSum: ")
    assert "WrongSum" in capsys.readouterr().err


def test_a_request_gives_two_rows(tmp_path: Path) -> None:
    def run(given: Given) -> Done:
        return Done(1.0, load.counted(given.partitions, given.count), [1.0] * 98 + [2.0, 9.0])

    rows = figure.judged(Figure("ask", "by hand", "none", 1, run), given(tmp_path))
    assert [(told["name"], told["value"], told["unit"]) for told in rows] == [
        ("ask_p50", 1.0, "ms"),
        ("ask_p99", 9.0, "ms"),
    ]


def test_processes_at_once_are_each_given_their_part(tmp_path: Path) -> None:
    def work(part: Given, ready: object) -> None:
        ready()  # type: ignore[operator]
        (tmp_path / part.partitions[0]).write_text(" ".join(part.partitions))

    assert figure.at_once(2, work, given(tmp_path)) > 0
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["0 2", "1 3"]


# Nobody is left out without a word.


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_peer_does_each_work_or_says_why_not(peer: Peer) -> None:
    strings = {node.value for node in ast.walk(source(peer.name)) if isinstance(node, ast.Constant)}
    measured, left_out = strings.intersection(WORKS), dict(peer.left_out)
    assert measured | set(left_out) == set(WORKS)
    assert measured.isdisjoint(left_out)
    assert all(left_out.values())


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_file_says_whose_advice_it_follows(peer: Peer) -> None:
    said = ast.get_docstring(source(peer.name)) or ""
    assert said.partition("\n")[0].endswith(".")
    assert "After " in said


def test_a_peer_that_cannot_be_installed_is_a_row_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(peer: Peer) -> Path:
        raise Missing("`pip install nobody` failed: no such package")

    monkeypatch.setattr(environments, "made", missing)
    run = peers.Run(seconds=1, texts=tmp_path, lock=None)
    (told,) = run.all(Peer("nobody", "Nobody", ("nobody",)))
    assert (told.peer, told.value) == ("Nobody", None)
    assert told.promise == "not measured: `pip install nobody` failed: no such package"
    assert "Nobody" in table.as_markdown([told])
    assert not run.went_wrong


def test_a_server_that_is_missing_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers.shutil, "which", lambda command: None)
    monkeypatch.setattr(servers.os, "geteuid", lambda: 1000)
    with pytest.raises(Missing, match="`nobody` is not here: install Debian's package `nobody-db`"):
        servers.debian("nobody", "nobody-db", "/nowhere/*/nobody")


def test_a_server_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no room'); raise SystemExit(3)"]
    with (
        pytest.raises(Missing, match=r"did not start: it ended with 3: no room"),
        servers.running(command, figure.free_port(), tmp_path),
    ):
        pass


def test_a_program_that_fails_is_a_row_that_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had told before stays; what it printed beside is not taken for figures."""
    told = json.dumps({"package": "nobody 1.0", "name": "ask_p50", "value": 1, "unit": "ms"})
    program = f"print('noise'); print({told!r}); raise SystemExit('no room')"
    with tempfile.TemporaryFile() as said:
        found = list(peers.lines([sys.executable, "-c", program], said))
    assert [line.get("name") for line in found] == ["ask_p50", None]
    assert found[-1]["wrong"] == "its program ended with 1: no room"
    run = peers.Run(seconds=1, texts=tmp_path, lock=None)
    told_row = run.row(PEERS[1], "1.0", **found[-1])
    assert run.went_wrong
    assert told_row.value is None
    assert told_row.promise == "WRONG: its program ended with 1: no room"


# What is shown.


def test_a_ratio_says_how_many_times_skerry_is_better() -> None:
    """To the mean of what skerry did before and after."""
    own = [
        row("skerry", "keyed_counter", 900, "messages/s"),
        row("skerry", "keyed_counter", 1100, "messages/s"),
        row("skerry", "ask_p50", 1.0, "ms"),
    ]
    for name, value, unit, ratio in [
        ("keyed_counter", 100, "messages/s", 10.0),
        ("keyed_counter", 2000, "messages/s", 0.5),
        ("ask_p50", 5.0, "ms", 5.0),
        ("word_count", 3, "words/s", None),
        ("keyed_counter", None, "", None),
    ]:
        assert table.beside(row("Peer", name, value, unit), own).ratio == ratio


def test_skerry_is_a_row_with_its_median_and_how_far_it_moved() -> None:
    own = [
        row("skerry", "transfers", value, "transfers/s") for value in (300_000, 100_000, 200_000)
    ]
    (told,) = table.medians(own)
    assert (told.value, told.ratio) == (200_000, 1.0)
    assert told.variant == "as they do; median of 3, 100,000 to 300,000"
    wrong = row("skerry", "transfers", None, "")
    assert len(table.medians([*own, wrong])) == 4, "a wrong sum does not vanish in a median"


def test_skerry_is_measured_between_any_two_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its speed halves again and again; each peer is held to its neighbours only."""
    speeds = iter([800, 400, 200])
    run = peers.Run(seconds=1, texts=tmp_path, lock=None)

    def figures(peer: Peer, python: Path) -> list[Row]:
        value = next(speeds) if peer.name == table.OWN else 100
        return [row(peer.title, "transfers", value, "transfers/s")]

    monkeypatch.setattr(environments, "made", lambda peer: Path(sys.executable))
    monkeypatch.setattr(environments, "size_mb", lambda peer: 10)
    monkeypatch.setattr(run, "figures", figures)
    monkeypatch.setattr(run, "first", lambda *_: row("", "first_result", 1.0, "s"))
    rows = run.everybody(PEERS[0], [Peer("a", "A", ()), Peer("b", "B", ())])
    ratios = {one.peer: one.ratio for one in rows if one.name == "transfers"}
    assert ratios == {"skerry": 1.0, "A": 6.0, "B": 3.0}
    assert [one.name for one in rows if one.peer == "A"] == ["transfers", "installed"]


def test_rows_come_by_figure_the_best_first_and_reasons_last() -> None:
    rows = [
        row("Absent", "", None, ""),
        row("Slow", "ask_p50", 5.0, "ms"),
        row("Fast", "ask_p50", 1.0, "ms"),
        row("None", "transfers", None, ""),
        row("Slow", "transfers", 1, "transfers/s"),
        row("Fast", "transfers", 9, "transfers/s"),
    ]
    assert [(one.name, one.peer) for one in table.ordered(rows)] == [
        ("transfers", "Fast"),
        ("transfers", "Slow"),
        ("transfers", "None"),
        ("ask_p50", "Fast"),
        ("ask_p50", "Slow"),
        ("", "Absent"),
    ]


def test_rows_have_the_shape_that_is_promised() -> None:
    rows = [row("skerry", "transfers", 3, "transfers/s"), row("A", "", None, "")]
    read = json.loads(table.as_json(rows))
    keys = ["peer", "version", "variant", "name", "value", "unit", "ratio", "promise"]
    assert [list(one) for one in read] == [keys, keys]
    assert table.as_table(rows).row_count == 2
    assert len([line for line in table.as_markdown(rows).splitlines() if "a promise" in line]) == 2


def test_only_the_tables_of_a_page_are_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{peers.BEGIN}\nold\n{peers.END}\nafter\n")
    peers.put(page, "new")
    assert page.read_text() == f"before\n{peers.BEGIN}\nnew\n{peers.END}\nafter\n"
