"""A list of addresses as a source, served by a real HTTP server: one fetch a picture, one row a line."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_proxy import PAGE, no_naps
from PIL import Image
from pytest_httpserver import HTTPServer
from stages import scrape
from werkzeug import Response

from sp_data.errors import ListShrank, NothingCame, RecipeError, WikiUnreachable
from sp_data.lake import Lake
from sp_data.manifest import Manifest, latest
from sp_data.recipe import Source
from sp_data.wiki.catalogue import CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.publish import require_pictures
from sp_data.wiki.refusals import FAILURES_IN_A_ROW
from sp_data.wiki.scrape import plan
from sp_data.wiki.tombstones import read_tombstones


def png(colour: str, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(out, form)
    return out.getvalue()


def rows_of(lake: Lake, manifest: Manifest) -> dict[str, CatalogueRow]:
    return {row.url: row for row in catalogue_rows(read_catalogue(lake, manifest))}


def source(path: Path, **fields: object) -> Source:
    politeness = {
        "contact": "me@example.org",
        "acknowledge_terms": True,
        "requests_per_second": 50,
        "allow_private_addresses": True,
    }
    return Source.model_validate({"addresses": str(path), "allow_private_addresses": True, **politeness, **fields})


@pytest.fixture
def server(httpserver: HTTPServer) -> HTTPServer:
    httpserver.expect_request("/robots.txt").respond_with_data("User-agent: *\nDisallow: /private/")
    for colour in ("red", "blue"):
        httpserver.expect_request(f"/{colour[0]}/{colour}-kid.png").respond_with_data(png(colour))
    httpserver.expect_request("/jpeg.png").respond_with_data(png("lime", "JPEG"))
    httpserver.expect_request("/page.png").respond_with_data("<html>no</html>", content_type="text/html")
    httpserver.expect_request(re.compile("/(gone|none).*")).respond_with_data("gone", status=404)
    httpserver.expect_request("/private/a.png").respond_with_data(png("red"))
    tags = {"X-Robots-Tag": "noai, noimageai"}
    httpserver.expect_request("/noai.png").respond_with_data(png("pink"), headers=tags)
    return httpserver


def requested(server: HTTPServer) -> list[str]:
    return [request.path for request, _ in server.log if request.path != "/robots.txt"]


def test_every_line_is_a_row_and_every_picture_is_fetched_once(server, lake, tmp_path):
    names = ["r/red-kid.png", "b/blue-kid.png", "r/red-kid.png", "jpeg.png", "page.png", "gone.png", "noai.png"]
    lines = ["# kids", "", *(server.url_for(f"/{name}") for name in names), "not an address", "ftp://x/y.png"]
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(lines))
    planned = plan(source(path), lake)
    assert (planned.num_files, planned.num_pictures) == (8, 6)
    assert requested(server) == []
    manifest = scrape(source(path), lake).manifest
    rows = {url.rpartition("/")[2]: row for url, row in rows_of(lake, manifest).items()}
    assert {name: row.status for name, row in rows.items()} == {
        "red-kid.png": "ok",
        "blue-kid.png": "ok",
        "jpeg.png": "ok",
        "page.png": "not-an-image",
        "gone.png": "not-found",
        "noai.png": "noai",
        "not an address": "not-an-address",
        "y.png": "not-an-address",
    }
    assert (rows["red-kid.png"].caption, rows["jpeg.png"].mime) == ("Red kid", "image/jpeg")
    assert lake.read_bytes(rows["jpeg.png"].original) == png("lime", "JPEG")
    assert rows["jpeg.png"].original.endswith(".jpg")
    assert sorted(requested(server)) == sorted(set(requested(server)))

    # Only an address that may succeed another time is requested again.
    server.clear_log()
    assert scrape(source(path), lake).state == "unchanged"
    assert requested(server) == ["/page.png", "/gone.png"]


def test_tables_bring_captions_and_licences_and_what_is_off_the_list_leaves_a_tombstone(server, lake, tmp_path):
    red, blue = server.url_for("/r/red-kid.png"), server.url_for("/b/blue-kid.png")
    table = tmp_path / "kids.csv"
    table.write_text(f'url,caption,licence\n{red},"A red  kid, waving",CC-BY-SA\n{blue},,\n')
    rows = rows_of(lake, scrape(source(table), lake).manifest)
    assert (rows[red].caption, rows[red].licence) == ("A red kid, waving", "CC-BY-SA")
    assert (rows[blue].caption, rows[blue].licence) == ("Blue kid", None)

    server.clear_log()
    pq.write_table(pa.table({"url": [blue], "text": ["A blue kid"]}), tmp_path / "kids.parquet")
    manifest = scrape(source(tmp_path / "kids.parquet"), lake).manifest
    assert [row.caption for row in rows_of(lake, manifest).values()] == ["A blue kid"]
    assert [(grave.title, grave.reason) for grave in read_tombstones(lake, manifest)] == [(red, "not-selected")]
    assert requested(server) == []


def test_a_host_that_fails_again_and_again_is_left_alone_and_the_others_are_not(server, lake, tmp_path, monkeypatch):
    no_naps(monkeypatch)
    path = tmp_path / "kids.txt"
    forbidden = [server.url_for(f"/private/{number}.png") for number in range(9)]
    dead = [f"http://127.0.0.1:9/{number}.png" for number in range(9)]
    path.write_text("\n".join([*dead, *forbidden, server.url_for("/r/red-kid.png")]))
    manifest = scrape(source(path), lake).manifest
    # What robots.txt forbids costs no request, and says nothing about the rest of its host.
    assert manifest.counts.dropped == {"unreachable": FAILURES_IN_A_ROW, "host-refuses": 4, "refused": 9}
    assert manifest.counts.out == 1


def test_a_killed_run_asks_for_no_address_twice(server, lake, tmp_path):
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(server.url_for(f"/{name}") for name in ("r/red-kid.png", "gone.png", "b/blue-kid.png")))
    with pytest.raises(KeyboardInterrupt):
        scrape(source(path), lake, progress=_Interrupts(2))
    server_log = requested(server)
    scrape(source(path), lake)
    assert requested(server)[len(server_log) :] == ["/b/blue-kid.png"]


class _Interrupts:
    """A progress that interrupts the run after so many pictures."""

    def __init__(self, after: int) -> None:
        self.remaining = after

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        self.remaining -= count
        if self.remaining == 0:
            raise KeyboardInterrupt


class Clock:
    """The machine's clock, which a test moves forward."""

    def __init__(self, monkeypatch) -> None:
        self.ahead_s, real = 0.0, time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead_s)

    def forward(self, days: float) -> None:
        self.ahead_s += days * 24 * 3600


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def first_then(server: HTTPServer, path: str, answers: list[Response], last: Response) -> None:
    """Answer the first requests in this way, and all others as `last`."""
    remaining = list(answers)
    server.expect_request(path).respond_with_handler(lambda request: remaining.pop(0) if remaining else last)


