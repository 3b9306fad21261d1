"""A dataset knows its recipe: its name is enough, `--set` changes it, and a stock recipe never takes its place."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sp_data.cli.recipes import recipe_and_lake
from sp_data.errors import RecipeError, StageError
from sp_data.kept_recipe import RECIPE_FILE, recall_recipe, remember_recipe
from sp_data.lake import Lake
from sp_data.recipe import demo, load_recipe

COMMAND = str(Path(sys.executable).with_name("sp-data"))


def sp_data(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SP_LAKE"} | more
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture
def lake(demo_lake: Lake, tmp_path: Path) -> Lake:
    """A copy of the dataset's folder under the name `mywiki`, beside one named `demo`, in ./lake."""
    shutil.copytree(demo_lake.root, tmp_path / "lake" / "demo")
    shutil.copytree(demo_lake.root, tmp_path / "lake" / "mywiki")
    return Lake(str(tmp_path / "lake"), "mywiki")


def test_the_name_of_a_dataset_is_its_recipe(lake: Lake, tmp_path: Path) -> None:
    for command in (["curate", "mywiki"], ["shard", "mywiki"], ["status", "mywiki"], ["verify", "mywiki"]):
        process = sp_data(*command, "--json", cwd=tmp_path)
        assert (process.returncode, process.stderr.count("sp-data:")) == (0, 0), process.stderr
    status = json.loads(sp_data("status", "mywiki", "--json", cwd=tmp_path).stdout)
    assert {stage["state"] for stage in status["stages"]} == {"done", "missing"}


def test_a_command_without_a_name_takes_the_only_dataset(lake: Lake, tmp_path: Path) -> None:
    assert "holds datasets demo, mywiki: say which by its name" in sp_data("embed", cwd=tmp_path).stderr
    shutil.rmtree(tmp_path / "lake" / "demo")
    line = json.loads(sp_data("embed", "--json", cwd=tmp_path).stdout)
    assert (line["dataset"], line["stages"][0]["state"]) == ("mywiki", "unchanged")


def test_a_stock_recipe_never_takes_the_place_of_the_kept_one_in_silence(lake: Lake, tmp_path: Path) -> None:
    process = sp_data("curate", "demo", "--json", cwd=tmp_path)
    assert json.loads(process.stdout)["stages"][0]["state"] == "unchanged", "100 kids, not the stock recipe's 1,600"
    assert re.search(
        r"demo: the dataset's own recipe is taken, not the stock one: .*num_kids = 100 \(stock 1600\)", process.stderr
    )


def test_set_changes_the_kept_recipe_and_says_so(lake: Lake, tmp_path: Path) -> None:
    process = sp_data("curate", "mywiki", "--set", "curate.val_share=0.2", cwd=tmp_path)
    assert "mywiki: curate.val_share = 0.2 (was 0.05), from now on" in process.stderr
    kept = recall_recipe(lake)
    assert kept is not None
    assert (kept.curate.val_share, kept.source.demo) == (0.2, demo().source.demo.model_copy(update={"num_kids": 100}))
    assert json.loads(sp_data("curate", "mywiki", "--json", cwd=tmp_path).stdout)["stages"][0]["state"] == "unchanged"


def test_set_on_a_command_that_only_reads_holds_for_that_command(lake: Lake, tmp_path: Path) -> None:
    before = lake.read_bytes(RECIPE_FILE)
    process = sp_data("status", "--recipe", "mywiki", "--set", "curate.val_share=0.2", cwd=tmp_path)
    assert "mywiki: curate.val_share = 0.2 (was 0.05), for this command" in process.stderr
    assert re.search(r"curate +stale.*the recipe says val_share = 0.2", process.stdout)
    assert lake.read_bytes(RECIPE_FILE) == before


def test_advice_names_a_command_that_exists_and_the_dataset(lake: Lake, tmp_path: Path) -> None:
    elsewhere = sp_data("judge", "mywiki", "--lake", lake.url, cwd=tmp_path)
    assert f"`sp-data train prior mywiki --lake {lake.url}`" in elsewhere.stderr
    for arguments, advice in (
        (["judge", "mywiki"], "`sp-data train prior mywiki`"),
        (["dream", "a kid", "--recipe", "mywiki"], "`sp-data train prior mywiki`"),
        (["embed", "mywiki", "--set", "shard.jpeg_quality=90"], "`sp-data shard mywiki`"),
        (["train", "decoder", "mywiki", "--set", "verify.min_cosine=0.99"], "`sp-data verify mywiki`"),
    ):
        process = sp_data(*arguments, cwd=tmp_path)
        assert process.returncode == 1
        assert advice in process.stderr


def test_an_unknown_name_is_refused_with_the_names_of_datasets_and_recipes(lake: Lake, tmp_path: Path) -> None:
    process = sp_data("run", "mywikki", cwd=tmp_path)
    assert process.returncode == 2
    assert (
        "no recipe 'mywikki': expected demo, mywiki, southpark, southpark_scratch, or a .yaml file; "
        "did you mean mywiki?" in process.stderr
    )


