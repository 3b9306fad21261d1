"""Requests, bytes and seconds of a scrape, compared with gallery-dl and a loop over mwclient on the same wiki.

    python benchmarks/scrape.py [--quick] [--json]

A real MediaWiki on this machine (tests/mediawiki) serves the sample wiki: 700 kids with an article each, and 15 awkward
files. Every tool starts with an empty folder and does not pause between requests. Its requests are counted in the
wiki's access log, and its whole command is timed, including the start of Python. The other tools are installed from the
package index.

The floor is one request a picture, and an API answer for each 500 files or articles: 2 x 2 answers for this wiki. Most
of the time is the wiki's: PHP's server takes some 3 ms for a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from mediawiki.sample import NUM_OTHER_FILES, sample_ops  # noqa: E402
from mediawiki.wiki import MediaWiki, why_not  # noqa: E402

PEERS = ("gallery-dl==1.32.18", "mwclient==0.11.0")
BIN = Path(sys.executable).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
MWCLIENT = """
import pathlib, sys, mwclient
site = mwclient.Site(sys.argv[1], scheme="http", path="/", connection_options={"timeout": 30})
for image in site.allimages():
    path = pathlib.Path(sys.argv[2]) / image.page_title.replace("/", "_")
    with path.open("wb") as stream:
        image.download(stream)
