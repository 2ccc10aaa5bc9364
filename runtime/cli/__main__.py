"""`python -m skerry.runtime.cli`: the launcher without its console script."""

from skerry.runtime.cli import main

main()
