"""The `sp-data` command. Each function is one command; what takes long to import is imported when it is needed.

Exit 0: done; 1: failed, with the cause and the cure in one line; 2: bad usage. `--json` prints one object on standard
output and nothing else there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sp_data import errors

if TYPE_CHECKING:
    from sp_data.lake import Lake
    from sp_data.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: rich would take longer to import than the rest of the command.
    rich_markup_mode=None,
    help="From a fandom wiki to a fine-tuned DALL-E 2. Start with: sp-data run demo",
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="[RECIPE]", help="southpark, demo, or a .yaml file.", show_default=True)
]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="southpark, demo, or a .yaml file; default: the only dataset in the lake."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a field of the recipe; may be repeated.")
]
LakeOption = Annotated[str, typer.Option("--lake", envvar="SP_LAKE", help="Where the data lies: a folder or a URL.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and what was asked for.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DEFAULT_LAKE = "./lake"
INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


@app.command()
def run(
    recipe: RecipeArgument = "demo",
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    until: Annotated[str | None, typer.Option(help="The last stage to run; default: all of them.")] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Run the whole road as a Prefect flow run."""
    from sp_data.pipeline import STAGES, is_stage

    last = until or STAGES[-1]
    if not is_stage(last):
        raise errors.UsageError(f"--until {until}: expected one of {', '.join(STAGES)}")
    asked, place = _recipe(recipe, set_), lake
    begun = time.monotonic()
    # The terminal shows our bars or lines; Prefect's own go to its server. Set before Prefect is imported.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from flows.local_server import start_local_server
    from flows.pipeline import pipeline
    from sp_data.cli.terminal import shown, stage_table

    with shown(quiet=quiet):
        start_local_server()
        result = pipeline(recipe=asked, lake=place, until=last)
    seconds = round(time.monotonic() - begun, 1)
    report = _report_place(_lake(asked, place), result.report)
    judged = _judged(_lake(asked, place), {stage.name: stage.identity for stage in result.stages})
    if json_:
        stages = [stage.model_dump(by_alias=True, include=JSON_STAGE_FIELDS) for stage in result.stages]
        _print_json({"seconds": seconds, "dataset": asked.name, "report": report, "stages": stages, "judge": judged})
    elif not quiet:
        stage_table([stage.model_dump(by_alias=True) for stage in result.stages])
        unchanged = all(stage.state == "unchanged" for stage in result.stages)
        if judged:
            typer.echo(_judge_sentence(judged))
        typer.echo(f"{asked.name}: {'unchanged' if unchanged else 'done'} in {seconds} s\nreport: {report}")


def _judged(lake: Lake, identities: dict[str, str]) -> dict[str, Any] | None:
    """What the judge of a run found, None where it had none."""
    from sp_data import manifest as manifests

    made = manifests.load(lake, "judge", identities["judge"]) if "judge" in identities else None
    if made is None:
        return None
    found = made.details["table"]["all"]
    return {"n": found["n"], "coat": found["coat"], "hat": found["hat"], "chance": made.details["chance"]}


def _judge_sentence(judged: dict[str, Any]) -> str:
    return (
        f"judge: of {judged['n']} pictures made from words, {judged['coat']:.0%} have the right coat and "
        f"{judged['hat']:.0%} the right hat (chance {judged['chance']:.1%})"
    )


JSON_STAGE_FIELDS = {"name", "in_", "out", "dropped", "seconds", "state"}


def _one_stage(name: str, recipe: Recipe, place: str, quiet: bool, json_: bool, **how: Any) -> None:
    from sp_data.cli.terminal import shown, stage_table
    from sp_data.pipeline import remember_recipe, run_stage
    from sp_data.runtime.progress import onlooker

    lake = _lake(recipe, place)
    begun = time.monotonic()
    with shown(quiet=quiet):
        remember_recipe(recipe, lake)
        result = run_stage(name, recipe, lake, progress=onlooker(), **how)
    counts = result.manifest.counts
    line = {
        "name": name,
        "in": counts.in_,
        "out": counts.out,
        "dropped": counts.num_dropped,
        "seconds": round(time.monotonic() - begun, 1),
        "state": result.state,
    }
    if json_:
        _print_json({"dataset": recipe.name, "stages": [line]})
    elif not quiet:
        stage_table([line])


