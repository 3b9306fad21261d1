"""The log lines that Prefect keeps and prints: one line of plain text each, whatever titles and answers they hold."""

from __future__ import annotations

import logging

# Its import sets up the handlers.
import prefect.main  # noqa: F401

from sp_data.foreign_text import OneLineFilter

LOGGERS = ("prefect", "prefect.extra", "prefect.flow_runs", "prefect.task_runs", "sp_data")


def plain_logs() -> None:
    """Have the handlers that Prefect gave these loggers show control characters instead of passing them on."""
    for handler in (handler for name in LOGGERS for handler in logging.getLogger(name).handlers):
        if not any(isinstance(known, OneLineFilter) for known in handler.filters):
            handler.addFilter(OneLineFilter())
