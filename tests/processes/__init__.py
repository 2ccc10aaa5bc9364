"""Real processes: what they do when things go wrong."""
