"""The command: exit codes, one clear sentence for each mistake, and clean output for programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from demo_clip_folder import CLIP

from sp_data.cli.reference import reference
from sp_data.lake import Lake
from sp_data.pipeline import DATASET_STAGES, STAGES, TRAINING_STAGES
from sp_data.recipe import Recipe

COMMAND = [str(Path(sys.executable).with_name("sp-data"))]


def sp_data(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SP_LAKE"}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, env=environment)


def one_sentence(process: subprocess.CompletedProcess[str]) -> str:
    """The message on standard error, which must be one line of ours without a traceback."""
    lines = [line for line in process.stderr.splitlines() if line.startswith("sp-data: ")]
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["scrape", "demo", "--set", "curate.min_side=1"], 2, r"did you mean 'min_side_px'"),
        (["scrape", "simpsons"], 2, r"no recipe 'simpsons': expected southpark, southpark_scratch, demo, or a \.yaml"),
        (["scrape", "southpark"], 2, r"source\.contact is empty"),
        (["scrape", "southpark", "--set", "source.contact=me@example.org"], 2, r"acknowledge_terms=true"),
        (
            ["curate", "demo"],
            1,
            r"curate needs scrape of dataset 'demo', which is missing; run `sp-data scrape demo` f",
        ),
        (["run", "demo", "--until", "paint"], 2, r"--until paint: expected one of scrape, curate"),
        (["reorder", "--embeddings", "x"], 2, r"--metadata is missing"),
        (["reorder", "--embeddings", "x", "--metadata", "y", "--output", "z"], 1, r"expected the output of clip-retr"),
        (["reorder", "--layout", "5+4"], 2, r"--layout is for --embeddings"),
        (["status"], 2, r"holds no dataset: say which by its name"),
        (["verify"], 2, r"holds no dataset: say which by its name"),
        (["verify", "demo"], 1, r"verify needs scrape .* missing"),
        (["report", "demo"], 1, r"no manifest yet; run `sp-data run demo` first"),
        (["export", "out", "--to", "imagefolder"], 2, r"holds no dataset: say which by its name"),
        (["export", "out", "--to", "kohya", "--recipe", "demo"], 1, r"export needs verify .* missing"),
        (["import", "--shards", "x", "--embeddings", "y", "--name", "z"], 1, r"x holds no NNNNN\.tar: expected"),
        (["scrape", "demo", "--lake", "gopher://x"], 1, r"cannot be opened"),
        (
            ["scrape", "demo", "--set", "source.demo=null", "--set", "source.wiki=http://127.0.0.1:9"],
            1,
            r"127\.0\.0\.1:9",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    process = sp_data(*arguments, cwd=tmp_path)
    assert process.returncode == code, process.stderr
    assert re.search(message, one_sentence(process))
    assert process.stdout == ""


def test_a_prefect_server_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    process = sp_data("run", "demo", cwd=tmp_path)
    assert process.returncode == 1
    assert "the Prefect server http://127.0.0.1:9/api does not answer" in one_sentence(process)


def test_an_unknown_option_is_bad_usage(tmp_path: Path) -> None:
    assert sp_data("scrape", "--fast", cwd=tmp_path).returncode == 2


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert sp_data("--version", cwd=tmp_path).stdout == f"sp-data {metadata.version('sp-data')}\n"


def test_every_command_has_help_and_the_reference_is_current() -> None:
    page = Path(__file__).parents[3].joinpath("docs/cli.md").read_text("utf-8")
    assert page == reference(), "docs/cli.md is not what the commands' help says; run `make docs`"
    commands = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert set(commands) >= {"run", *DATASET_STAGES, "report", "status"}
    listed = re.findall(r"^  (\w+) ", sp_data("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed == commands
    for command in commands:
        section = page.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
        assert "| `--json` |" in section and "| `-q, --quiet` |" in section, f"{command} prints without --json, --quiet"


def test_a_lake_owned_by_another_writer_is_refused(tmp_path: Path) -> None:
    with Lake(str(tmp_path / "lake"), "demo").writer():
        process = sp_data("scrape", "demo", cwd=tmp_path)
    assert process.returncode == 1
    assert f"is being written by process {os.getpid()}" in one_sentence(process)


def test_a_lake_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file")
    process = sp_data("scrape", "demo", cwd=tmp_path)
    assert process.returncode == 1
    assert "choose another --lake" in one_sentence(process)


def test_an_interrupt_is_one_sentence_and_leaves_a_lake_to_go_on_with(tmp_path: Path) -> None:
    command = [
        *COMMAND,
        "scrape",
        "demo",
        "--set",
        "source.demo.num_kids=400",
        "--set",
        "source.requests_per_second=50",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    originals = tmp_path / "lake" / "demo" / "originals"
    deadline = time.monotonic() + 60
    while not originals.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    result = subprocess.CompletedProcess(command, process.returncode, out, err)
    assert result.returncode == 1
    assert "the same command goes on from there" in one_sentence(result)
    assert not (tmp_path / "lake" / "demo" / "manifests").exists()
    assert not any(path.is_file() for path in (tmp_path / "lake" / "demo" / ".scratch").rglob("*"))


def test_json_is_the_only_thing_on_standard_output(lake_copy: Lake) -> None:
    place = str(Path(lake_copy.root).parent)
    status = json.loads(sp_data("status", "--lake", place, "--json").stdout)
    assert [stage["name"] for stage in status["stages"]] == list(STAGES)
    states = {stage["name"]: stage["state"] for stage in status["stages"]}
    assert states == dict.fromkeys(DATASET_STAGES, "done") | dict.fromkeys(TRAINING_STAGES, "missing")
    done_stages = [stage for stage in status["stages"] if stage["state"] == "done"]
    assert all(stage["bytes"] is not None and stage["digest"] and stage["made_at"] for stage in done_stages)
    verified = json.loads(sp_data("verify", "--lake", place, "--json", "--reembed", "0").stdout)
    assert verified["ok"] is True
    assert verified["problems"] == []
    assert verified["checked"] >= 95


def test_an_export_says_what_it_wrote_and_refuses_an_unknown_format(demo_lake: Lake, tmp_path: Path) -> None:
    lake = ["--lake", str(Path(demo_lake.root).parent)]
    export = json.loads(
        sp_data("export", "out", "--to", "imagefolder", "--split", "val", "--json", *lake, cwd=tmp_path).stdout
    )
    assert export["samples"] == export["splits"]["val"] == len(list((tmp_path / "out" / "val").rglob("*.jpg"))) > 0
    assert export["dropped"] == {}
    process = sp_data("export", "out", "--to", "zip", *lake, cwd=tmp_path)
    assert process.returncode == 2
    assert "--to zip: expected one of dalle2-pytorch, imagefolder, kohya" in one_sentence(process)


def test_a_failed_verification_lists_every_problem(lake_copy: Lake) -> None:
    for number in (0, 1):
        Path(lake_copy.full(f"reordered/{CLIP}/img_emb/img_emb_0000{number}.npy")).unlink()
    place = str(Path(lake_copy.root).parent)
    process = sp_data("verify", "--lake", place, "--json", "--reembed", "0")
    assert process.returncode == 1
    report = json.loads(process.stdout)
    assert report["ok"] is False
    assert {problem["file"] for problem in report["problems"]} == {
        f"reordered/{CLIP}/img_emb/img_emb_00000.npy",
        f"reordered/{CLIP}/img_emb/img_emb_00001.npy",
    }
    plain = sp_data("verify", "--lake", place, "--reembed", "0")
    assert plain.returncode == 1
    assert "img_emb_00000.npy" in one_sentence(plain)
    assert "more: --json lists them" in one_sentence(plain)


@pytest.mark.parametrize(
    ("path", "command", "message"),
    [
        ("recipe.json", ["status"], r"recipe\.json is not a valid recipe"),
        ("catalogue/*.parquet", ["curate", "RECIPE"], r"catalogue/.*\.parquet is not a complete parquet file"),
        ("curated/*[0-9a-f].parquet", ["shard", "RECIPE"], r"curated/.*\.parquet is not a complete parquet file"),
        ("manifests/embed/latest.json", ["reorder", "RECIPE"], r"manifests/embed/latest\.json is not a valid manifest"),
        ("shards/00000.parquet", ["verify", "--reembed", "0"], r"shards/00000\.parquet is not a complete parquet file"),
    ],
)
def test_garbage_in_the_lake_is_named(
    path: str, command: list[str], message: str, lake_copy: Lake, demo_recipe: Recipe, tmp_path: Path
) -> None:
    for file in Path(lake_copy.root).glob(path):
        if not file.name.endswith(".dropped.parquet"):
            file.write_bytes(b"x" * file.stat().st_size)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(demo_recipe.model_dump_json())
    arguments = [str(recipe) if argument == "RECIPE" else argument for argument in command]
    process = sp_data(*arguments, "--lake", str(Path(lake_copy.root).parent))
    assert process.returncode == 1
    assert re.search(message, one_sentence(process))


def test_quiet_says_nothing(lake_copy: Lake) -> None:
    place = str(Path(lake_copy.root).parent)
    process = sp_data("verify", "--lake", place, "--quiet")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_the_command_and_the_library_start_without_what_they_do_not_need() -> None:
    """`sp-data --help` must be quick: no torch, no Prefect and no numpy until a command needs them."""
    code = "import sys, sp_data.cli; print([m for m in ('torch', 'prefect', 'numpy', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
