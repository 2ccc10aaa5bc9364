"""Streams of items: declared as a graph, then compiled into passes over lists.

builder.py   app.source(…).flat_map(split).key_by(word).to(Word.seen)
graph.py     what that declares: frozen nodes with stable names
compile.py   what a shard runs: for each batch of items one pass a node
"""