def test_what_came_instead_of_a_picture_is_asked_for_again_and_a_picture_is_not(server, lake, tmp_path, monkeypatch):
    no_naps(monkeypatch)
    picture = Response(png("red"), content_type="image/png")
    wrong = {
        "web": Response(PAGE, content_type="text/html"),
        "empty": Response(b"", content_type="image/png"),
        "type": Response(png("red", "BMP"), content_type="image/png"),
        "circle": Response(b"", status=302, headers={"Location": "/type.png/../circle.png"}),
        "busy": Response(b"", status=500),
        "hidden": Response(b"", status=403),
    }
    for name, answer in wrong.items():
        # A run sends a request up to six times again after HTTP 500, and follows five redirects.
        times = 6 if name in ("busy", "circle") else 2
        first_then(server, f"/{name}.png", [answer] * times, picture)
    names = [*wrong, "r/red-kid"]
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(server.url_for(f"/{name}.png") for name in names))
    first = scrape(source(path), lake).manifest
    assert (first.counts.out, first.counts.num_dropped) == (1, len(wrong))
    scrape(source(path), lake)
    last = scrape(source(path), lake).manifest
    assert (last.counts.out, last.counts.dropped) == (len(names), {})
    server.clear_log()
    assert scrape(source(path), lake, reconcile=True).state == "unchanged"
    assert requested(server) == []


def test_what_never_comes_is_asked_for_less_and_less_often(server, lake, tmp_path, clock):
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(server.url_for(f"/{name}") for name in ("gone.png", "page.png", "r/red-kid.png")))
    asked_on: list[int] = []
    for day in range(130):
        for _ in range(4 if day == 0 else 1):
            server.clear_log()
            scrape(source(path), lake)
            if "/gone.png" in requested(server):
                asked_on.append(day)
            assert ("/page.png" in requested(server)) == ("/gone.png" in requested(server))
        clock.forward(1)
    assert asked_on == [0, 0, 0, 1, 3, 7, 15, 31, 61, 91, 121]
    server.clear_log()
    assert scrape(source(path), lake, reconcile=True).state == "unchanged"
    assert requested(server) == ["/gone.png", "/page.png"]


