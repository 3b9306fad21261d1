"""The demo wiki speaks MediaWiki's API over HTTP, and its picture host behaves like a CDN."""

import hashlib
import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from bs4 import BeautifulSoup
from PIL import Image

from sp_data.demo.kids.artist import draw
from sp_data.demo.kids.kid import Kid
from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.titles import ORIGIN, hash_path, normalised
from sp_data.demo.wiki.world import World, build_world

NUM_KIDS = 60
IMAGEINFO = "timestamp|user|url|size|sha1|mime|canonicaltitle"


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(NUM_KIDS)


@pytest.fixture
def wiki(world: World) -> Iterator[DemoWikiServer]:
    with DemoWikiServer(world) as wiki:
        yield wiki


class Client:
    """Asks the wiki through itself as a proxy, as the scraper does."""

    def __init__(self, wiki: DemoWikiServer) -> None:
        self.session = requests.Session()
        self.session.proxies = {"http": wiki.url}

    def get(self, url: str, **options: Any) -> requests.Response:
        return self.session.get(url, timeout=10, **options)

    def query(self, **parameters: str) -> dict[str, Any]:
        merged = {"action": "query", "format": "json", "formatversion": "2", **parameters}
        answer: dict[str, Any] = self.get(f"{ORIGIN}/api.php", params=merged).json()
        return answer

    def all_pages(self, **parameters: str) -> dict[str, dict[str, Any]]:
        """Follows `continue` to the end and merges the answers about each page."""
        pages: dict[str, dict[str, Any]] = {}
        following: dict[str, str] = {}
        while True:
            answer = self.query(**parameters, **following)
            for page in answer["query"]["pages"]:
                known = pages.setdefault(page["title"], {})
                known["categories"] = known.get("categories", []) + page.pop("categories", [])
                known |= page
            if "continue" not in answer:
                return pages
            following = answer["continue"]


@pytest.fixture
def client(wiki: DemoWikiServer) -> Client:
    return Client(wiki)


@pytest.mark.parametrize("limits", [("max", "max"), ("7", "5"), ("50", "3")])
def test_following_continue_finds_every_file_and_category_once(
    client: Client, world: World, limits: tuple[str, str]
) -> None:
    pages = client.all_pages(
        generator="allimages",
        gailimit=limits[0],
        cllimit=limits[1],
        prop="imageinfo|categories",
        iiprop=IMAGEINFO,
    )
    assert pages.keys() == {f"File:{name}" for name in world.files}
    for title, page in pages.items():
        file = world.files[title.removeprefix("File:")]
        (info,) = page["imageinfo"]
        assert (info["sha1"], info["size"], info["mime"]) == (file.sha1, len(file.data), file.mime)
        assert [category["title"] for category in page["categories"]] == list(world.pages[title].categories)


def test_a_batch_with_categories_left_says_so_as_mediawiki_does(client: Client, world: World) -> None:
    first = client.query(generator="allimages", gailimit="5", cllimit="3", prop="imageinfo|categories")
    assert "batchcomplete" not in first
    assert first["continue"]["continue"] == "||imageinfo"
    second = client.query(
        generator="allimages", gailimit="5", cllimit="max", prop="imageinfo|categories", **first["continue"]
    )
    assert second["batchcomplete"] is True
    assert second["continue"]["continue"] == "gaicontinue||"
    assert second["limits"] == {"categories": 500}
    assert not any("imageinfo" in page for page in second["query"]["pages"])


def test_one_page_gives_its_pictures_and_names_the_missing_ones(client: Client) -> None:
    pages = client.all_pages(generator="images", titles="Class of 1990", gimlimit="4", prop="imageinfo", iiprop="sha1")
    assert len(pages) == 13
    assert pages["File:Teacher of 1990.png"] | {"categories": []} == {
        "ns": 6,
        "title": "File:Teacher of 1990.png",
        "missing": True,
        "imagerepository": "",
        "categories": [],
    }


