"""Skerry beside what would be picked instead: the same work, in one run, on one machine.

    python -m benchmarks.peers [--only PEER ...] [--seconds N] [--json FILE]

A file a peer, each run in an environment of its own; `load` and `figure` are all that they
share, and need nothing installed. The page is docs/ideas/peers.md, all rows are in results.md.
"""
