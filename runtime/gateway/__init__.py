"""A client comes in: the caller's end, and ours."""
