"""Files cut into parts and put together: the same bytes, or an error that says what is wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.runtime.cluster.parts import File, cut, put_together

contents = st.binary(max_size=300)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from(["data.mdb", "log-1", "log-2"]), contents),
    st.integers(1, 128),
    st.integers(1, 5),
)
def test_what_was_cut_is_put_together_as_it_was(
    files: dict[str, bytes], part_bytes: int, few: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        found: list[File] = []
        sent = list(cut(written(Path(place, "from"), files), part_bytes, found))

        def read(numbers: range) -> list[bytes]:
            assert len(numbers) <= few
            return [sent[number] for number in numbers]

        to = Path(place, "to")
        to.mkdir()
        put_together(to, found, read, few)
        assert {path.name: path.read_bytes() for path in to.iterdir()} == files
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in to.iterdir())
        assert max(map(len, sent), default=0) <= part_bytes


def test_no_bit_of_a_part_can_change_unseen(tmp_path: Path) -> None:
    found: list[File] = []
    folder = written(tmp_path / "from", {"a": b"a" * 40, "b": bytes(range(20))})
    sent = list(cut(folder, 32, found))
    for number, part in enumerate(sent):
        for bit in range(8 * len(part)):
            flipped = bytearray(part)
            flipped[bit // 8] ^= 1 << bit % 8
            changed = [*sent[:number], bytes(flipped), *sent[number + 1 :]]
            to = tmp_path / f"to-{number}-{bit}"
            to.mkdir()
            with pytest.raises(ValueError, match=f"part {number}: its bytes do not match its dig"):
                put_together(to, found, lambda few, c=changed: [c[n] for n in few], 1)


def test_a_part_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    found: list[File] = []
    sent = list(cut(written(tmp_path / "from", {"a": bytes(range(200))}), 100, found))
    swapped = [File("a", 200, found[0].digest, found[0].parts[::-1])]
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="the bytes of a do not match"):
        put_together(tmp_path / "to", swapped, lambda few: [sent[::-1][n] for n in few], 4)


def test_a_file_is_never_written_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="no name of a file"):
        put_together(tmp_path / "to", [File("../a", 0, b"", [])], lambda few: [], 4)
    assert not (tmp_path / "a").exists()