def test_a_category_lists_its_files_only_if_asked(client: Client, world: World) -> None:
    titles = {title for title, page in world.pages.items() if "Category:Fair use images" in page.categories}
    for wanted in ("Category:Fair use images", "category:fair_use images"):
        members = client.all_pages(
            generator="categorymembers", gcmtitle=wanted, gcmtype="file", gcmlimit="9", prop="info"
        )
        assert members.keys() == titles


def test_all_wikitext_comes_in_batches(client: Client, world: World) -> None:
    pages = client.all_pages(
        generator="allpages",
        gapnamespace="0",
        gaplimit="50",
        gapfilterredir="nonredirects",
        prop="revisions|info",
        rvprop="ids|timestamp|content",
        rvslots="main",
    )
    articles = {title: page for title, page in world.pages.items() if page.namespace == 0 and page.redirect is None}
    assert {title: page["revisions"][0]["slots"]["main"]["content"] for title, page in pages.items()} == {
        title: page.wikitext for title, page in articles.items()
    }
    assert all(page["lastrevid"] == page["revisions"][0]["revid"] for page in pages.values())


def test_more_than_50_contents_are_broken_off_and_continued(client: Client) -> None:
    params = {"generator": "allpages", "gaplimit": "max", "prop": "revisions", "rvprop": "content", "rvslots": "main"}
    first = client.query(**params)
    assert sum("revisions" in page for page in first["query"]["pages"]) == 50
    assert "rvcontinue" in first["continue"]
    assert all("revisions" in page for page in client.all_pages(**params).values())


def test_titles_are_normalised_and_missing_ones_flagged(client: Client, world: World) -> None:
    name = world.kids[0].name
    answer = client.query(titles=f"{name.replace(' ', '_')}|Nobody|A<b", prop="revisions|categories", cllimit="max")
    assert answer["query"]["normalized"] == [{"fromencoded": False, "from": name.replace(" ", "_"), "to": name}]
    missing, invalid, known = answer["query"]["pages"][1], answer["query"]["pages"][0], answer["query"]["pages"][2]
    assert invalid["invalid"] is True
    assert missing == {"ns": 0, "title": "Nobody", "missing": True}
    assert known["categories"] == [{"ns": 14, "title": "Category:Kids"}]


def test_50_titles_are_the_most(client: Client) -> None:
    assert len(client.query(titles="|".join(map(str, range(50))))["query"]["pages"]) == 50
    error = client.query(titles="|".join(map(str, range(51))))["error"]
    assert (error["code"], error["limit"]) == ("toomanyvalues", 50)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"action": "dance"}, "badvalue"),
        ({"formatversion": "1"}, "badvalue"),
        ({"generator": "nonsense"}, "badgenerator"),
        ({"generator": "allimages", "gailimit": "many"}, "badinteger"),
        ({"generator": "categorymembers"}, "missingparam"),
        ({"generator": "categorymembers", "gcmtitle": "Kids"}, "invalidcategory"),
        ({"titles": "Lake", "continue": "yes"}, "badcontinue"),
        ({"action": "parse", "page": "Nobody"}, "missingtitle"),
    ],
)
def test_errors_come_with_status_200(client: Client, parameters: dict[str, str], code: str) -> None:
    assert client.query(**parameters)["error"]["code"] == code


def test_an_unknown_prop_is_only_warned_of(client: Client) -> None:
    answer = client.query(titles="Lake", prop="info|globalusage", curtimestamp="1")
    assert answer["warnings"] == {"query": {"warnings": 'Unrecognized value for parameter "prop": globalusage'}}
    assert answer["query"]["pages"][0]["title"] == "Lake"
    assert answer["curtimestamp"].endswith("Z")


def test_siteinfo_states_the_host_without_a_port(client: Client, world: World) -> None:
    answer = client.query(meta="siteinfo", siprop="general|namespaces|statistics")["query"]
    assert answer["general"]["server"] == ORIGIN
    assert answer["namespaces"]["100"]["name"] == "Portal"
    assert answer["statistics"]["images"] == len(world.files)


