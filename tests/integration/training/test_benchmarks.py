"""Two benchmarks run: that for a GPU on a CPU with tiny networks, so that it works on the day when there is a GPU; and
that of drawing, without a lake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu.py"
PARTS = "smoke,tests,speed,sampling"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("gpu") / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--toy", "--only", PARTS, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    measured: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return measured


def test_every_network_trains_and_samples(figures: dict[str, Any]) -> None:
    assert figures["failed"] == []
    assert {"smoke, prior", "smoke, unet 1", "smoke, unet 2"} <= figures["rows"].keys()


def test_every_network_is_measured_beside_the_peer(figures: dict[str, Any]) -> None:
    for network in ("prior", "unet 1", "unet 2"):
        row = figures["rows"][f"speed, {network}, dalle2-pytorch, bf16"]
        assert row["steps_per_s"] > 0
        assert row["ours_over_this"] > 0
        assert 0 < row["mfu"] < 1


def test_guidance_in_one_pass_draws_the_same_pictures(figures: dict[str, Any]) -> None:
    assert float(figures["rows"]["sampling, unet 1, batch 1"]["greatest_difference"]) < 1e-4


def test_solvers_precisions_and_whole_pictures_are_measured(figures: dict[str, Any]) -> None:
    row = figures["rows"]["sampling, unet 1, batch 1"]
    for figure in ("ddim_steps_per_s", "dpm_steps_per_s", "fp32_steps_per_s", "one_over_two", "rounded_once_over_fp32"):
        assert row[figure] > 0
    drawn = figures["rows"]["sampling, pictures, batch 2"]
    parts = sum(drawn[f"{part}_s"] for part in ("prior", "unet_1", "unet_2"))
    assert drawn["a_picture_s"] == pytest.approx(parts, abs=1e-3)


def test_the_tests_for_a_gpu_can_be_collected_without_the_fixtures_of_the_others(figures: dict[str, Any]) -> None:
    assert figures["rows"]["tests"]["tests collected"] > 0


def test_a_part_that_fails_or_takes_too_long_is_a_row_and_the_next_part_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    # A script that imports it, and gives it three parts.
    script = f"""
import sys, time
sys.path.insert(0, {str(SCRIPT.parent)!r})
import gpu

def fails(plan, results):
    yield "first", {{"figure": 1}}
    raise ValueError("a reason\\nand details")

def hangs(plan, results):
    time.sleep(60)
    yield "", {{}}

def works(plan, results):
    yield "", {{"figure": 2}}

work = [("fails", "here", fails, 30), ("hangs", "", hangs, 2), ("works", "", works, 30)]
gpu.all_work = lambda: [gpu.Work(*fields) for fields in work]
sys.argv = ["gpu.py", "--toy", "--json", {str(file)!r}]
sys.exit(gpu.main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = json.loads(file.read_text("utf-8"))["rows"]
    assert rows["fails, first"] == {"figure": 1}
    assert rows["fails, here"] == {"failed": "ValueError: a reason"}
    assert rows["hangs"]["failed"] == "took longer than 2 s"
    assert rows["works"] == {"figure": 2}


@pytest.mark.proof
def test_drawing_is_measured_without_a_lake_and_faster_than_as_dalle2_laion_draws(tmp_path: Path) -> None:
    script = SCRIPT.with_name("generate.py")
    command = [sys.executable, str(script), "--quick", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures.keys() == {
        "first_picture_s",
        "next_picture_s",
        "over_two_pass",
        "over_ddim_32",
        "guidance_one_pass_over_two",
        "guidance_one_pass_over_two_batch_8",
        "bf16_over_fp32",
        "bf16_over_fp32_batch_8",
        "import_cpu_s",
        "first_picture_cpu_s",
    }
    assert figures["over_two_pass"] >= 4
    assert figures["over_ddim_32"] >= 2.5
    assert figures["guidance_one_pass_over_two"] > 1
    assert 0 < figures["next_picture_s"] < figures["first_picture_s"]
    assert 0 < figures["import_cpu_s"] < figures["first_picture_cpu_s"]
    assert "measuring the precision" in done.stderr
    assert list(tmp_path.iterdir()) == []
