"""Each port's promises, kept by every adapter of it."""
