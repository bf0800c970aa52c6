"""`python -m taximeter`, the same as the `taximeter` command."""

from taximeter.cli import main

main()
