"""Ready-made sources: every line once, positions that continue, and bad files named."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry import Generate, JsonLines, SkerryError, TextFiles
from skerry.stream.ends import BadRow

LINES = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), max_size=30)


@given(lines=LINES, cut=st.integers(0, 30), packed=st.booleans())
def test_reading_on_behind_any_position_gives_the_rest_of_the_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], cut: int, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / ("a.txt.gz" if packed else "a.txt")
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    source = TextFiles(path)
    (partition,) = source.partitions()
    read = list(source.read(partition, None))
    assert [line for _, line in read] == lines
    if cut < len(read):
        assert list(source.read(partition, read[cut][0])) == read[cut + 1 :]


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SkerryError, match=r"no file nowhere\.txt"):
        TextFiles("nowhere.txt").partitions()
    with pytest.raises(SkerryError, match=r"no file none/\*\.txt"):
        TextFiles("none/*.txt").partitions()


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    source = TextFiles(path)
    (partition,) = source.partitions()
    path.unlink()
    with pytest.raises(SkerryError, match=r"a\.txt can't be read"):
        list(source.read(partition, None))


def test_what_is_no_file_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(SkerryError, match=r"is a folder: name its files, as .*/\*"):
        TextFiles(tmp_path).partitions()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SkerryError, match="pipe is no regular file"):
        TextFiles(pipe).partitions()
    with pytest.raises(SkerryError, match="pipe can't be read: it is no regular file any more"):
        list(TextFiles(pipe).read(str(pipe), None))


@pytest.mark.parametrize("harm", ["cut", "spoilt"])
def test_of_a_packed_file_that_breaks_off_all_that_can_be_read_is_given(
    tmp_path: Path, harm: str
) -> None:
    path = tmp_path / "a.gz"
    packed = bytearray(gzip.compress(random.Random(1).randbytes(100_000).hex(" ").encode()))
    if harm == "spoilt":
        packed[-20_000:] = bytes(20_000)
    path.write_bytes(packed[:-20])
    came: list[object] = []
    with pytest.raises(SkerryError, match=r"a\.gz can't be read"):
        came.extend(item for _, item in TextFiles(path).read(str(path), None))
    assert len(came) == 0  # One line only, and that is not whole.
    lines = b"".join(b"%d\n" % n for n in range(50_000))
    path.write_bytes(gzip.compress(lines)[:-5000])
    with pytest.raises(SkerryError, match=r"a\.gz can't be read"):
        came.extend(item for _, item in TextFiles(path).read(str(path), None))
    assert len(came) > 20_000
    assert came == [str(n) for n in range(len(came))]


def test_json_lines_are_typed_and_empty_ones_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("1\n\n  \n2\n")
    read = list(JsonLines(path, type=int).read(str(path), None))
    assert [(item, place[1]) for place, item in read] == [(1, 1), (2, 4)]


DEEP = "[" * 60_000
"""Deeper than any Python reads: since 3.12 the limit is that of C, some 10,000 levels."""


@pytest.mark.parametrize(
    ("source", "row", "cause"),
    [
        (TextFiles, b"bad \xff here", "not UTF-8: its byte 5 is 0xff"),
        (JsonLines, b"tru", "it is not what was expected"),
        (JsonLines, b"NaN", "it is not what was expected"),
        (JsonLines, b'"\xff"', "it is not what was expected"),
        (JsonLines, b"1\0", "it is not what was expected"),
        (JsonLines, DEEP.encode(), "nested too deep"),
    ],
)
def test_a_bad_row_stops_dies_or_is_skipped_and_no_good_one_with_it(
    tmp_path: Path, source: type[TextFiles] | type[JsonLines[object]], row: bytes, cause: str
) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"1\n2\n" + row + b"\n" + row + b"\r\n3\n" + row)
    good = ["1", "2", "3"] if source is TextFiles else [1, 2, 3]

    came: list[object] = []
    with pytest.raises(SkerryError, match=rf"rows, line 3: .*{cause}.*Mend the line"):
        came.extend(item for _, item in source(path).read(str(path), None))
    assert came == good[:2], "what comes before it is given first"

    skipping = source(path, bad="skip")
    assert [item for _, item in skipping.read(str(path), None)] == good
    assert skipping.skipped == 3

    dying = source(path, bad="dead")
    read: list[tuple[Any, Any]] = list(dying.read(str(path), None))
    rows = [item for _, item in read if isinstance(item, BadRow)]
    assert [item for _, item in read if not isinstance(item, BadRow)] == good
    assert [bad.raw for bad in rows] == [row] * 3
    assert all(cause in bad.error for bad in rows)
    assert [len(items) for _, items in dying.batches(str(path), None, 9)] == [2, 1, 1, 1, 1]

    for place, item in read:  # Behind each of them, a later run reads what follows.
        rest = [found for found in read if found[0][0] > place[0]]
        assert list(source(path, bad="dead").read(str(path), place)) == rest, item


def test_the_source_stops_after_its_limit_of_bad_rows_also_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("x\nx\n1\nx\nx\n")
    read = []
    with pytest.raises(SkerryError, match=r"rows, line 5: .*bad_limit=3 allows"):
        read.extend(JsonLines(path, bad="dead", bad_limit=3).read(str(path), None))
    assert len(read) == 4
    with pytest.raises(SkerryError, match=r"rows, line 4: .*bad_limit=2 allows"):
        list(JsonLines(path, bad="dead", bad_limit=2).read(str(path), read[2][0]))


def test_a_bad_row_that_is_huge_is_kept_in_part(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("x" * 200_000)
    row: Any
    ((_, row),) = JsonLines(path, bad="dead").read(str(path), None)
    assert isinstance(row, BadRow)
    assert (row.raw, "first 65,536 of its 200,000 bytes" in row.error) == (b"x" * 65_536, True)


@pytest.mark.parametrize("wrong", [{"bad": "drop"}, {"changed": "go"}, {"bad_limit": -1}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"TextFiles: {next(iter(wrong))} is"):
        TextFiles("a.txt", **wrong)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbf1\r\n2\r\n")
    read = list(TextFiles(path).read(str(path), None))
    assert [item for _, item in read] == ["1", "2"]
    assert list(TextFiles(path).read(str(path), read[0][0])) == read[1:]
    assert [item for _, item in JsonLines(path, type=int).read(str(path), None)] == [1, 2]
    path.write_bytes(b"\xef\xbb\xbf")
    assert list(TextFiles(path).read(str(path), None)) == []


@pytest.mark.parametrize("codec", ["utf-16", "utf-32"])
@pytest.mark.parametrize("bad", ["stop", "dead", "skip"])
def test_a_file_in_another_encoding_is_refused_as_a_whole(
    tmp_path: Path, codec: str, bad: Any
) -> None:
    path = tmp_path / "a"
    path.write_text("one\ntwo\n", encoding=codec)
    with pytest.raises(SkerryError, match="is not UTF-8 but UTF-16 or UTF-32"):
        list(TextFiles(path, bad=bad).read(str(path), None))


ODD = [
    b"data[1].txt", b"caf\xe9.txt", "caf\u00e9.txt".encode(), b"100%.txt", b"%41.txt",
    b"new\nline.txt", b"a b.txt", b"?.txt", b"*.txt",
]  # fmt: skip


def test_a_file_of_any_name_is_one_partition_whose_name_can_be_stored(tmp_path: Path) -> None:
    for name in ODD:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name.hex().encode())
    by_name = TextFiles(*(os.fsdecode(os.fsencode(tmp_path) + b"/" + name) for name in ODD))
    by_pattern = TextFiles(tmp_path / "*")
    assert by_name.partitions() == by_pattern.partitions()
    found = by_pattern.partitions()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found)) == found
    assert all(name.isprintable() for name in found)
    read = [item for name in found for _, item in by_pattern.read(name, None)]
    assert sorted(read) == sorted(name.hex() for name in ODD)


def test_one_file_is_one_partition_however_it_is_spelled_or_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in[1]" / "a.txt"
    path.parent.mkdir()
    path.write_text("one\n")
    (tmp_path / "link.txt").symlink_to(path)
    (tmp_path / "folder").symlink_to(path.parent)
    (tmp_path / "hard.txt").hardlink_to(path)
    monkeypatch.chdir(path.parent)
    relative = TextFiles("a.txt", "./a.txt", "../in[1]/a.txt", "*.txt", "**/a.txt")
    assert relative.partitions() == TextFiles(path).partitions() == [str(path)]
    for other in ("link.txt", "folder/a.txt", "in[[]1]/../folder/*.txt", "link*"):
        assert TextFiles(tmp_path / other).partitions() == [str(path)], other
    assert len(TextFiles(tmp_path / "*.txt", path).partitions()) == 1, "a hard link is no copy"
    monkeypatch.chdir("/")
    assert relative.partitions() == [str(path)], "the folder counts in which the source was made"


def test_a_packed_file_is_unpacked_by_any_name_and_a_false_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(gzip.compress(b"one\n"))
    (tmp_path / "a.gz").symlink_to("blob")
    source = TextFiles(tmp_path / "a.gz")
    (partition,) = source.partitions()
    assert [item for _, item in source.read(partition, None)] == ["one"]
    assert source.size(partition) is None
    (tmp_path / "b.gz").write_text("one\n")
    with pytest.raises(SkerryError, match=r"b\.gz can't be read: Not a gzipped file"):
        list(source.read(str(tmp_path / "b.gz"), None))


def test_generated_items_are_a_function_of_partition_and_position() -> None:
    source = Generate(lambda partition, at: f"{partition}:{at}", partitions=2, count=5000)
    assert source.partitions() == ["0", "1"]
    read = list(source.read("1", None))
    assert read == [(at, f"1:{at}") for at in range(5000)]
    assert list(source.read("1", 4321)) == read[4322:]
    with pytest.raises(ValueError, match="at least 1"):
        Generate(lambda partition, at: at, partitions=0)
