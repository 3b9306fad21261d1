from __future__ import annotations

import os
import subprocess

from tasks.process_name import is_gone, process_name


def test_a_process_is_gone_once_it_ended_or_its_machine_was_started_again() -> None:
    machine, boot, container, number = process_name().split(" ")
    assert number == str(os.getpid())
    assert not is_gone(process_name())
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert is_gone(f"{machine} {boot} {container} {ended.pid}")
    assert is_gone(f"{machine} another-boot {container} {number}")


def test_nothing_is_said_of_processes_of_other_machines_and_containers() -> None:
    machine, boot, container, _ = process_name().split(" ")
    assert not is_gone(f"another-machine another-boot {container} 999999999")
    assert not is_gone(f"{machine} {boot} another-container 999999999")
