"""Programs that a newcomer reads; each is run by a test."""
