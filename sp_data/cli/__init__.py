"""The `sp-data` command.

app.py         the command as a whole, and how it fails
pipeline.py    run, the stages, train, verify, status, report
pictures.py    dream, judge
provenance.py  explain, serve-search
exchange.py    import, export, layout
upkeep.py      why, forget, compact, gc
options.py     options that commands share;  recipes.py which recipe a command means
terminal.py    bars, lines and tables;  output.py JSON

Exit 0: done; 1: failed, with the cause and the cure in one line; 2: bad usage. `--json` prints one object on standard
output and nothing else there. What takes long to import is imported when it is needed.
"""

from sp_data.cli.app import main

__all__ = ["main"]