@app.command()
def scrape(
    recipe: RecipeArgument = "demo",
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched and how long it takes; fetch no picture.")
    ] = False,
    reconcile: Annotated[
        bool, typer.Option("--reconcile", help="List the whole wiki, not only what it says has changed.")
    ] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """List the wiki's pictures with their captions and fetch the originals; after the first time, what changed."""
    asked = _recipe(recipe, set_)
    if dry_run:
        _plan_scrape(asked, _lake(asked, lake), reconcile, quiet, json_)
    else:
        _one_stage("scrape", asked, lake, quiet, json_, reconcile=reconcile)


def _plan_scrape(recipe: Recipe, lake: Lake, reconcile: bool, quiet: bool, json_: bool) -> None:
    from dataclasses import asdict

    from sp_data.cli.terminal import duration, shown
    from sp_data.runtime.progress import onlooker
    from sp_data.wiki.scrape import plan

    with shown(quiet=quiet):
        planned = plan(recipe.source, lake, reconcile=reconcile, progress=onlooker())
    if json_:
        _print_json({"dataset": recipe.name, **asdict(planned)})
        return
    rate = recipe.source.requests_per_second
    pace = f"at {rate:g} requests a second" if rate else "as fast as the wiki answers"
    size = "" if planned.num_bytes is None else f" ({planned.num_bytes / 1e6:,.1f} MB)"
    typer.echo(
        f"{recipe.name}: {planned.num_files:,} files, {planned.num_pictures:,} pictures to fetch{size}: "
        f"about {duration(planned.seconds)} {pace}\n"
        f"{planned.num_requests} requests to know that; the answers are kept for the run, no picture was fetched"
    )


@app.command()
def curate(
    recipe: RecipeArgument = "demo",
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Decide what is kept, in which split, and why the rest is not."""
    _one_stage("curate", _recipe(recipe, set_), lake, quiet, json_)


@app.command()
def shard(
    recipe: RecipeArgument = "demo",
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Write new pictures into webdataset shards (img2dataset)."""
    _one_stage("shard", _recipe(recipe, set_), lake, quiet, json_)


@app.command()
def embed(
    recipe: RecipeArgument = "demo",
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Embed the pictures and captions of new shards (clip-retrieval)."""
    _one_stage("embed", _recipe(recipe, set_), lake, quiet, json_)


@app.command()
def reorder(
    recipe: RecipeArgument = "demo",
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    embeddings: Annotated[
        Path | None, typer.Option(help="Stand-alone: folder with img_emb_N.npy, or with img_emb/ and text_emb/.")
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="Stand-alone: folder with metadata_N.parquet.")] = None,
    output: Annotated[Path | None, typer.Option(help="Stand-alone: folder for img_emb/ and text_emb/.")] = None,
    layout: Annotated[
        str | None, typer.Option(metavar="S+I", help="Stand-alone: digits of a key for shard and index, e.g. 5+4.")
    ] = None,
    shards: Annotated[
        Path | None, typer.Option(help="Stand-alone: img2dataset's folder, which proves layout and sizes.")
    ] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Put the embeddings in the order of the pictures, of a dataset or of any clip-retrieval output."""
    given = {"--embeddings": embeddings, "--metadata": metadata, "--output": output}
    if not any(given.values()):
        if layout or shards:
            raise errors.UsageError(
                f"{'--layout' if layout else '--shards'} is for --embeddings; a dataset's own layout comes from its "
                "shard manifest"
            )
        _one_stage("reorder", _recipe(recipe, set_), lake, quiet, json_)
        return
    if embeddings is None or metadata is None or output is None:
        lacking = next(name for name, value in given.items() if value is None)
        raise errors.UsageError(f"{lacking} is missing: --embeddings, --metadata and --output belong together")
    from sp_data.cli.terminal import shown
    from sp_data.dataset.reorder.folder import reorder_folder
    from sp_data.keys import KeyLayout
    from sp_data.runtime.progress import onlooker

    asked = KeyLayout.parse(layout) if layout else None
    with shown(quiet=quiet):
        done = reorder_folder(embeddings, metadata, output, asked, shards=shards, progress=onlooker())
    if json_:
        _print_json(
            {
                "layout": str(done.layout),
                "kinds": list(done.kinds),
                "shards": done.num_shards,
                "rows": done.num_rows,
                "zero_rows": done.num_zero_rows,
                "unchanged": done.num_unchanged,
            }
        )
    elif not quiet:
        typer.echo(
            f"reordered {done.num_rows:,} rows into {done.num_shards:,} shards ({', '.join(done.kinds)}), "
            f"layout {done.layout}, {done.num_zero_rows:,} rows zero: {output}"
        )


@app.command()
def layout(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="img2dataset's output, or clip-retrieval's.")],
    json_: JsonOption = False,
) -> None:
    """Say which digits of the keys in a folder name the shard, and what proves it."""
    from sp_data.dataset.reorder.layout import layout_of

    found = layout_of(folder)
    if json_:
        _print_json(
            {
                "layout": str(found.layout),
                "shards": len(found.num_rows),
                "keys": found.num_keys,
                "source": found.source,
                "exact": found.exact,
            }
        )
    else:
        typer.echo(str(found))


