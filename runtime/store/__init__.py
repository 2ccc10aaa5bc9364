"""Down to the disk: a shard's log and rows in LMDB."""
