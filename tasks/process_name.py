"""The name of a process that other machines may read too, and whether it is known from here to be gone."""

from __future__ import annotations

import os
import socket

from sp_data.lake.disk import is_alive
from sp_data.lake.lease import process_namespace


def process_name() -> str:
    """'worker-1 0b5e… pid:[4026531836] 4711': this machine, its boot and container, this process."""
    return " ".join([socket.gethostname(), process_namespace() or "- -", str(os.getpid())])


def is_gone(process: str) -> bool:
    """Whether a process surely ended: this machine was started again since, or has no process of that number."""
    machine, boot, container, number = process.split(" ")
    own_machine, own_boot, own_container, _ = process_name().split(" ")
    if (boot, container) == (own_boot, own_container):
        return not is_alive(number)
    return machine == own_machine and boot != own_boot