def test_a_gallery_is_lazy_from_its_fifth_picture(client: Client, world: World) -> None:
    text = client.query(action="parse", page="Portal:Characters", prop="text|revid")["parse"]["text"]
    items = BeautifulSoup(text, "lxml").select(".wikia-gallery-item")
    assert [item.select_one(".lightbox-caption").get_text() for item in items[:NUM_KIDS]] == [
        kid.name for kid in world.kids[:NUM_KIDS]
    ]
    assert [bool(item.select("img.lazyload")) for item in items[:6]] == [False] * 4 + [True] * 2
    lazy = items[5].select_one("img.lazyload")
    assert lazy["src"].startswith("data:image/gif")
    assert lazy["data-src"] == items[5].select_one("noscript img")["src"]
    assert lazy["data-src"].startswith(f"{ORIGIN}/images/{hash_path(world.kids[5].name + '.png')[:5]}")


def test_an_infobox_has_fandoms_classes(client: Client, world: World) -> None:
    kid = world.kids[0]
    box = BeautifulSoup(client.query(action="parse", page=kid.name)["parse"]["text"], "lxml").select_one(
        "aside.portable-infobox"
    )
    assert box.select_one("h2.pi-title").get_text() == kid.name
    values = {row["data-source"]: row.select_one(".pi-data-value").get_text() for row in box.select(".pi-data")}
    assert values == {
        "coat": kid.coat,
        "hat": kid.hat,
        "hat kind": kid.hat_kind,
        "hair": kid.hair,
        "skin": kid.skin,
        "place": kid.place,
    }
    assert box.select_one("figure.pi-image img")["data-image-name"] == f"{kid.name}.png"


def test_every_stated_address_serves_the_bytes_it_promises(client: Client) -> None:
    pages = client.all_pages(generator="allimages", gailimit="max", prop="imageinfo", iiprop="url|sha1|size|mime")
    for page in pages.values():
        info = page["imageinfo"][0]
        picture = client.get(info["url"], headers={"Accept": "*/*"})
        assert hashlib.sha1(picture.content).hexdigest() == info["sha1"]
        assert int(picture.headers["Content-Length"]) == info["size"]
        assert picture.headers["Content-Type"] == info["mime"]