"""
IDLE = """
import sys, time
from sp_data.lake import Lake
from sp_data.recipe import load_recipe
from sp_data.pipeline import run_stage
recipe = load_recipe(sys.argv[1], [])
started = time.perf_counter()
assert run_stage("scrape", recipe, Lake(sys.argv[2], recipe.name)).state == "unchanged"
print(time.perf_counter() - started)
"""


@dataclass
class Measured:
    """Figures of one tool: seconds of each round; requests and bytes of the last."""

    keeps: str
    command: str = ""
    seconds: list[float] = field(default_factory=list)
    api: int = 0
    pictures: int = 0
    other: int = 0
    bytes: int = 0
    files: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a round of each instead of three")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    parser.add_argument("--kids", type=int, default=700, metavar="N")
    arguments = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="sp-data-benchmark-") as folder:
        figures = measure(Path(folder), arguments.kids, 1 if arguments.quick else 3, quiet=arguments.json)
    if arguments.json:
        print(json.dumps(figures))


def measure(folder: Path, num_kids: int, rounds: int, *, quiet: bool) -> dict[str, float]:
    def say(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    peers = install_peers(folder / "peers")
    with MediaWiki(folder / "wiki") as wiki:
        wiki.apply(sample_ops(folder / "sample", num_kids))
        num_files = num_kids + NUM_OTHER_FILES
        say(f"{num_files} files, {rounds} round(s) each\n")
        recipe = folder / "recipe.yaml"
        source = {"wiki": wiki.url, "select": "all", "requests_per_second": 0}
        recipe.write_text(json.dumps({"name": "kids", "source": source}))
        tools: dict[str, tuple[Measured, Callable[[Path], list[str]]]] = {
            "sp-data": (
                Measured("every name, checked; captions, licence, categories"),
                lambda place: [str(BIN / "sp-data"), "scrape", str(recipe), "--lake", str(place), "--quiet", "--json"],
            ),
            "gallery-dl": (
                Measured("every name; no captions, no licence"),
                lambda place: gallery_dl(peers, wiki, place),
            ),
            "gallery-dl limit=500": (
                Measured("the same"),
                lambda place: [*gallery_dl(peers, wiki, place), "-o", "limit=500"],
            ),
            "mwclient": (
                Measured("every name, unchecked; no captions"),
                lambda place: [str(peers / "bin/python"), "-c", MWCLIENT, wiki.url.partition("//")[2], str(place)],
            ),
        }
        # The first round warms disk caches and compiles modules; it does not count.
        for number in range(-1, rounds):
            for name, (measured, command) in tools.items():
                place = folder / f"{name}-{number}".replace(" ", "-")
                place.mkdir()
                run(wiki, command(place), measured, counts=number >= 0)
                measured.files = len([path for path in place.rglob("*") if path.is_file() and is_picture(path, place)])
        ours = tools["sp-data"]
        idle = Measured("")
        beyond_imports = []
        last = folder / f"sp-data-{rounds - 1}"
        for _ in range(3):
            run(wiki, ours[1](last), idle)
            process = subprocess.run(
                [sys.executable, "-c", IDLE, str(recipe), str(last)],
                capture_output=True,
                text=True,
                check=True,
                env=ENVIRONMENT,
            )
            beyond_imports.append(float(process.stdout))
    for name, (measured, _) in tools.items():
        say(f"{name}\n    {measured.command}")
    say(f"\n{'':22}{'API':>6}{'pictures':>10}{'other':>7}{'MB':>8}{'seconds':>9}{'files':>7}  keeps")
    for name, measured in [*((name, tool[0]) for name, tool in tools.items()), ("sp-data, idle", idle)]:
        say(
            f"{name:22}{measured.api:>6}{measured.pictures:>10}{measured.other:>7}{measured.bytes / 1e6:>8.2f}"
            f"{measured.median:>9.2f}{measured.files or '':>7}  {measured.keeps}"
        )
    theirs = min(tools["gallery-dl"][0].median, tools["gallery-dl limit=500"][0].median)
    allowed = 10 + num_files / 500 * 4
    figures = {
        "files": num_files,
        "api_requests_first": ours[0].api,
        "api_requests_idle": idle.api,
        "picture_requests_first": ours[0].pictures,
        "picture_requests_idle": idle.pictures,
        "bytes_first": ours[0].bytes,
        "bytes_idle": idle.bytes,
        "seconds_first": round(ours[0].median, 2),
        "seconds_idle": round(statistics.median(beyond_imports), 3),
        "seconds_over_gallery_dl": round(ours[0].median / theirs, 3),
        "seconds_over_mwclient": round(ours[0].median / tools["mwclient"][0].median, 3),
        "api_requests_gallery_dl": tools["gallery-dl"][0].api,
        "api_requests_mwclient": tools["mwclient"][0].api,
    }
    say(
        f"\n{ours[0].api} API requests, {allowed:.0f} would be allowed; idle {idle.api}, "
        f"in {figures['seconds_idle']} s beyond imports ({idle.median:.2f} s the whole command)\n"
        f"seconds over gallery-dl (the faster of the two): {figures['seconds_over_gallery_dl']}, "
        f"over mwclient: {figures['seconds_over_mwclient']}"
    )
    return figures


def install_peers(place: Path) -> Path:
    subprocess.run([str(BIN / "uv"), "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
    install = [str(BIN / "uv"), "pip", "install", "--quiet", "--python", str(place / "bin/python"), *PEERS]
    subprocess.run(install, check=True)
    return place


def gallery_dl(peers: Path, wiki: MediaWiki, place: Path) -> list[str]:
    pauses = ["--sleep-request", "0", "--no-part", "--config-ignore", "--quiet"]
    return [str(peers / "bin/gallery-dl"), *pauses, "-d", str(place), f"wikimedia:{wiki.url}/"]


def run(wiki: MediaWiki, command: list[str], measured: Measured, *, counts: bool = True) -> None:
    wiki.clear_log()
    started = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    seconds = time.perf_counter() - started
    if counts:
        measured.seconds.append(seconds)
    if process.returncode:
        sys.exit(f"{command} failed:\n{process.stdout}{process.stderr}")
    accesses = wiki.log()
    kinds = Counter(access.kind for access in accesses)
    measured.command = " ".join("'...'" if "\n" in word else word for word in command)
    measured.api, measured.pictures = kinds.pop("api", 0), kinds.pop("image", 0)
    measured.other, measured.bytes = sum(kinds.values()), sum(access.bytes for access in accesses)


def is_picture(path: Path, place: Path) -> bool:
    inside = path.relative_to(place).parts
    return inside[0] != "kids" or inside[1] == "originals"


main()
