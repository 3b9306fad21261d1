"""What is free of a device, on machines made of files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sp_data.training.memory.free import available_bytes

KB, GB = 1024, 10**9
CPU = torch.device("cpu")


def machine(root: Path, free_kb: int, files: dict[str, str]) -> Path:
    written = {"proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {free_kb} kB\nSwapFree: 5 kB\n", **files}
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_cpu_has_what_the_kernel_calls_available_less_a_tenth(tmp_path: Path) -> None:
    assert available_bytes(CPU, machine(tmp_path, 1000, {})) == 900 * KB


@pytest.mark.parametrize("folder", ["box/inner", "box", ""])
def test_a_limit_of_any_control_group_above_counts(tmp_path: Path, folder: str) -> None:
    at = f"sys/fs/cgroup/{folder}"
    limits = {
        f"{at}/memory.max": f"{1000 * KB}\n",
        f"{at}/memory.current": f"{900 * KB}\n",
        f"{at}/memory.stat": f"anon 5\ninactive_file {300 * KB}\n",
    }
    root = machine(tmp_path, 5000, {"proc/self/cgroup": "0::/box/inner\n", **limits})

    assert available_bytes(CPU, root) == 360 * KB


def test_a_control_group_without_a_limit_does_not_count(tmp_path: Path) -> None:
    files = {"memory.max": "max\n", "memory.current": "900\n", "memory.stat": "inactive_file 1\n"}
    group = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}

    assert available_bytes(CPU, machine(tmp_path, 1000, {"proc/self/cgroup": "0::/\n", **group})) == 900 * KB


def test_a_limit_of_the_first_version_of_control_groups_counts(tmp_path: Path) -> None:
    at = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "9:cpu,cpuacct:/a\n4:memory:/a/b\n",
        f"{at}/memory.limit_in_bytes": f"{500 * KB}\n",
        f"{at}/memory.usage_in_bytes": f"{400 * KB}\n",
        f"{at}/memory.stat": "cache 7\ntotal_inactive_file 0\n",
    }

    assert available_bytes(CPU, machine(tmp_path, 5000, files)) == 90 * KB


def test_a_cuda_device_has_what_is_free_less_a_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * GB)

    assert available_bytes(torch.device("cuda")) == pytest.approx((70 + 2 - 1 - 0.04 * 80) * GB)
