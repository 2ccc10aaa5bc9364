"""Files between two runs: each line counts once, or the app says that the file is another one."""

from __future__ import annotations

import builtins
import gzip
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry import SkerryError, TextFiles

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd
from skerry.sources.reading import WINDOW_BYTES, Changed

LINE = st.sampled_from(["", "a", "b", "12", "34", "\u00e9"])
ENDS = st.sampled_from(["", "\n", "\r\n"])
CONTENT = st.lists(st.tuples(LINE, st.sampled_from(["\n", "\r\n"])), max_size=6)
STEP = st.one_of(
    st.tuples(st.just("append"), CONTENT, LINE, ENDS),
    st.tuples(st.just("replace"), CONTENT, LINE, ENDS),
    st.tuples(st.just("rotate"), CONTENT, LINE, ENDS),
    st.tuples(st.just("cut"), st.integers(0, 20)),
    st.tuples(st.just("copy")),
    st.tuples(st.just("run"), st.integers(0, 9)),
)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "not": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
}


def lines_of(content: bytes) -> list[str]:
    """As any reader of text sees them."""
    lines = content.decode().split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


class Model:
    """A file, and what has been read of it."""

    def __init__(self, path: Path, *, packed: str) -> None:
        self.path, self.packed = path, packed
        self.content = b""
        self.read = b""
        """What lies before the place."""
        self.place: Any = None

    def write(self, content: bytes) -> None:
        """In place, as an editor does, or a log that is cut and goes on."""
        self.content = content
        self.path.write_bytes(PACKINGS[self.packed](content))

    def step(self, what: str, *given: Any) -> None:
        """Something that people and programs do between two runs."""
        if what == "cut":
            self.write(self.content.decode()[: given[0]].encode())
        elif what == "copy":
            copy = self.path.with_suffix(".copy")
            shutil.copyfile(self.path, copy)
            copy.rename(self.path)
        else:
            lines, line, end = given
            text = "".join(line + end for line, end in lines) + line + end
            if what == "rotate":
                self.path.rename(self.path.with_suffix(".1"))
            self.write((self.content if what == "append" else b"") + text.encode())

    @property
    def unread(self) -> list[str] | None:
        """What a run should give now; None: the file is not the one that was read."""
        if not self.content.startswith(self.read):
            return None
        rest = self.content[len(self.read) :]
        if not self.read or self.read.endswith(b"\n"):
            return lines_of(rest)
        if rest in (b"", b"\r"):
            return []
        for end in (b"\n", b"\r\n"):
            if rest.startswith(end):
                return lines_of(rest.removeprefix(end))
        return None

    def run(self, source: TextFiles, most: int) -> list[str] | None:
        """Read some lines; None: refused."""
        came = []
        try:
            for place, line in source.read(str(self.path), self.place):
                if len(came) == most:
                    break
                came.append(line)
                self.place, self.read = place, self.content[: place[0]]
        except Changed:
            return None
        return came


@given(st.lists(STEP, max_size=12), st.sampled_from(sorted(PACKINGS)), st.booleans())
def test_each_line_comes_once_or_the_file_is_refused_or_begun_anew_as_the_user_chose(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[Any, ...]],
    packed: str,
    anew: bool,
) -> None:
    model = Model(tmp_path_factory.mktemp("files") / "a.txt", packed=packed)
    source = TextFiles(model.path, changed="anew" if anew else "stop")
    model.write(b"")
    for what, *given_to_it in [*steps, ("run", 99)]:
        if what != "run":
            model.step(what, *given_to_it)
            continue
        (most,) = given_to_it
        expected = model.unread
        if expected is None and anew:
            expected = lines_of(model.content)
        if most == 0 and expected is not None:
            expected = []
        came = model.run(source, most)
        if most or expected is None:
            assert came == (expected if expected is None else expected[:most])


