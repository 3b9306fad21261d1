"""A run's log without the tracebacks of errors that are a sentence: they name the cause and the cure already.

With PREFECT_LOGGING_LEVEL=DEBUG they stay in.
"""

from __future__ import annotations

import errno
import logging

from sp_data.errors import SpDataError, system_sentence
from sp_data.foreign_text import one_line

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def sentence_of(error: BaseException) -> str | None:
    """What an error of our own kind, or a full disk, has to say in one line; None for any other."""
    if isinstance(error, SpDataError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return one_line(system_sentence(error))
    return None


def keep_log_plain() -> None:
    """Filter the logs of this process's runs from now on; again changes nothing."""
    for name, log_filter in _FILTERS.items():
        logging.getLogger(name).addFilter(log_filter)


class _WithoutTraceback(logging.Filter):
    """`drop`: the whole line, which says nothing but that there was an error."""

    def __init__(self, *, drop: bool) -> None:
        super().__init__()
        self._drop = drop

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or sentence_of(error) is None or logging.getLogger("prefect").isEnabledFor(logging.DEBUG):
            return True
        record.exc_info = record.exc_text = None
        return not self._drop


_FILTERS = {
    # Prefect tells a flow's error as "unexpected" a second and a third time; the flow has said it.
    "prefect.flow_runs": _WithoutTraceback(drop=True),
    "prefect.engine": _WithoutTraceback(drop=True),
    "prefect.task_runs": _WithoutTraceback(drop=False),
}
