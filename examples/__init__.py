"""Programs for newcomers to read. A test runs each of them."""