def test_a_clock_that_is_put_back_delays_nothing(server, lake, tmp_path, clock):
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(server.url_for(f"/{name}") for name in ("gone.png", "r/red-kid.png")))
    clock.forward(3000)
    for _ in range(4):
        scrape(source(path), lake)
    clock.forward(-3000)
    server.clear_log()
    scrape(source(path), lake)
    assert requested(server) == ["/gone.png"]


def test_pictures_that_fail_do_not_hold_up_the_others_of_their_host(server, lake, tmp_path):
    path = tmp_path / "kids.txt"
    broken = [f"broken/{number}.png" for number in range(FAILURES_IN_A_ROW + 1)]
    path.write_text("\n".join(server.url_for(f"/{name}") for name in [*broken, "r/red-kid.png", "b/blue-kid.png"]))
    server.expect_request("/broken/5.png").respond_with_data(png("pink"))
    for name in broken[:5]:
        server.expect_request(f"/{name}").respond_with_data("no", status=403)
    first = scrape(source(path), lake).manifest
    assert first.counts.dropped == {"http-403": 5, "host-refuses": 3}
    server.clear_log()
    second = scrape(source(path), lake).manifest
    assert second.counts.dropped == {"http-403": 5}
    assert requested(server)[:3] == ["/broken/5.png", "/r/red-kid.png", "/b/blue-kid.png"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sp_data.lake import Lake
from sp_data.pipeline import run_stage
from sp_data.recipe import Recipe, Source

class Dies:
    def begin(self, stage, total, unit):
        self.left = int(sys.argv[3])
    def advance(self, count=1):
        self.left -= count
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

fields = {"addresses": sys.argv[1], "contact": "me@example.org", "acknowledge_terms": True, "requests_per_second": 50,
          "allow_private_addresses": True}
run_stage("scrape", Recipe(name="kids", source=Source(**fields)), Lake(sys.argv[2], "kids"), progress=Dies())
"""


def test_a_list_that_takes_days_is_fetched_once_however_often_it_is_killed(server, lake, tmp_path):
    path = tmp_path / "kids.txt"
    names = [f"many/{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        out = io.BytesIO()
        Image.new("RGB", (8, 6), (number, 0, 0)).save(out, "PNG")
        server.expect_request(f"/{name}").respond_with_data(out.getvalue())
    path.write_text("\n".join(server.url_for(f"/{name}") for name in names))
    start = Path(lake.full("wiki/journal/start.json"))
    for day in range(3):
        process = subprocess.run([sys.executable, "-c", KILLED, path, lake.url, str(4 + 3 * day)], check=False)
        assert process.returncode == -9
        assert latest(lake, "scrape") is None
        begun = json.loads(start.read_text())
        start.write_text(json.dumps({**begun, "at": begun["at"] - 24.5 * 3600}))
        # Meanwhile the list grows: what came from an address holds for it in any list.
        names.append("r/red-kid.png" if day == 0 else f"gone-{day}.png")
        path.write_text("\n".join(server.url_for(f"/{name}") for name in names))
    manifest = scrape(source(path), lake).manifest
    assert (manifest.counts.out, manifest.counts.in_) == (13, 15)
    asked = [name for name in requested(server) if name != "/robots.txt"]
    assert sorted(asked) == sorted({f"/{name}" for name in names})
    assert lake.list("wiki/journal") == []


def test_a_picture_that_got_lost_in_an_unfinished_run_is_fetched_again(server, lake, tmp_path):
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(server.url_for(f"/{name}") for name in ("r/red-kid.png", "b/blue-kid.png")))
    with pytest.raises(KeyboardInterrupt):
        scrape(source(path), lake, progress=_Interrupts(1))
    (original,) = lake.list("originals")
    lake.remove(original)
    assert scrape(source(path), lake).manifest.counts.out == 2
    assert original in lake.list("originals")


def test_a_list_that_suddenly_shrinks_is_refused_unless_it_is_meant(server, lake, tmp_path, monkeypatch):
    no_naps(monkeypatch)
    path = tmp_path / "kids.txt"
    for number in range(12):
        server.expect_request(f"/many/{number}.png").respond_with_data(png(f"#0000{number:02x}"))
    urls = [server.url_for(f"/many/{number}.png") for number in range(12)]
    path.write_text("\n".join(urls))
    whole = scrape(source(path), lake).manifest
    server.clear_log()
    for text in ("\n".join(urls[:5]), "\n".join([*urls[:5], "http", "ftp://x"])):
        path.write_text(text)
        with pytest.raises(ListShrank, match=r"has 12 pictures, and 5 are left in .*--allow-shrink"):
            scrape(source(path), lake)
    late = [server.url_for(f"/late/{number}.png") for number in range(12)]
    server.expect_request("/late/0.png").respond_with_data(png("#00ff00"))
    path.write_text("\n".join(late))
    with pytest.raises(ListShrank, match="12 pictures, and one is left"):
        scrape(source(path), lake)
    assert latest(lake, "scrape") == whole
    # The host is whole again: what did not come is asked for, and nothing has to be said.
    for number in range(12):
        server.expect_request(f"/late/{number}.png").respond_with_data(png(f"#00{number:02x}00"))
    server.clear_log()
    assert scrape(source(path), lake).manifest.counts.out == 12
    assert "/late/0.png" not in {request.path for request, _ in server.log}, "what came is not asked for again"
    path.write_text("\n".join(urls[:6]))
    assert scrape(source(path), lake).manifest.counts.out == 6
    path.write_text(urls[0])
    manifest = scrape(source(path), lake).manifest  # of six pictures a person may well want one
    assert len(read_tombstones(lake, manifest)) == 12 + 11
    path.write_text(server.url_for("/gone/red-kid.png"))
    with pytest.raises(ListShrank, match="has 1 pictures, and none is left"):
        scrape(source(path), lake)
    assert scrape(source(path), lake, allow_shrink=True).manifest.counts.out == 0


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sp_data.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_command_shrinks_fails_and_explains(server, tmp_path):
    path, lake = tmp_path / "kids.txt", tmp_path / "lake"
    red = server.url_for("/r/red-kid.png")
    recipe = tmp_path / "kids.yaml"
    politeness = {
        "contact": "me@example.org",
        "acknowledge_terms": True,
        "requests_per_second": 50,
        "allow_private_addresses": True,
    }
    recipe.write_text(json.dumps({"name": "kids", "source": {"addresses": str(path), **politeness}}))
    path.write_text(f"{red}\n{server.url_for('/gone.png')}")
    assert command("scrape", recipe, "--lake", lake, "--quiet").returncode == 0
    explained = command("why", red, "--lake", lake)
    assert (explained.returncode, explained.stdout) == (0, f"{red}: kept (scraped): Red kid\n")
    path.write_text(server.url_for("/gone.png"))
    refused = command("scrape", recipe, "--lake", lake, "--quiet")
    assert refused.returncode == 1
    assert "'kids' has 1 pictures, and none is left" in refused.stderr and "Traceback" not in refused.stderr
    nothing = command("scrape", recipe, "--lake", lake, "--quiet", "--allow-shrink")
    assert nothing.returncode == 1
    assert "none of the 1 pictures of the addresses in" in nothing.stderr and "came: 1 not-found" in nothing.stderr


def test_a_run_in_which_no_host_answers_ends_with_the_cause_and_asks_for_all_again(server, lake, tmp_path, monkeypatch):
    no_naps(monkeypatch)
    path = tmp_path / "kids.txt"
    path.write_text("http://127.0.0.1:9/a.png\nhttp://127.0.0.1:9/b.png")
    for _ in range(2):
        with pytest.raises(WikiUnreachable, match=r"127\.0\.0\.1:9 cannot be reached"):
            scrape(source(path), lake)
        assert lake.list("wiki/journal") == [] and latest(lake, "scrape") is None


def test_a_jpeg_with_further_pictures_and_an_animated_png_are_what_they_are(server, lake, tmp_path):
    out = io.BytesIO()
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(out, "MPO", save_all=True, append_images=frames[1:])
    server.expect_request("/phone.jpg").respond_with_data(out.getvalue())
    animated = io.BytesIO()
    frames[0].save(animated, "PNG", save_all=True, append_images=frames[1:])
    server.expect_request("/animated.png").respond_with_data(animated.getvalue())
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(server.url_for(f"/{name}") for name in ("phone.jpg", "animated.png")))
    rows = rows_of(lake, scrape(source(path), lake).manifest).values()
    assert {(row.status, row.mime, row.width) for row in rows} == {("ok", "image/jpeg", 8), ("ok", "image/png", 8)}


def test_a_body_without_a_length_that_is_cut_is_no_picture_yet(server, lake, tmp_path):
    names = {"a.png": "PNG", "b.jpg": "JPEG", "c.gif": "GIF"}
    for name, form in names.items():
        out = io.BytesIO()
        Image.effect_noise((64, 64), 80).save(out, form)
        whole, part = (_without_length(body) for body in (out.getvalue(), out.getvalue()[:-40]))
        first_then(server, f"/{name}", [part], whole)
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(server.url_for(f"/{name}") for name in names))
    assert scrape(source(path), lake).manifest.counts.out == 3
    assert sorted(requested(server)) == sorted(f"/{name}" for name in [*names, *names])


def _without_length(body: bytes) -> Response:
    response = Response(body, headers={"Connection": "close"})
    response.automatically_set_content_length = False
    response.headers.pop("Content-Length", None)
    return response


def test_long_and_foreign_addresses_are_fetched(server, lake, tmp_path):
    odd = ["子供 ä.png", "x" * 5000 + ".png", "a b.png?q=1"]
    server.expect_request("/子供 ä.png").respond_with_data(png("red"))
    server.expect_request(f"/{'x' * 5000}.png").respond_with_data(png("blue"))
    server.expect_request("/a b.png").respond_with_data(png("lime"))
    path = tmp_path / "kids.txt"
    path.write_text("\n".join(server.url_for("/") + name for name in odd))
    manifest = scrape(source(path), lake).manifest
    assert (manifest.counts.out, manifest.counts.dropped) == (3, {})
    assert {row.url for row in rows_of(lake, manifest).values()} == {server.url_for("/") + name for name in odd}


def test_an_old_list_without_an_encoding_keeps_its_identity(tmp_path):
    fields = source(tmp_path / "kids.txt").identity_fields()
    assert "encoding" not in fields
    assert source(tmp_path / "kids.txt", encoding="cp1252").identity_fields()["encoding"] == "cp1252"
    with pytest.raises(ValueError, match="expected the name of an encoding"):
        source(tmp_path / "kids.txt", encoding="base64")


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("none.txt", None, "there is no file .*none.txt$"),
        ("kids.json", "[]", "neither .txt, .csv nor .parquet"),
        ("kids.csv", "address\nhttp://x/y.png\n", "no column `url`, it has .*address"),
        ("kids.parquet", "nothing", "cannot be read"),
        ("kids.txt", "# nothing\n", "is empty"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(lake, tmp_path, name, body, message):
    if body is not None:
        (tmp_path / name).write_text(body)
    with pytest.raises(RecipeError, match=message):
        scrape(source(tmp_path / name), lake)


def test_a_redirect_from_a_public_list_to_a_private_address_is_refused(server, lake, tmp_path):
    path = tmp_path / "kids.txt"
    path.write_text("http://cdn.example/a.png\n")
    server.expect_request("/a.png").respond_with_data("", status=302, headers={"Location": "http://127.0.0.1:1/secret"})
    public = source(path, allow_private_addresses=False)
    manifest = scrape(public, lake, proxy=server.url_for("/")).manifest
    (row,) = rows_of(lake, manifest).values()
    assert row.status == "address-refused (private address)"
    cure = "--reconcile --set source.allow_private_addresses=true"
    with pytest.raises(NothingCame, match=rf"{cure}.*asks for all of them again, if they are in your own network"):
        require_pictures(lake, manifest)


def test_a_list_that_names_this_machine_needs_leave(server, lake, tmp_path):
    path = tmp_path / "kids.txt"
    red = server.url_for("/r/red-kid.png")
    path.write_text(f"{red}\nhttp://me:hunter2@{server.host}:{server.port}/b/blue-kid.png\n")
    result = scrape(source(path, allow_private_addresses=False), lake)
    statuses = {row.status for row in rows_of(lake, result.manifest).values()}
    assert statuses == {"address-refused (private address)", "address-refused (a login in the address)"}
    assert server.log == []  # not even robots.txt
    assert rows_of(lake, scrape(source(path), lake).manifest)[red].status == "ok"
    assert not [file for file in (tmp_path / "lake").rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]
