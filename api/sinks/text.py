"""Text: a sink that writes a folder of text files, an item on each line."""

from __future__ import annotations

from collections.abc import Sequence

from skerry.sinks.folder import RowFolder


class Text(RowFolder):
    """A sink that writes texts to files in a folder, one on each line, as UTF-8.

    Each partition is a file, such as `alerts/0.txt`, and every item is there exactly once, whatever
    crashes, as with `sinks.JsonLines`. Only this sink may change the files.

    The source that reads such files is `skerry.sources.TextFiles`.

    Args:
        folder: the path of the folder, which is made when the first item comes.

    Raises:
        TypeError: it is no path.
        ValueError: it is empty, or holds a NUL.

    Example:
        >>> app.stream(alerts).sink(sinks.Text("alerts"))
    """

    suffix = ".txt"

    def check(self, item: object, /) -> None:
        """Refuse an item that would not be one line.

        Raises:
            TypeError: it is no text.
            ValueError: it has a line end in it, or no UTF-8 encoding.
        """
        if not isinstance(item, str):
            raise TypeError(f"a line is a str, not {type(item).__name__}")
        if "\n" in item or "\r" in item:
            raise ValueError("it has a line end in it: emit a text for each line")
        item.encode()

    def encode(self, item: str) -> bytes:
        return f"{item}\n".encode()

    def is_whole(self, row: bytes) -> bool:
        return row.endswith(b"\n")

    def write(self, partition: str, sequence: int, items: Sequence[str], /) -> None:
        """Append the items that are not there yet, and sync the file.

        Raises:
            SkerryError: as for `sinks.JsonLines`.
        """
        super().write(partition, sequence, items)
