"""`python -m sp_data.cli`: the command without its script."""

from sp_data.cli.app import main

main()