def test_a_client_that_accepts_webp_gets_it_unless_it_asks_for_the_original(client: Client, world: World) -> None:
    file = world.files[f"{world.kids[0].name}.png"]
    url = client.query(titles=f"File:{file.name}", prop="imageinfo", iiprop="url")["query"]["pages"][0]["imageinfo"][0][
        "url"
    ]
    accepting = {"Accept": "image/webp,*/*"}
    webp = client.get(url, headers=accepting)
    assert webp.headers["Content-Type"] == "image/webp"
    assert Image.open(io.BytesIO(webp.content)).format == "WEBP"
    assert client.get(f"{url}&format=original", headers=accepting).content == file.data
    unchanged = client.get(url, headers={"Accept": "*/*", "If-None-Match": client.get(url).headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def test_scaled_copies_and_unknown_pictures(client: Client, world: World) -> None:
    url = f"{ORIGIN}/images/{hash_path(world.kids[0].name + '.png')}/revision/latest"
    scaled = client.get(f"{url}/scale-to-width-down/64")
    assert Image.open(io.BytesIO(scaled.content)).size == (64, 64)
    assert client.get(f"{ORIGIN}/images/0/00/Nobody.png/revision/latest").status_code == 404


def test_a_broken_picture_is_served_as_it_is_even_to_a_client_that_accepts_webp(client: Client, world: World) -> None:
    name = f"{world.kids[NUM_KIDS].name}.png"
    served = client.get(f"{ORIGIN}/images/{hash_path(name)}", headers={"Accept": "image/webp"})
    assert served.content == world.files[name].data
    assert served.headers["Content-Type"] == "image/png"


def test_answers_are_compressed_for_clients_that_can_read_that(client: Client) -> None:
    parameters = {"action": "query", "format": "json", "formatversion": "2", "titles": "Lake"}
    packed = client.get(f"{ORIGIN}/api.php", params=parameters)
    plain = client.get(f"{ORIGIN}/api.php", params=parameters, headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.json() == plain.json()


def test_parameters_may_be_posted(client: Client) -> None:
    form = {"action": "query", "format": "json", "formatversion": "2", "titles": "Lake"}
    assert (
        client.session.post(f"{ORIGIN}/api.php", data=form, timeout=10).json()["query"]["pages"][0]["title"] == "Lake"
    )


def test_requests_are_counted_and_keep_their_connection(wiki: DemoWikiServer, client: Client) -> None:
    client.query(titles="Lake")
    client.get(f"{ORIGIN}/robots.txt")
    client.get(f"{wiki.url}/wiki/Lake")
    client.get(f"{ORIGIN}/images/x")
    assert wiki.requests == {"api": 1, "robots": 1, "page": 1, "image": 1}


def test_it_is_no_proxy_to_elsewhere(wiki: DemoWikiServer, client: Client) -> None:
    assert client.get("http://elsewhere.invalid/").status_code == 403
    assert wiki.requests == {"refused": 1}


def test_a_fault_takes_the_place_of_an_answer(wiki: DemoWikiServer, client: Client) -> None:
    wiki.fault = lambda path: (429, {"Retry-After": "1"}, b"") if path.startswith("/api.php?") else None
    busy = client.get(f"{ORIGIN}/api.php?action=query")
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "1")
    assert client.get(f"{ORIGIN}/robots.txt").ok
    wiki.fault = lambda path: (200, {"Content-Length": "100"}, b"half")
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        client.get(f"{ORIGIN}/robots.txt")


@pytest.mark.parametrize("title", ["Main Page", "Portal:Characters", "Category:Kids", "File:Pixel.png", "The late kid"])
def test_pages_for_people(client: Client, title: str) -> None:
    page = client.get(f"{ORIGIN}/wiki/{title.replace(' ', '_')}")
    soup = BeautifulSoup(page.text, "lxml")
    assert page.status_code == 200
    assert soup.h1.get_text() == title
    for image in soup.select("img")[:3]:
        assert client.get(f"{ORIGIN}{image['src']}").ok
    assert client.get(f"{ORIGIN}/wiki/Nobody").status_code == 404


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("portal: characters ", "Portal:Characters"),
        ("image:ada_birch.png", "File:Ada birch.png"),
        (":lake", "Lake"),
        ("Zoë  O'Dell", "Zoë O'Dell"),
        ("a: b", "A: b"),
    ],
)
def test_titles_follow_mediawikis_rules(text: str, title: str) -> None:
    assert normalised(text) == title


def test_a_client_that_asks_only_for_changes_waits_for_no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Kid] = []
    monkeypatch.setattr("sp_data.demo.wiki.world.draw", lambda kid, *_: drawn.append(kid) or draw(kid))
    with DemoWikiServer(build_world(NUM_KIDS)) as wiki:
        parameters = {"action": "query", "format": "json", "formatversion": "2", "meta": "siteinfo"}
        lists = {"list": "recentchanges|logevents", "siprop": "general|namespaces|statistics"}
        answer = Client(wiki).get(f"{ORIGIN}/api.php", params=parameters | lists).json()
        assert answer["query"].keys() >= {"recentchanges", "logevents", "general"}
        assert drawn == []
        name = wiki.world.kids[0].name
        assert (
            Client(wiki).get(f"{ORIGIN}/images/{hash_path(f'{name}.png')}").content
            == wiki.world.files[f"{name}.png"].data
        )
        assert [kid.name for kid in drawn] == [name]


def test_a_client_that_hangs_up_leaves_no_traceback(wiki: DemoWikiServer, capfd: pytest.CaptureFixture[str]) -> None:
    address = urlsplit(wiki.url)
    for _ in range(5):
        client = socket.create_connection((address.hostname, address.port))
        client.sendall(b"GET /api.php HTTP/1.1\r\n")
        # Closed with a reset, as when a process is killed.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    deadline = time.monotonic() + 10
    while any("process_request" in thread.name for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert capfd.readouterr().err == ""