@app.command()
def verify(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="As --recipe.")] = None,
    recipe_option: RecipeOption = None,
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and embed every picture again.")] = False,
    reembed: Annotated[int | None, typer.Option(min=0, help="How many pictures to embed again.")] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Check every joint of the dataset; exit 1 with the first that is wrong."""
    from dataclasses import asdict

    from sp_data.cli.terminal import shown
    from sp_data.pipeline import run_stage
    from sp_data.runtime.progress import onlooker
    from sp_data.stage import Effort

    asked = _recipe_of_dataset(recipe or recipe_option, set_, lake)
    place = _lake(asked, lake)
    try:
        with shown(quiet=quiet):
            result = run_stage("verify", asked, place, progress=onlooker(), effort=Effort(deep, reembed))
    except errors.VerifyFailed as failed:
        if not json_:
            raise
        problems = [asdict(problem) for problem in failed.problems]
        _print_json({"ok": False, "checked": failed.num_checked, "problems": problems})
        raise typer.Exit(1) from failed
    checked = result.manifest.counts.out
    if json_:
        _print_json({"ok": True, "checked": checked, "problems": []})
    elif not quiet:
        typer.echo(f"{asked.name}: {checked:,} samples hold")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder, or an earlier export.")],
    to: Annotated[str, typer.Option(metavar="dalle2-pytorch|imagefolder|kohya", help="Who is to read it.")],
    split: Annotated[
        list[str] | None, typer.Option(metavar="train|val|test", help="Only this one; may be repeated.")
    ] = None,
    embeddings_in_tars: Annotated[
        bool, typer.Option("--embeddings-in-tars", help="dalle2-pytorch: as .npy beside each .jpg, not in folders.")
    ] = False,
    recipe: RecipeOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Write the verified dataset, without what has a tombstone, in a form that another trainer reads."""
    from sp_data import pipeline as road
    from sp_data.cli.terminal import shown
    from sp_data.dataset.curate.tables import SPLITS
    from sp_data.exchange.export.run import export as write
    from sp_data.exchange.export.run import form_of
    from sp_data.runtime.progress import onlooker

    asked = _recipe_of_dataset(recipe, None, lake)
    place = _lake(asked, lake)
    with shown(quiet=quiet or json_):
        verified = road.made("verify", asked, place, for_what="export")
        form = form_of(to, verified, asked, embeddings_in_tars=embeddings_in_tars)
        wanted = tuple(split or SPLITS)
        done = write(verified, form, place, folder, to=to, splits=wanted, progress=onlooker())
    if json_:
        _print_json(
            {
                "dataset": asked.name,
                "to": to,
                "folder": str(folder),
                "shards": done.num_shards,
                "samples": done.num_samples,
                "splits": done.splits,
                "dropped": done.dropped,
            }
        )
    elif not quiet:
        left = ", ".join(f"{reason} {count:,}" for reason, count in done.dropped.items()) or "none"
        typer.echo(f"{asked.name}: {done.num_samples:,} samples for {to} in {folder}; left out: {left}")


