"""The disk of a local lake: its errors as ours, and scratch folders that name the process that made them.

.scratch/shard-3f2a91bc.4711-x8f2a     purpose, machine, process
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from sp_data.errors import LakeError, LakeFull
from sp_data.lake.lease import process_namespace

OTHERS_KEPT_S = 86_400
"""How long a scratch folder of another machine is left alone."""
SCRATCH_NAME = re.compile(r"(?P<purpose>.+)-(?:(?P<machine>[^.-]+)\.)?(?P<process>\d+)-(?P<random>[^-]+)")


@contextlib.contextmanager
def disk_errors(target: str, cure: str = "choose another --lake") -> Iterator[None]:
    """Turn the operating system's 'no space' and 'not permitted' into LakeFull and LakeError, which advises `cure`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LakeFull(f"no space left for {target}; free some, then run the same command again") from error
        if isinstance(error, PermissionError | NotADirectoryError) or error.errno == errno.EROFS:
            raise LakeError(f"{target} cannot be written ({error.strerror}); {cure}") from error
        raise


def scratch_prefix(purpose: str) -> str:
    """The prefix of this process's scratch folders; it lets a writer tell abandoned folders from those in use."""
    return f"{purpose}-{_machine()}.{os.getpid()}-"


def abandoned_in(scratch: Path) -> tuple[Path, ...]:
    """The scratch folders whose process is gone."""
    folders = scratch.iterdir() if scratch.exists() else ()
    return tuple(folder for folder in folders if not folder.is_symlink() and _is_abandoned(folder))


def is_alive(process: str) -> bool:
    """Whether a process with this number runs on this machine."""
    return process.isdigit() and Path(f"/proc/{process}").exists()


def _is_abandoned(folder: Path) -> bool:
    """Whether a scratch folder's process is gone. On a shared disk, whether another machine's process still runs cannot
    be seen from here: its folders count as abandoned a day after they were made."""
    match = SCRATCH_NAME.fullmatch(folder.name)
    if match is None:
        return True
    if match["machine"] in (None, _machine()):
        return not is_alive(match["process"])
    with contextlib.suppress(FileNotFoundError):
        return time.time() - folder.stat().st_mtime > OTHERS_KEPT_S
    return False


def _machine() -> str:
    """A hash of this machine's boot and the container: process numbers are valid only within them."""
    return hashlib.sha256(process_namespace().encode()).hexdigest()[:8]
