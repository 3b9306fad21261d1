"""A list of addresses as a source, served by a real HTTP server: one fetch a picture, one row a line."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from stages import scrape

from sp_data.errors import RecipeError
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Source
from sp_data.wiki.catalogue import CatalogueRow, catalogue_rows, read_catalogue
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
    politeness = {"contact": "me@example.org", "acknowledge_terms": True, "requests_per_second": 50}
    return Source.model_validate({"addresses": str(path), "allow_private_addresses": True, **politeness, **fields})


@pytest.fixture
def server(httpserver: HTTPServer) -> HTTPServer:
    httpserver.expect_request("/robots.txt").respond_with_data("User-agent: *\nDisallow: /private/")
    for colour in ("red", "blue"):
        httpserver.expect_request(f"/{colour[0]}/{colour}-kid.png").respond_with_data(png(colour))
    httpserver.expect_request("/jpeg.png").respond_with_data(png("lime", "JPEG"))
    httpserver.expect_request("/page.png").respond_with_data("<html>no</html>", content_type="text/html")
    httpserver.expect_request("/gone.png").respond_with_data("gone", status=404)
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


def test_a_host_that_fails_again_and_again_is_left_alone_and_the_others_are_not(server, lake, tmp_path):
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


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("none.txt", None, "there is no file"),
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
    (row,) = rows_of(lake, scrape(public, lake, proxy=server.url_for("/")).manifest).values()
    assert row.status == "address-refused (private address)"


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