@pytest.mark.parametrize("package", ["flows", "tasks"])
def test_a_package_that_hides_ours_is_named(package: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs" / package
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("raise SystemExit('theirs was imported')")
    process = sp_data("run", "demo", cwd=tmp_path, PYTHONPATH=str(theirs.parent))
    assert process.returncode == 1
    assert f"another package named {package!r} hides sp-data's own" in process.stderr


def test_packages_of_the_same_names_in_the_current_folder_do_not_matter(lake: Lake, tmp_path: Path) -> None:
    for package in ("flows", "tasks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('theirs was imported')")
    # The run ends at the server, which does not answer: the flow was imported before that.
    process = sp_data(
        "run", "mywiki", cwd=tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_HOME=str(tmp_path)
    )
    assert "the Prefect server http://127.0.0.1:9/api does not answer" in process.stderr


def test_the_backport_that_breaks_prefects_server_is_named_at_once(tmp_path: Path) -> None:
    backport = tmp_path / "site" / "dataclasses-0.6.dist-info"
    backport.mkdir(parents=True)
    (backport / "METADATA").write_text("Metadata-Version: 2.1\nName: dataclasses\nVersion: 0.6\n")
    process = sp_data("run", "demo", cwd=tmp_path, PYTHONPATH=str(backport.parent), PREFECT_HOME=str(tmp_path / "home"))
    assert process.returncode == 1
    assert re.search(r"`dataclasses` 0\.6, a backport .* pip uninstall --yes dataclasses`", process.stderr)


def test_a_dataset_keeps_its_name(lake: Lake, tmp_path: Path) -> None:
    """Else its recipe would lie beside another dataset."""
    before = lake.read_bytes(RECIPE_FILE)
    renamed = sp_data("curate", "mywiki", "--set", "name=other", cwd=tmp_path)
    assert (renamed.returncode, lake.read_bytes(RECIPE_FILE)) == (2, before)
    assert "a dataset keeps its name" in renamed.stderr
    shutil.rmtree(tmp_path / "lake" / "demo")
    taken = sp_data("curate", "demo", "--set", "name=mywiki", cwd=tmp_path)
    assert (taken.returncode, lake.read_bytes(RECIPE_FILE)) == (2, before)
    assert "dataset 'mywiki' has a recipe of its own: name it instead of demo" in taken.stderr


def test_a_verification_is_kept_with_what_it_was_told(lake: Lake, tmp_path: Path) -> None:
    verified = sp_data("verify", "mywiki", "--reembed", "0", "--set", "verify.min_cosine=0.99", cwd=tmp_path)
    assert "verify.min_cosine = 0.99 (was 0.999), from now on" in verified.stderr
    status = json.loads(sp_data("status", "mywiki", "--json", cwd=tmp_path).stdout)
    assert {stage["name"]: stage["state"] for stage in status["stages"]}["verify"] == "done"


def test_a_dataset_without_a_recipe_is_said_and_a_stock_name_takes_the_stock_recipe(lake: Lake, tmp_path: Path) -> None:
    lake.remove(RECIPE_FILE)
    done = sp_data("status", "mywiki", cwd=tmp_path)
    assert done.returncode == 2
    assert "dataset 'mywiki' in ./lake keeps no recipe; give the .yaml file that it was made with" in done.stderr
    Lake(str(tmp_path / "lake"), "demo").remove(RECIPE_FILE)
    stock = sp_data("status", "demo", cwd=tmp_path)
    assert "demo: no recipe is kept with the dataset; the stock recipe is taken" in stock.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["judge", "demo", "--pictures", "."], "--pictures judges PNGs by their own prompts"),
        (["reorder", "demo", "--embeddings", "a", "--metadata", "b", "--output", "c"], "reorders a folder without a"),
    ],
)
def test_a_recipe_that_would_be_ignored_is_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = sp_data(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("sets", "field"),
    [
        (["embed.clip_model=/tmp/clip.pt"], "embed.clip_model"),
        (["machines.runner=ray", "machines.ray_address=ray://192.0.2.1:10001"], "machines.ray_address"),
        (["shard.distributor=ray"], "shard.distributor"),
        (["embed.distributor=slurm"], "embed.distributor"),
    ],
)
def test_what_only_a_strangers_lake_names_is_not_loaded_or_connected_to(
    tmp_path: Path, sets: list[str], field: str
) -> None:
    kept = load_recipe("demo", [*sets, "name=theirs"])
    remember_recipe(kept, Lake(str(tmp_path), "theirs"))
    options = {"quiet": True, "keeps": True, "loads_clip": True}
    with pytest.raises(StageError, match=rf"--set {re.escape(field)}="):
        recipe_and_lake("theirs", None, str(tmp_path), **options)
    assert recipe_and_lake("theirs", sets, str(tmp_path), **options)[0] == kept, "it is yours if you say so"


def test_an_option_of_another_machines_queue_is_no_line_of_a_script(tmp_path: Path) -> None:
    from sp_data.dataset.embed.distributed import _arguments

    options = ["embed.distributor=slurm", 'embed.distributor_options={slurm_partition: "x\\nsrun touch PWN"}']
    with pytest.raises(RecipeError, match="slurm_partition"):
        _arguments(["a.tar"], load_recipe("demo", options).embed, tmp_path)
