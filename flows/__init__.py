"""Prefect flows, composed of `tasks`.

Importing this package sets environment variables that Prefect reads when it is imported, unless they are set already.
"""

import logging
import os

for _name, _value in {
    # The migrations of a new Prefect home take longer than the 20 s it waits for by default.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The library's log lines belong in the run's log; the handler alone would leave out INFO.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "sp_data",
    "PREFECT_LOGGING_ROOT_LEVEL": "INFO",
    # What the command says before its flow run begins is for the terminal.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}.items():
    os.environ.setdefault(_name, _value)

# A line for every request to the server would bury the run's own.
logging.getLogger("httpx").setLevel(logging.WARNING)
