"""Ready-made sinks: JSON lines.

`skerry.sources` holds what reads. Any object with `write` is a sink, too.
"""

from skerry.sinks.json_lines import JsonLines

__all__ = ["JsonLines"]
