"""Ready-made sinks: JSON lines, CSV, text, and what is printed.

`skerry.sources` holds what reads. Any object with `write` is a sink, too.
"""

from skerry.sinks.csv import Csv
from skerry.sinks.json_lines import JsonLines
from skerry.sinks.printing import Print
from skerry.sinks.text import Text

__all__ = ["Csv", "JsonLines", "Print", "Text"]
