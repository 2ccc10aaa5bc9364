"""Ready-made sources: text files, JSON lines, CSV, and a generator.

`skerry.sinks` holds what writes. Any object with `partitions` and `read` is a source, too.
"""

from skerry.sources.csv import Csv
from skerry.sources.generate import Generate
from skerry.sources.json_lines import JsonLines
from skerry.sources.lines import TextFiles

__all__ = ["Csv", "Generate", "JsonLines", "TextFiles"]