@app.command(name="import")
def import_(
    shards: Annotated[Path, typer.Option(help="img2dataset's output folder: NNNNN.tar, .parquet and _stats.json.")],
    embeddings: Annotated[Path, typer.Option(help="clip-retrieval's: img_emb/, text_emb/ and metadata/.")],
    name: Annotated[str, typer.Option(help="The dataset's name in the lake.")],
    layout: Annotated[
        str | None, typer.Option(metavar="S+I", help="Digits of a key for shard and index; default: what is found.")
    ] = None,
    clip_model: Annotated[str, typer.Option(help="The CLIP that made the embeddings.")] = "ViT-L/14",
    reembed: Annotated[int | None, typer.Option(min=0, help="How many pictures to embed again.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Make a dataset of someone's own webdataset shards and CLIP embeddings, and verify it."""
    from sp_data.cli.terminal import shown
    from sp_data.exchange.imports.run import Given, import_dataset
    from sp_data.keys import KeyLayout
    from sp_data.lake import Lake
    from sp_data.runtime.progress import onlooker

    given = Given(shards, embeddings, name, clip_model, KeyLayout.parse(layout) if layout else None, reembed)
    with shown(quiet=quiet or json_):
        result, tally = import_dataset(given, Lake(lake, name), progress=onlooker())
    left_out = {**tally.failed, **tally.dropped}
    if tally.num_lost:
        left_out["no embedding"] = tally.num_lost
    if json_:
        _print_json(
            {
                "dataset": name,
                "layout": result.manifest.details["layout"],
                "rows": tally.num_rows,
                "splits": dict(tally.splits),
                "dropped": left_out,
                "strays": tally.num_strays,
            }
        )
    elif not quiet:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items()) or "none"
        typer.echo(
            f"{name}: {tally.splits.total():,} of {tally.num_rows:,} rows hold, layout "
            f"{result.manifest.details['layout']}; left out: {reasons}; embeddings without a picture: "
            f"{tally.num_strays:,}"
        )


@app.command()
def train(
    kind: Annotated[str, typer.Argument(metavar="prior|decoder", help="What to train.")],
    recipe: RecipeArgument = "demo",
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    resume: Annotated[
        str, typer.Option(metavar="latest|PATH", help="The checkpoint to go on from; latest: this run's own, if any.")
    ] = "latest",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Train on the verified dataset; a run that was killed goes on from its last checkpoint."""
    if kind not in ("prior", "decoder"):
        raise errors.UsageError(f"train {kind}: expected prior or decoder")
    _one_stage(kind, _recipe(recipe, set_), lake, quiet, json_, resume=resume)


@app.command()
def dream(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT…", help='Such as "a kid in a red coat".')],
    num_pictures: Annotated[int, typer.Option("-n", min=1, help="Pictures of each prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; the next have the next seeds.")] = 0,
    cond_scale: Annotated[
        float, typer.Option(min=0, help="Guidance; above 1 follows the words more closely, where the decoder can.")
    ] = 1.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the decoder's sampler.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the PNGs; default: generated/ in the lake.")] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="best|latest|PATH", help="Default: best; a PATH for each of prior and decoder."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to draw.")] = "auto",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Make pictures from words; seed and checkpoints are written inside each PNG."""
    from sp_data.cli.terminal import shown
    from sp_data.runtime.progress import onlooker

    if device not in ("auto", "cpu", "cuda"):
        raise errors.UsageError(f"--device {device}: expected auto, cpu or cuda")
    asked = _recipe_of_dataset(recipe, set_, lake)
    place = _lake(asked, lake)
    with shown(quiet=quiet or json_):
        from sp_data.generation.dream import How, dream_files, orders

        wanted = orders(prompts, num_pictures, seed)
        how = How(cond_scale, steps)
        made = dream_files(asked, place, wanted, how, checkpoint, out, device=device, progress=onlooker())
    if json_:
        _print_json({"dataset": asked.name, "pictures": [{"path": path, **said} for path, said in made]})
    else:
        for path, _ in made:
            typer.echo(path)


@app.command()
def judge(
    recipe: RecipeArgument = "demo",
    set_: SetOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    pictures: Annotated[
        Path | None, typer.Option(help="Judge the PNGs of this folder, made by `dream`, against their own prompts.")
    ] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure coats and hats of the demo's pictures against the words that asked for them."""
    from sp_data import manifest as manifests

    if pictures is None:
        asked = _recipe(recipe, set_)
        _one_stage("judge", asked, lake, quiet=True, json_=False)
        made = manifests.latest(_lake(asked, lake), "judge")
        table = made.details["table"] if made else {}
    else:
        from sp_data.judge.stage import judge_folder

        table = judge_folder(pictures)
    if json_:
        _print_json(table)
        return
    for name, line in table.items():
        clip = f", by CLIP {line['clip_coat']:.1%} and {line['clip_hat']:.1%}" if "clip_coat" in line else ""
        typer.echo(f"{name:<7} n {line['n']:>4}   coat {line['coat']:.1%}   hat {line['hat']:.1%}{clip}")


@app.command()
def report(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="As --recipe.")] = None,
    recipe_option: RecipeOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    json_: JsonOption = False,
) -> None:
    """Write the page: what was kept and dropped, how training went, what the models draw."""
    from sp_data.pipeline import STAGES
    from sp_data.report.page import load_road, write_report

    asked = _recipe_of_dataset(recipe or recipe_option, None, lake)
    place = _lake(asked, lake)
    road = load_road(place, STAGES)
    if not road:
        raise errors.StageNotDone(f"dataset {asked.name!r} has no manifest yet; run `sp-data run {asked.name}` first")
    path = _report_place(place, write_report(asked, place, road))
    if json_:
        _print_json({"dataset": asked.name, "report": path})
    else:
        typer.echo(path)


@app.command()
def why(
    file: Annotated[str | None, typer.Argument(help='Such as "File:Kenny.png"; default: every file.')] = None,
    recipe: RecipeOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    json_: JsonOption = False,
) -> None:
    """Say what became of a file of the wiki: its key and caption, or the stage that dropped it and why."""
    from dataclasses import asdict

    from sp_data.upkeep.why import fates, graves

    asked = _recipe_of_dataset(recipe, None, lake)
    wanted = None if file is None else "File:" + file.removeprefix("File:").replace("_", " ")
    found = [fate for fate in fates(_lake(asked, lake)) if wanted in (None, fate.title)]
    if not found:
        gone = next((grave for grave in graves(_lake(asked, lake)) if grave.title == wanted), None)
        if gone is None:
            raise errors.UsageError(
                f"the catalogue of {asked.name!r} has no {wanted!r}: see `sp-data why` for all of them"
            )
        if json_:
            _print_json({"dataset": asked.name, "files": [], "gone": asdict(gone)})
        else:
            typer.echo(str(gone))
        return
    if json_:
        _print_json({"dataset": asked.name, "files": [asdict(fate) for fate in found]})
    else:
        for fate in found:
            typer.echo(str(fate))


@app.command()
def forget(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help='Such as "File:Kenny.png".')],
    recipe: RecipeOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Take pictures out for good: never fetched again, left out of the dataset; lists the checkpoints that saw them."""
    from dataclasses import asdict

    from sp_data.cli.terminal import shown
    from sp_data.runtime.progress import onlooker
    from sp_data.upkeep.forget import forget as take_out

    asked = _recipe_of_dataset(recipe, None, lake)
    place = _lake(asked, lake)
    with shown(quiet=quiet or json_):
        outcome = take_out(files, asked, place, progress=onlooker())
    cure = outcome.cure(asked)
    if json_:
        said = asdict(outcome)
        for name in ("checkpoints", "checkpoints_unknown"):
            said[name] = [one.folder for one in getattr(outcome, name)]
        _print_json({"dataset": asked.name, **said, "next": cure})
    else:
        typer.echo(f"{asked.name}: {outcome}")
        for line in filter(None, (*outcome.lines(), cure)):
            typer.echo(line)


@app.command()
def compact(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="As --recipe.")] = None,
    recipe_option: RecipeOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Put what lives in half-dead, forgotten or tiny shards into new, full ones; then embed, reorder and verify."""
    from sp_data.cli.terminal import shown
    from sp_data.runtime.progress import onlooker
    from sp_data.upkeep.compact import compact as compact_dataset

    asked = _recipe_of_dataset(recipe or recipe_option, None, lake)
    with shown(quiet=quiet or json_):
        done = compact_dataset(asked, _lake(asked, lake), progress=onlooker())
    if json_:
        _print_json(
            {
                "dataset": asked.name,
                "state": done.state,
                "removed": [{"shard": number, "reason": reason} for number, reason in done.why.items()],
                "added": list(done.added),
                "moved": done.num_moved,
                "stages": list(done.stages),
            }
        )
    elif not quiet:
        typer.echo(f"{asked.name}: {done}")


@app.command()
def gc(
    recipe: RecipeOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    keep: Annotated[int, typer.Option(help="Snapshots of each stage that stay; checkpoints' datasets do too.")] = 3,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this it is only listed.")] = False,
    json_: JsonOption = False,
) -> None:
    """Say, or remove, what neither the latest snapshots nor a checkpoint's dataset names."""
    from sp_data.cli.terminal import shown
    from sp_data.upkeep.collect_garbage import collect

    asked = _recipe_of_dataset(recipe, None, lake)
    with shown(quiet=True):
        waste = collect(asked, _lake(asked, lake), keep=keep, delete=delete)
    if json_:
        folders = {name: {"files": files, "bytes": size} for name, (files, size) in waste.folders.items()}
        total = {"files": waste.num_files, "bytes": waste.num_bytes}
        _print_json({"dataset": asked.name, "deleted": delete, **total, "folders": folders, "warnings": waste.warnings})
        return
    for name, (files, size) in waste.folders.items():
        typer.echo(f"{name:<16} {files:>9,} files {size / 1e6:>12,.1f} MB")
    for warning in waste.warnings:
        typer.echo(f"sp-data: {warning}", err=True)
    done = "removed" if delete else "may be removed (--delete does it)" if waste.num_files else "may be removed"
    typer.echo(f"{asked.name}: {waste.num_files:,} files, {waste.num_bytes / 1e6:,.1f} MB {done}")


@app.command()
def status(
    recipe: RecipeOption = None, set_: SetOption = None, lake: LakeOption = DEFAULT_LAKE, json_: JsonOption = False
) -> None:
    """Say what is done, stale, damaged or missing, with sizes."""
    from sp_data.cli.terminal import status_table
    from sp_data.pipeline import stand

    asked = _recipe_of_dataset(recipe, set_, lake)
    standing = stand(asked, _lake(asked, lake)).values()
    rows = [
        {
            "name": one.name,
            "state": one.state,
            "digest": one.manifest.digest if one.manifest else None,
            "made_at": one.manifest.made_at if one.manifest else None,
            "bytes": one.manifest.num_bytes if one.manifest else None,
        }
        for one in standing
    ]
    if json_:
        _print_json({"stages": rows})
    else:
        typer.echo(asked.name)
        status_table([{**row, "reason": one.reason} for row, one in zip(rows, standing, strict=True)])


def _recipe(name: str, sets: list[str] | None) -> Recipe:
    from sp_data.recipe import load_recipe

    return load_recipe(name, sets or [])


def _recipe_of_dataset(name: str | None, sets: list[str] | None, place: str) -> Recipe:
    """The recipe a dataset was made with, kept beside it; or the one that is named, where there is no such dataset."""
    from sp_data.lake import Lake, datasets
    from sp_data.pipeline import recall_recipe
    from sp_data.recipe import load_recipe

    if name is None:
        there = datasets(place)
        if len(there) != 1:
            what = f"datasets {', '.join(there)}" if there else "no dataset"
            raise errors.UsageError(f"lake {place} holds {what}: say which with --recipe")
        name = there[0]
    if not sets and "/" not in name and (kept := recall_recipe(Lake(place, name))):
        return kept
    return load_recipe(name, sets or [])


def _lake(recipe: Recipe, place: str) -> Lake:
    from sp_data.lake import Lake

    return Lake(place, recipe.name)


def _report_place(lake: Lake, path: str) -> str:
    """The report as something to open: a path as short as it goes on this machine, else its URL."""
    full = lake.full(path)
    if not lake.is_local:
        return full
    here = Path.cwd()
    return str(Path(full).relative_to(here)) if Path(full).is_relative_to(here) else full


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def main() -> NoReturn:
    """Run the command and turn every failure into one sentence and an exit code."""
    try:
        app()
    except errors.SpDataError as error:
        _end(str(error), error.exit_code)
    except SystemExit as ended:
        if ended.code != INTERRUPTED:
            raise
        _end("interrupted; what was finished is kept: the same command goes on from there", 1)
    except OSError as error:
        if error.errno is None:
            raise
        _end(_system_sentence(error), 1)
    sys.exit(0)


def _system_sentence(error: OSError) -> str:
    import errno

    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left{where}; free some, then run the same command again"
    return f"{error.strerror}{where}; see that it is there and may be used, then run the same command again"


def _end(sentence: str, code: int) -> NoReturn:
    typer.echo(f"sp-data: {sentence}", err=True)
    sys.exit(code)
