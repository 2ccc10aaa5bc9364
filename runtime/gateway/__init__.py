"""Where clients come in: the caller's end of a line, and the worker's."""
