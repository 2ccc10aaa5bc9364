"""Ready-made sources: every line once, positions that continue, and bad files named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry import Generate, JsonLines, SkerryError, TextFiles

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


def test_a_file_that_vanished_or_shrank_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    source = TextFiles(path)
    with pytest.raises(SkerryError, match="shorter now"):
        list(source.read(str(path), 100))
    path.unlink()
    with pytest.raises(SkerryError, match=r"a\.txt can't be read"):
        list(source.read(str(path), None))


def test_a_byte_that_is_not_utf8_is_named_by_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nbad \xff here\n")
    with pytest.raises(SkerryError, match="byte 0xff at offset 9"):
        list(TextFiles(path).read(str(path), None))


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"line\n" * 10_000)[:-20])
    with pytest.raises(SkerryError, match="can't be read"):
        list(TextFiles(path).read(str(path), None))


def test_json_lines_are_typed_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("1\n\n2\n")
    assert [item for _, item in JsonLines(path, type=int).read(str(path), None)] == [1, 2]
    path.write_text('1\n"two"\n')
    with pytest.raises(SkerryError, match="ends at byte 8"):
        list(JsonLines(path, type=int).read(str(path), None))


def test_generated_items_are_a_function_of_partition_and_position() -> None:
    source = Generate(lambda partition, at: f"{partition}:{at}", partitions=2, count=5000)
    assert source.partitions() == ["0", "1"]
    read = list(source.read("1", None))
    assert read == [(at, f"1:{at}") for at in range(5000)]
    assert list(source.read("1", 4321)) == read[4322:]
    with pytest.raises(ValueError, match="at least 1"):
        Generate(lambda partition, at: at, partitions=0)
