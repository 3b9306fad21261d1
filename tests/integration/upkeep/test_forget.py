"""Forgetting a picture: it leaves the dataset at once, is never fetched again, and models that saw it are named."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
from foreign_dataset import foreign
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pytest_httpserver import HTTPServer
from stages import scrape

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import read_kept
from sp_data.dataset.loader.samples import Samples
from sp_data.dataset.shards.tars import tar_keys
from sp_data.dataset.verify import VerifyOptions
from sp_data.demo.wiki.history import upload
from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.world import World, build_world
from sp_data.errors import CorruptFile, UsageError
from sp_data.exchange.export.run import export, form_of
from sp_data.exchange.imports.run import import_dataset
from sp_data.kept_recipe import recall_recipe
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import DATASET_STAGES, run_stage, stand
from sp_data.recipe import Recipe, Source
from sp_data.training.seen import saw_forgotten
from sp_data.upkeep.collect_garbage import collect
from sp_data.upkeep.forget import _remove_reports, forget
from sp_data.upkeep.why import fate_of, fates
from sp_data.wiki.catalogue import CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.forgotten import PATH, read_forgotten

from .conftest import checkpoint, interrupted_after

COMMAND = str(Path(sys.executable).with_name("sp-data"))
KID, TWIN = "File:Gus Stone.png", "File:Gus Stone copy.png"


def latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    assert manifest is not None
    return manifest


def rows_of(lake: Lake) -> dict[str, CatalogueRow]:
    return {row.title: row for row in catalogue_rows(read_catalogue(lake, latest(lake, "scrape")))}


def titles_alive(lake: Lake) -> set[str]:
    return {fate.title for fate in fates(lake) if fate.key and not fate.reason}


def states(recipe: Recipe, lake: Lake) -> dict[str, str]:
    return {name: status.state for name, status in stand(recipe, lake, until="verify").items()}


def digests(lake: Lake) -> dict[str, str]:
    return {stage: latest(lake, stage).digest for stage in DATASET_STAGES}


def in_train(lake: Lake) -> str:
    """A picture of the training split that no other picture resembles."""
    return in_split(lake, "train")


def in_split(lake: Lake, split: str) -> str:
    table = read_kept(lake, latest(lake, "curate"), ["title", "split"]).to_pylist()
    return next(row["title"] for row in table if row["split"] == split and row["title"] != KID)


def test_a_forgotten_picture_is_gone_at_once_and_the_dataset_stays_valid(
    demo_recipe: Recipe, demo_lake: Lake, lake_copy: Lake, tmp_path: Path
) -> None:
    before, alive = rows_of(demo_lake), titles_alive(demo_lake)
    sha1 = before[KID].sha1
    lake_copy.write_bytes(f"quarantine/sha1-mismatch-{sha1}.png", b"not what it says")
    lake_copy.write_bytes("quarantine/odd.png", lake_copy.read_bytes(before[KID].original or ""))
    lake_copy.write_bytes("reports/verify-1.html", f"<b>{KID}</b>".encode())
    lake_copy.write_bytes("reports/verify-2.html", b"<b>others</b>")

    outcome = forget(["Gus_Stone.png"], demo_recipe, lake_copy)

    assert outcome.is_new
    assert outcome.titles == (TWIN, KID), "the same bytes under another name are forgotten too"
    assert outcome.stages == DATASET_STAGES[1:]
    assert (outcome.stale, outcome.checkpoints, outcome.stand_ins) == ("", (), {})
    (key,) = outcome.keys
    assert key in latest(lake_copy, "verify").details["tombstones"]
    assert states(demo_recipe, lake_copy) == dict.fromkeys(DATASET_STAGES, "done")
    assert titles_alive(lake_copy) == alive - {KID}
    for title in (KID, TWIN):
        assert rows_of(lake_copy)[title].status == "forgotten"
        assert rows_of(lake_copy)[title].original is None
    assert latest(lake_copy, "scrape").counts.dropped["forgotten"] == 2
    assert not any(
        sha1 in path for folder in ("originals", "normalised", "quarantine") for path in lake_copy.list(folder)
    )
    assert lake_copy.list("quarantine") == []
    assert [path for path in lake_copy.list("reports") if path.endswith(".html")] == ["reports/verify-2.html"]

    run_stage("verify", demo_recipe, lake_copy, options=VerifyOptions(deep=True))

    verified = latest(lake_copy, "verify")
    for split in ("train", "val", "test"):
        with Samples(verified, lake_copy, split) as samples:
            assert key not in {samples[index]["key"] for index in range(len(samples))}
    result = export(
        verified, form_of("imagefolder", verified, demo_recipe), lake_copy, tmp_path / "out", to="imagefolder"
    )
    assert result.num_samples == len(alive) - 1
    assert not [path for path in (tmp_path / "out").rglob("metadata.jsonl") if KID in path.read_text()]


def test_a_second_time_changes_nothing(demo_recipe: Recipe, lake_copy: Lake) -> None:
    first = forget([KID], demo_recipe, lake_copy)
    before = digests(lake_copy), lake_copy.read_bytes(PATH)
    again = forget([TWIN], demo_recipe, lake_copy)
    assert (again.is_new, again.stages) == (False, ())
    assert (again.titles, again.keys) == (first.titles, first.keys)
    assert (digests(lake_copy), lake_copy.read_bytes(PATH)) == before
    assert {entry.title for entry in read_forgotten(lake_copy).entries} == {KID, TWIN}


@pytest.mark.parametrize("reconcile", [False, True])
def test_no_scrape_fetches_or_revives_it(demo_recipe: Recipe, lake_copy: Lake, reconcile: bool) -> None:
    sha1 = rows_of(lake_copy)[KID].sha1
    forget([KID], demo_recipe, lake_copy)
    before = digests(lake_copy)
    assert run_stage("scrape", demo_recipe, lake_copy, reconcile=reconcile).state == "unchanged"
    assert digests(lake_copy) == before
    assert states(demo_recipe, lake_copy) == dict.fromkeys(DATASET_STAGES, "done")
    assert not any(sha1 in path for path in lake_copy.list("originals"))


def test_a_fresh_scrape_with_the_list_has_the_same_digest(demo_recipe: Recipe, lake_copy: Lake, tmp_path: Path) -> None:
    forget([KID], demo_recipe, lake_copy)
    fresh = Lake(str(tmp_path / "fresh"), "demo")
    fresh.write_bytes(PATH, lake_copy.read_bytes(PATH))
    assert scrape(demo_recipe.source, fresh).manifest.digest == latest(lake_copy, "scrape").digest


def test_neither_its_title_nor_its_bytes_come_back(tmp_path: Path) -> None:
    """The wiki later has other bytes under its title, and its bytes under another title."""
    world: World = build_world(24, 7)
    name = world.kids[0].name + ".png"
    lake = Lake(str(tmp_path / "lake"), "kids")

    def scraped(world: World) -> dict[str, str]:
        with DemoWikiServer(world) as wiki:
            source = Source.model_validate({"wiki": wiki.origin, "select": "all", "requests_per_second": 0})
            scrape(source, lake, proxy=wiki.url)
        return {row.title: row.status for row in rows_of(lake).values()}

    assert scraped(world)[f"File:{name}"] == "ok"
    recipe = Recipe.model_validate({"name": "kids", "source": {"wiki": "http://paper-kids.localhost", "select": "all"}})
    forget([f"File:{name}"], recipe, lake)
    data = world.files[name].data
    statuses = scraped(
        upload(upload(world, "Elsewhere.png", data), name, world.files[world.kids[1].name + ".png"].data)
    )
    assert (statuses[f"File:{name}"], statuses["File:Elsewhere.png"]) == ("forgotten", "forgotten")
    sha1 = hashlib.sha1(data).hexdigest()
    assert not any(sha1 in path for path in lake.list("originals"))


def test_a_list_of_addresses_forgets_too(httpserver: HTTPServer, lake_copy: Lake, tmp_path: Path) -> None:
    httpserver.expect_request("/robots.txt").respond_with_data("", status=404)
    kids = [lake_copy.read_bytes(path) for path in lake_copy.list("originals")[:2]]
    for name, data in {"a.png": kids[0], "b.png": kids[1], "a-again.png": kids[0], "a-later.png": kids[0]}.items():
        httpserver.expect_request(f"/{name}").respond_with_data(data)
    list_file = tmp_path / "kids.txt"

    def source(*names: str) -> Source:
        list_file.write_text("\n".join(httpserver.url_for(f"/{name}") for name in names))
        politeness = {"contact": "me@example.org", "acknowledge_terms": True, "requests_per_second": 50}
        return Source.model_validate({"addresses": str(list_file), "allow_private_addresses": True, **politeness})

    lake, fresh = Lake(str(tmp_path / "lake"), "kids"), Lake(str(tmp_path / "fresh"), "kids")
    names = ["a.png", "b.png", "a-again.png"]
    scrape(source(*names), lake)
    recipe = Recipe.model_validate({"name": "kids", "source": source(*names).model_dump()})
    assert str(fate_of(httpserver.url_for("/b.png"), lake)).startswith(f"{httpserver.url_for('/b.png')}: kept")
    outcome = forget([httpserver.url_for("/a.png")], recipe, lake)
    assert {title.rpartition("/")[2] for title in outcome.titles} == {"a.png", "a-again.png"}
    assert (len(lake.list("originals")), lake.list("quarantine")) == (1, [])
    after = latest(lake, "scrape").digest
    num_requests = len(httpserver.log)
    assert scrape(source(*names), lake).manifest.digest == after
    assert len(httpserver.log) == num_requests, "the forgotten picture is not requested"
    fresh.write_bytes(PATH, lake.read_bytes(PATH))
    assert scrape(source(*names), fresh).manifest.digest == after
    scrape(source(*names, "a-later.png"), lake)
    assert {row.name: row.status for row in rows_of(lake).values()} == {
        "A.png": "forgotten",
        "B.png": "ok",
        "A-again.png": "forgotten",
        "A-later.png": "forgotten",
    }
    assert len(lake.list("originals")) == 1


def test_checkpoints_that_saw_it_are_named_with_their_descendants(demo_recipe: Recipe, lake_copy: Lake) -> None:
    title = in_train(lake_copy)
    first_dataset = latest(lake_copy, "verify").digest
    checkpoint(lake_copy, "decoder-11111111", first_dataset)
    forget([KID], demo_recipe, lake_copy)
    second_dataset = latest(lake_copy, "verify").digest
    assert second_dataset != first_dataset
    checkpoint(lake_copy, "decoder-22222222", second_dataset)
    outcome = forget([title], demo_recipe, lake_copy)
    assert [str(trained) for trained in outcome.checkpoints] == ["decoder-11111111 step 4", "decoder-22222222 step 4"]
    third_dataset = latest(lake_copy, "verify").digest
    checkpoint(lake_copy, "prior-33333333", third_dataset)
    checkpoint(lake_copy, "decoder-44444444", third_dataset, ancestor="decoder-22222222/step-00000004/abc")
    checkpoint(lake_copy, "decoder-55555555", third_dataset, ancestor="decoder-44444444/step-00000004/abc")
    checkpoint(lake_copy, "decoder-66666666", "f" * 64)
    again = forget([title], demo_recipe, lake_copy)
    assert {trained.run[-1] for trained in again.checkpoints} == {"1", "2", "4", "5"}
    assert [trained.run for trained in again.checkpoints_unknown] == ["decoder-66666666"]
    assert {trained.run[-1] for trained in forget([KID], demo_recipe, lake_copy).checkpoints} == {"1"}, (
        "run 2 began without the picture"
    )


def write_generated(lake: Lake, name: str, unet: dict[str, object]) -> None:
    """A picture that says that this unet drew it."""
    info, out = PngInfo(), io.BytesIO()
    info.add_itxt("sp-data", json.dumps({"prompt": "a kid", "decoder": [unet]}))
    Image.new("RGB", (2, 2)).save(out, "PNG", pnginfo=info)
    lake.write_bytes(f"generated/{name}.png", out.getvalue())


def test_an_adopted_checkpoint_that_saw_it_is_named_too(demo_recipe: Recipe, lake_copy: Lake) -> None:
    title = in_train(lake_copy)
    record = {"name": "mine", "kind": "decoder", "unet": 1, "run": "decoder-unet1-11111111"}
    saw = {**record, "dataset": latest(lake_copy, "verify").digest}
    lake_copy.write_bytes("weights/mine/adopted.json", json.dumps(saw).encode())
    checkpoint(lake_copy, "decoder-unet1-22222222", "f" * 64)
    old = {**record, "run": "decoder-unet1-22222222", "dataset": "f" * 64}
    lake_copy.write_bytes("weights/old/adopted.json", json.dumps(old).encode())
    of_another_lake = {**record, "run": "decoder-unet1-33333333", "dataset": "e" * 64}
    lake_copy.write_bytes("weights/theirs/adopted.json", json.dumps(of_another_lake).encode())
    lake_copy.write_bytes("weights/laion/adopted.json", json.dumps({"name": "laion", "kind": "prior"}).encode())
    for name in ("mine", "laion"):
        write_generated(lake_copy, name, {"file": f"weights/{name}", "weights": "0" * 64})
    outcome = forget([title], demo_recipe, lake_copy)
    assert [one.folder for one in outcome.checkpoints] == ["weights/mine"]
    unknown = [one.folder for one in outcome.checkpoints_unknown]
    assert unknown == ["runs/decoder-unet1-22222222/checkpoints/step-00000004", "weights/old"]
    assert outcome.num_generated == 1
    assert "seen by weights/mine (of decoder-unet1-11111111): weights/mine" in list(outcome.lines())
    saw = {one.checkpoint.folder: one for one in saw_forgotten(lake_copy)}
    saw_it, perhaps = saw["weights/mine"], saw["weights/old"]
    assert saw_it.line(lake_copy) == (
        f"unet 1: weights/mine of decoder-unet1-11111111 saw 1 forgotten picture ({title}); adopted: delete "
        f"{lake_copy.full('weights/mine')} to be rid of it"
    )
    assert "weights/old" in perhaps.line(lake_copy) and "may have seen" in perhaps.line(lake_copy)
    assert saw_it.as_json()["step"] is None and saw_it.as_json()["checkpoint"] == "weights/mine"


@pytest.mark.parametrize("folder", ["normalised", "normalised/1", "normalised/4-64", "originals/large"])
def test_files_of_the_picture_are_removed_from_every_folder_of_a_stage(
    folder: str, demo_recipe: Recipe, lake_copy: Lake
) -> None:
    title = in_train(lake_copy)
    (sha1,) = read_kept(lake_copy, latest(lake_copy, "curate")).filter(pc.field("title") == title)["sha1"].to_pylist()
    gone, other = f"{folder}/{sha1[:2]}/{sha1}.64.png", f"{folder}/{sha1[:2]}/{sha1[:-1]}x.png"
    for path in (gone, other):
        lake_copy.write_bytes(path, b"a picture")
    forget([title], demo_recipe, lake_copy)
    assert (lake_copy.exists(gone), lake_copy.exists(other)) == (False, True)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_checkpoint_did_not_see_a_held_out_picture(demo_recipe: Recipe, lake_copy: Lake, split: str) -> None:
    checkpoint(lake_copy, "decoder-11111111", latest(lake_copy, "verify").digest)
    outcome = forget([in_split(lake_copy, split)], demo_recipe, lake_copy)
    assert outcome.keys
    assert (outcome.checkpoints, outcome.checkpoints_unknown) == ((), ())


def test_generated_pictures_of_those_checkpoints_are_counted(demo_recipe: Recipe, lake_copy: Lake) -> None:
    checkpoint(lake_copy, "decoder-11111111", latest(lake_copy, "verify").digest)
    write_generated(lake_copy, "odd", {"run": "decoder-11111111", "step": "4"})
    for number, step in enumerate((4, 4, 8)):
        write_generated(lake_copy, str(number), {"run": "decoder-11111111", "step": step})
    lake_copy.write_bytes("generated/mine.png", b"no picture")
    outcome = forget([in_train(lake_copy)], demo_recipe, lake_copy)
    assert outcome.num_generated == 2
    assert "2 pictures in generated/ were made by these checkpoints" in outcome.lines()


def test_a_lost_shard_that_held_it_comes_back_without_it(demo_recipe: Recipe, lake_copy: Lake) -> None:
    outcome = forget([KID], demo_recipe, lake_copy)
    (key,) = outcome.keys
    tar = f"shards/{outcome.shards[0]:05d}.tar"
    lake_copy.remove(tar)
    for stage in DATASET_STAGES:
        run_stage(stage, demo_recipe, lake_copy)
    assert states(demo_recipe, lake_copy) == dict.fromkeys(DATASET_STAGES, "done")
    assert key not in tar_keys(Path(lake_copy.full(tar)))
    run_stage("verify", demo_recipe, lake_copy, options=VerifyOptions(deep=True, reembed=4))


def test_a_near_duplicate_that_takes_its_place_is_named(demo_recipe: Recipe, lake_copy: Lake) -> None:
    shadowed = {fate.title: fate.reason for fate in fates(lake_copy) if fate.reason.startswith("near-duplicate: of ")}
    stand_in, reason = next(iter(shadowed.items()))
    outcome = forget([reason.removeprefix("near-duplicate: of ")], demo_recipe, lake_copy)
    assert outcome.stand_ins.keys() == {stand_in}
    assert stand_in in titles_alive(lake_copy)
    dropped_before = outcome.stand_ins[stand_in]
    assert any(line.startswith(f"{stand_in}, dropped before ({dropped_before}), is kept") for line in outcome.lines())


def test_several_titles_are_forgotten_together_or_not_at_all(demo_recipe: Recipe, lake_copy: Lake) -> None:
    before = digests(lake_copy)
    with pytest.raises(UsageError, match=r"no catalogue of 'demo' has 'Gus Stonee.png'; did you mean .*File:Gus Stone"):
        forget([KID, "Gus Stonee.png"], demo_recipe, lake_copy)
    assert digests(lake_copy) == before
    assert not lake_copy.exists(PATH), "all of them or none"
    title = in_train(lake_copy)
    assert set(forget([KID, title], demo_recipe, lake_copy).titles) == {KID, TWIN, title}


def test_only_stages_that_were_done_run_again(demo_recipe: Recipe, lake_copy: Lake) -> None:
    for stage in ("reorder", "verify"):
        shutil.rmtree(lake_copy.full(f"manifests/{stage}"))
    changed = demo_recipe.model_copy(update={"embed": demo_recipe.embed.model_copy(update={"batch_size": 8})})
    outcome = forget([KID], changed, lake_copy)
    assert (outcome.stages, outcome.stale) == (DATASET_STAGES[1 : DATASET_STAGES.index("embed")], "embed")
    assert manifests.latest(lake_copy, "verify") is None


@pytest.mark.parametrize("after", range(1, 9))
def test_the_same_command_finishes_a_killed_forget(
    demo_recipe: Recipe, lake_copy: Lake, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with interrupted_after(monkeypatch, after):
        forget([KID], demo_recipe, lake_copy)
    forget([KID], demo_recipe, lake_copy)
    assert states(demo_recipe, lake_copy) == dict.fromkeys(DATASET_STAGES, "done")
    assert KID not in titles_alive(lake_copy)
    assert run_stage("scrape", demo_recipe, lake_copy).state == "unchanged"
    assert KID not in titles_alive(lake_copy)


def test_an_unreadable_list_ends_a_scrape(demo_recipe: Recipe, lake_copy: Lake) -> None:
    lake_copy.write_bytes(PATH, b"[{]")
    with pytest.raises(CorruptFile, match=r"forgotten\.json.* cannot be read .* pictures would be fetched again"):
        run_stage("scrape", demo_recipe, lake_copy)


def test_a_list_edited_by_hand_takes_effect_at_the_next_scrape(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """The wiki is unchanged: a picture taken off the list comes back, and one put on it goes."""
    before = latest(lake_copy, "scrape").digest
    forget([KID], demo_recipe, lake_copy)
    after, list_bytes = latest(lake_copy, "scrape").digest, lake_copy.read_bytes(PATH)
    lake_copy.remove(PATH)
    assert run_stage("scrape", demo_recipe, lake_copy).manifest.digest == before
    assert lake_copy.exists(rows_of(lake_copy)[KID].original or "")
    lake_copy.write_bytes(PATH, list_bytes)
    assert run_stage("scrape", demo_recipe, lake_copy).manifest.digest == after
    assert run_stage("scrape", demo_recipe, lake_copy).state == "unchanged"


def test_an_imported_picture_is_forgotten_too(demo_lake: Lake, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), "theirs")
    import_dataset(foreign(demo_lake, tmp_path / "theirs"), lake)
    recipe = recall_recipe(lake)
    assert recipe is not None
    before = {stage: latest(lake, stage).counts for stage in DATASET_STAGES}
    title, failed, uncaptioned = "0000101", "0000103", "0000104"
    outcome = forget([title, failed, uncaptioned], recipe, lake)
    assert (outcome.keys, outcome.shards) == ((title, failed, uncaptioned), (1,))
    assert outcome.stages == ("embed", "reorder", "verify")
    assert states(recipe, lake) == dict.fromkeys(DATASET_STAGES, "done")
    after = {stage: latest(lake, stage).counts for stage in DATASET_STAGES}
    assert after["scrape"].dropped == {"forgotten": 3}
    assert (after["curate"].in_, after["curate"].out) == (before["curate"].in_ - 2, before["curate"].out - 1)
    assert after["shard"].out == before["shard"].out - 1
    assert set(latest(lake, "verify").details["tombstones"]) == {title, uncaptioned}
    reasons = {fate.title: fate.reason for fate in fates(lake)}
    assert [reasons[name] for name in (title, failed, uncaptioned)] == ["forgotten"] * 3
    run_stage("verify", recipe, lake, options=VerifyOptions(deep=True, reembed=4))
    again = forget([title], recipe, lake)
    assert (again.is_new, again.stages) == (False, ())
    assert {run_stage(stage, recipe, lake).state for stage in DATASET_STAGES} == {"unchanged"}
    assert "import" in again.cure(recipe, lake)
    collect(recipe, lake, keep=1, delete=True)
    assert states(recipe, lake) == dict.fromkeys(DATASET_STAGES, "done")


def test_the_command(demo_recipe: Recipe, lake_copy: Lake) -> None:
    def sp_data(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, *arguments, "--lake", lake_copy.url], capture_output=True, text=True)

    folder = checkpoint(lake_copy, "decoder-11111111", latest(lake_copy, "verify").digest)
    title = in_train(lake_copy)
    output = json.loads(sp_data("forget", title, "--json").stdout)
    assert output["titles"] == [title]
    assert output["is_new"]
    assert output["checkpoints"] == [folder]
    assert re.search(
        r"compact demo( --lake \S+)?`, then `sp-data gc demo --keep 1 --delete( --lake \S+)?`", output["next"]
    )
    again = sp_data("forget", title)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"demo: {title} was forgotten already\n")
    assert "forgotten" in sp_data("why", title).stdout
    assert sp_data("forget", "Nobody.png").returncode == 2


def test_a_title_with_quotes_is_found_in_a_csv_report(tmp_path: Path) -> None:
    lake, title, out = Lake(str(tmp_path), "kids"), 'File:The "Coon".png', io.StringIO()
    csv.writer(out).writerow(["0.99", "0000001", title, "train"])
    lake.write_bytes("reports/close-pairs-1.csv", out.getvalue().encode())
    _remove_reports(lake, {title})
    assert lake.list("reports") == []
