"""`python -m remit.cli`."""

from remit.cli.app import main

main()
