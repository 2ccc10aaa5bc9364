"""Across to the next shard."""