@pytest.mark.parametrize("packed", PACKINGS)
@pytest.mark.parametrize("changed_at", ["head", "tail"])
def test_of_a_large_file_its_head_and_what_lies_before_the_place_are_known_again(
    tmp_path: Path, packed: str, changed_at: str
) -> None:
    path = tmp_path / "a.txt"
    content = bytearray(b"".join(b"%09d\n" % n for n in range(WINDOW_BYTES // 4)))

    def write() -> None:
        path.write_bytes(PACKINGS[packed](bytes(content)))

    write()
    source = TextFiles(path)
    places = [behind for found, _ in source.batches(str(path), None, 999) for behind in found[::99]]
    for place in places[: -1 : len(places) // 9]:
        ((_, line), *_) = source.read(str(path), place)
        assert int(line) == place[1]
    at = 5 if changed_at == "head" else places[-1][0] - WINDOW_BYTES
    content[at : at + 1] = b"x"
    write()
    with pytest.raises(Changed, match="was changed in what was read"):
        list(source.read(str(path), places[-1]))


def test_what_is_said_of_a_changed_file_is_what_happened_and_what_can_be_done(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n12")
    source = TextFiles(path)
    place = [place for place, _ in source.read(str(path), None)][-1]
    for content, said in (
        ("one\n1234\n", "midst of line 2: it was read as '12' and is '1234' now"),
        ("one\n", "is shorter now"),
        ("two\n12", "was changed in what was read"),
    ):
        path.write_text(content)
        with pytest.raises(Changed, match=r"Up to line 2 \(byte 6\).*changed=\"anew\"") as error:
            list(source.read(str(path), place))
        assert str(error.value).startswith(f"{path} ") and said in str(error.value)
    path.rename(tmp_path / "a.txt.1")
    path.write_text("anything longer\n")
    with pytest.raises(Changed, match="is another file now"):
        list(source.read(str(path), place))


def test_a_line_that_is_being_written_while_it_is_read_is_never_read_in_two_parts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n12")
    batches = TextFiles(path).batches(str(path), None, 2)
    (places, lines) = next(batches)
    assert lines == ["one", "12"]
    with path.open("a") as file:
        file.write("34\nfive\n")
    assert list(batches) == []
    with pytest.raises(Changed, match="'12' and is '1234'"):
        list(TextFiles(path).batches(str(path), places[-1], 2))


def test_a_file_that_is_cut_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    batches = TextFiles(path).batches(str(path), None, 2)
    next(batches)
    os.truncate(path, 2)
    with pytest.raises(SkerryError, match=r"a\.txt can't be read: it was cut below byte 8"):
        list(batches)


def test_a_place_that_is_no_place_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    with pytest.raises(SkerryError, match="17 is no place in a file"):
        list(TextFiles(path).read(str(path), 17))


# ── packed files ──


def lines_read(path: Path, after: Any = None) -> tuple[list[str], Any, str]:
    """The lines that can be read, the position behind them, and the error behind that."""
    lines, place = list[str](), after
    try:
        for at, line in TextFiles(path).read(str(path), after):
            lines.append(line)
            place = at
    except SkerryError as error:
        return lines, place, str(error)
    return lines, place, ""


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_line_may_begin_in_one_packed_part_and_end_in_the_next(
    packing: str, tmp_path: Path
) -> None:
    """Case 60."""
    pack, path = PACKINGS[packing], tmp_path / "a.packed"
    path.write_bytes(pack(b"hel") + pack(b"lo\nx\n") + bytes(512) * (packing == "gzip"))
    assert lines_read(path)[::2] == (["hello", "x"], "")


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_of_a_packed_file_that_breaks_off_what_can_be_read_comes_once(
    packing: str, tmp_path: Path
) -> None:
    """Case 61."""
    path = tmp_path / "a.packed"
    wanted = [f"{n * 7919 % 1000:03} line" for n in range(100)]
    whole = PACKINGS[packing]("".join(f"{line}\n" for line in wanted).encode())
    path.write_bytes(whole[:-5])
    lines, place, error = lines_read(path)
    assert lines == wanted[: len(lines)]
    assert str(path) in error and "can't be read" in error
    for _ in range(3):
        again, place, error = lines_read(path, place)
        assert again == [] and error
    path.write_bytes(whole)
    rest, _, error = lines_read(path, place)
    assert lines + rest == wanted and not error


def test_without_what_reads_zstandard_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(zstd.compress(b"x\n"))
    load = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name in ("compression", "backports"):
            raise ImportError(name)
        return load(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert "pip install skerry[zstd]" in lines_read(path)[2]
