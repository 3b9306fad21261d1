"""The `sp-data` command."""

from sp_data.cli.app import main

__all__ = ["main"]
