"""How much memory is free: of a CUDA device, or of this machine and the control groups (containers) of this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

CUDA_MARGIN_BYTES = 1_000_000_000
CUDA_MARGIN_SHARE = 0.04
"""Of the whole device: workspaces of cuDNN and cuBLAS, and what the caching allocator cannot use."""
CPU_MARGIN_SHARE = 0.1


def available_bytes(device: torch.device, root: Path = Path("/")) -> int:
    """Bytes of a device that a training can take: what is free now, less a margin.

    On a CPU that is MemAvailable, or what a control group leaves if that is less; `root` is where proc and sys are.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(0, int(free + cached - CUDA_MARGIN_BYTES - CUDA_MARGIN_SHARE * total))
    return int(min([_of_the_machine(root), *_of_control_groups(root)]) * (1 - CPU_MARGIN_SHARE))


def _of_the_machine(root: Path) -> int:
    """The kernel's MemAvailable; all memory where there is no /proc."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _of_control_groups(root: Path) -> Iterator[int]:
    """What the limit of each control group above this process leaves; page cache that can go counts as free."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if not controllers:
            mount, limit, usage, cache = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        # In a container the group's own path may be missing; its limit is then at the top.
        inner = Path(path.lstrip("/"))
        for folder in (root / mount / parent for parent in (inner, *inner.parents)):
            # No such folder, or a limit of "max".
            with contextlib.suppress(FileNotFoundError, ValueError):
                allowed, used = (int((folder / name).read_text(encoding="utf-8")) for name in (limit, usage))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
                yield max(0, allowed - used + int(stat.get(cache, 0)))
