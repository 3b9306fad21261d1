"""The same facts asserted of the demo's wiki and of a real MediaWiki, so that the demo's cannot drift from it."""

from __future__ import annotations

import hashlib
import logging

import pytest
import requests

from sp_data.errors import WikiApiError, WikiBlocked
from sp_data.wiki.changes import Mark, Title, ask_changes
from sp_data.wiki.facts import Facts
from sp_data.wiki.files import list_files
from sp_data.wiki.gather import gather
from sp_data.wiki.http.client import CONTENT, Json, WikiClient
from sp_data.wiki.pages import ask_usage, read_articles, render
from sp_data.wiki.parse import html as rendered
from sp_data.wiki.parse import wikitext
from sp_data.wiki.update import update

ALL_FILES = {"generator": "allimages"}


def listed(client: WikiClient) -> Facts:
    facts = Facts()
    render(client, facts, client.source.portals)
    list_files(client, facts)
    return facts


def names(pages: list[Json]) -> list[str]:
    return [page["title"] for page in pages]


def text_of(client: WikiClient, title: str) -> str:
    (page,) = client.pages({"titles": title, "prop": "revisions", "rvprop": "content|ids", "rvslots": "main"})
    return str(page["revisions"][0]["slots"]["main"]["content"])


def test_the_wiki_tells_its_namespaces(subject):
    with subject.client() as client:
        assert client.namespaces.file_name("Image:a_b.png") == "A b.png"
        assert client.namespaces.category_name("category:x") == "X"
        assert client.namespaces.file_name("Portal:Characters") is None


def test_the_wiki_tells_its_language(subject, caplog):
    with subject.client() as client, caplog.at_level(logging.WARNING):
        words = client.namespaces.words
    assert caplog.text == ""
    assert {("img_thumbnail", "thumb"), ("img_upright", "upright $1"), ("img_width", "$1px")} <= set(words.options)
    assert "__NOTOC__" in words.switches
    assert (words.licence_headings, words.descriptions) == (("licensing",), ("description", "summary"))
    assert "infobox" in words.tags


@pytest.mark.parametrize("limit", [7, 50, "max"])
def test_every_file_is_listed_once_however_long_the_answers_are(subject, limit):
    with subject.client() as client:
        titles = names(list(client.pages({**ALL_FILES, "gailimit": limit})))
    assert len(titles) == len(set(titles))
    assert {title.removeprefix("File:") for title in titles} == set(subject.originals)


def test_imageinfo_tells_the_truth_about_the_bytes(subject):
    with subject.client() as client:
        files = listed(client).files.values()
    for file in files:
        original = subject.original(file.name)
        assert (file.bytes, file.sha1) == (len(original), hashlib.sha1(original).hexdigest())
        assert file.url.startswith(("http://127.0.0.1:", "http://paper-kids.localhost/"))
        assert file.url.rpartition("/")[2].startswith("latest?cb=20")
        assert file.uploaded_at.endswith("Z")
        assert file.uploader and file.page_id
    mimes = {file.name.rpartition(".")[2]: file.mime for file in files}
    assert mimes["png"] in ("image/png", "image/jpeg")
    assert mimes["svg"] == "image/svg+xml"
    assert mimes["ogg"] == "application/ogg"


def test_a_page_shows_its_files_and_red_links_are_no_files(subject):
    with subject.client(select="pages", pages=("Portal:Characters",)) as client:
        shown = set(listed(client).files)
    assert shown < set(subject.originals)
    assert subject.portrait in shown
    assert subject.not_on_portal not in shown


def test_a_category_holds_its_files(subject):
    with subject.client(select="categories", categories=(subject.category,)) as client:
        files = listed(client).files
    assert files.keys() == subject.in_category
    assert all(subject.category.removeprefix("Category:") in file.categories for file in files.values())


def test_categories_that_come_in_several_answers_are_joined(subject):
    with subject.client() as client:
        whole = list(client.pages({**ALL_FILES, "gailimit": 20, "prop": "imageinfo|categories", "cllimit": "max"}))
        before = client.transport.num_requests
        pieces = list(client.pages({**ALL_FILES, "gailimit": 20, "prop": "imageinfo|categories", "cllimit": 7}))
        assert client.transport.num_requests - before > len(whole) // 20 + 1
    assert {p["title"]: p.get("categories") for p in pieces} == {p["title"]: p.get("categories") for p in whole}
    assert all(len(page["imageinfo"]) == 1 for page in pieces)


def test_an_error_inside_http_200_is_an_error(subject):
    with subject.client() as client:
        with pytest.raises(WikiApiError, match="Too many values") as caught:
            list(client.pages({"titles": "|".join(map(str, range(51)))}))
        assert caught.value.code == "toomanyvalues"
        with pytest.raises(WikiApiError, match=r"no page 'No such page'.*source\.pages") as caught:
            client.rendered("No such page")
        assert caught.value.code == "missingtitle"
        with pytest.raises(WikiApiError) as caught:
            list(client.pages({**ALL_FILES, "gailimit": 5, "gaicontinue": "A.png", "continue": "nonsense"}))
        assert caught.value.code == "badcontinue"


def test_an_unknown_prop_is_only_a_warning(subject, caplog):
    with subject.client() as client, caplog.at_level(logging.WARNING):
        pages = list(client.pages({"titles": subject.article, "prop": "info|nonsense"}))
    assert names(pages) == [subject.article]
    assert 'Unrecognized value for parameter "prop": nonsense' in caplog.text


@pytest.mark.parametrize("select", ["pages", "categories", "all"])
def test_what_the_scraper_asks_for_is_all_known(subject, caplog, select):
    fields = {"select": select, "categories": (subject.category,)}
    with subject.client(**fields) as client, caplog.at_level(logging.WARNING, logger="sp_data.wiki.http.client"):
        mark = Mark.of(client.greet())
        facts = gather(client)
        changes = ask_changes(client, mark)
        file_titles = [Title(6, file.title) for file in facts.files.values()]
        again = update(
            client, facts, frozenset([*file_titles, Title(10, "Template:Fairuse"), Title(0, subject.article)])
        )
    assert caplog.text == ""
    assert (changes.touched, changes.doubt) == (frozenset(), "")
    assert again == facts


def test_the_lists_of_changes_tell_what_happened_by_the_wikis_own_clock(subject):
    with subject.client() as client:
        greeting = client.greet()
        answer = client.lists(
            {
                "list": "recentchanges|logevents",
                "rcdir": "newer",
                "rcprop": "ids|title|timestamp|loginfo",
                "rctype": "edit|new|log",
                "rclimit": 3,
                "ledir": "newer",
                "leprop": "ids|title|type|timestamp|details",
                "lelimit": "max",
            }
        )
    assert answer["curtimestamp"] >= greeting.clock
    assert len({event["logid"] for event in answer["logevents"]}) == len(answer["logevents"])
    uploads = {event["title"].removeprefix("File:") for event in answer["logevents"] if event["type"] == "upload"}
    # A moved file was uploaded under its old name.
    assert len(uploads) >= len(subject.originals)
    for entries in (answer["logevents"], answer["recentchanges"]):
        assert [entry["timestamp"] for entry in entries] == sorted(entry["timestamp"] for entry in entries)
        assert all(entry["ns"] == 6 for entry in entries if entry["title"].startswith("File:"))
    for newest, entries, number in (
        (greeting.changes, answer["recentchanges"], "rcid"),
        (greeting.events, answer["logevents"], "logid"),
    ):
        assert {entry[number] for entry in newest} == {entry[number] for entry in entries[-500:]}


def test_an_export_says_what_the_api_says(subject):
    params = {"generator": "allpages", "gaplimit": "max", "gapfilterredir": "nonredirects"}
    with subject.client() as client:
        before = client.api.num_asked
        exported = list(client.pages_with_text(params))
        assert client.api.num_asked - before <= 2
        listed = list(client.pages({**params, "gaplimit": 50, **CONTENT}))
    assert names(exported) == sorted(set(names(exported)), key=names(exported).index)
    assert set(names(exported)) == set(names(listed))
    listed_by_title = {page["title"]: page for page in listed}
    for page in exported:
        listed_page = listed_by_title[page["title"]]
        (revision,) = listed_page["revisions"]
        assert page["revisions"][0]["revid"] == revision["revid"]
        assert page["revisions"][0]["slots"]["main"]["content"] == revision["slots"]["main"]["content"]


def test_the_pages_that_show_a_file_are_known(subject):
    facts = Facts()
    with subject.client(article_namespaces=(0, 100)) as client:
        ask_usage(client, facts, [subject.portrait])
    assert {subject.article, "Portal:Characters"} <= set(facts.usage[subject.portrait])


def test_the_files_whose_pages_include_a_template_are_known(subject):
    params = {"generator": "transcludedin", "gtinamespace": 6, "gtilimit": 4, "titles": "Template:Fairuse"}
    with subject.client() as client:
        titles = set(names(list(client.pages(params))))
        pages = gather(client).file_pages
    assert titles == {f"File:{name}" for name, page in pages.items() if "Fairuse" in page.templates}


def test_redirects_come_with_the_page_they_lead_to(subject):
    params = {"generator": "allpages", "gaplimit": "max", "prop": "redirects", "rdprop": "title"}
    with subject.client() as client:
        whole = {page["title"]: page["redirects"] for page in client.pages(params) if "redirects" in page}
        pieces = {
            page["title"]: page["redirects"] for page in client.pages({**params, "rdlimit": 1}) if "redirects" in page
        }
    assert len(whole) == 2
    assert pieces == whole
    assert all(redirect["ns"] == 0 for redirects in whole.values() for redirect in redirects)


def test_a_missing_page_is_told_from_an_empty_one(subject):
    with subject.client() as client:
        (page,) = client.pages({"titles": "No such page", "prop": "revisions|imageinfo"})
    assert page["missing"] is True
    assert "revisions" not in page


def test_articles_are_read_with_their_revisions_and_without_redirects(subject):
    with subject.client() as client:
        facts = Facts()
        read_articles(client, facts)
        pages = facts.articles.values()
        listed = list(client.pages({"generator": "allpages", "gaplimit": "max", "prop": "info"}))
    assert len(pages) > 50
    redirects = {page["title"] for page in listed if page.get("redirect")}
    assert redirects
    assert {page.title for page in pages} == {page["title"] for page in listed} - redirects
    assert {page.title: page.revision for page in pages}.items() <= {p["title"]: p["lastrevid"] for p in listed}.items()


def test_file_pages_tell_licence_and_summary(subject):
    with subject.client() as client:
        facts = listed(client)
    pages = facts.file_pages
    assert pages.keys() <= facts.files.keys()
    assert {page.licence for page in pages.values()} >= {"Fairuse", "CC-BY-SA"}
    assert any(" as seen " in page.summary for page in pages.values())


def test_html_and_wikitext_of_an_article_say_the_same(subject):
    with subject.client() as client:
        text = text_of(client, subject.article)
        by_text = wikitext.read(text, subject.article, 1, 1, client.namespaces)
        page = client.rendered(subject.article)
    by_html = rendered.read(page["text"], page["title"], 1, 1)
    assert page["title"] == subject.article
    (box_text,), (box_html,) = by_text.infoboxes, by_html.infoboxes
    assert {use.name for use in box_html.pictures} == {subject.portrait} == {use.name for use in box_text.pictures}
    fields = {field: value for field, value in box_text.fields.items() if field != "caption"}
    assert dict(box_html.fields) == fields
    assert by_html.lead == by_text.lead != ""
    assert [(u.name, u.kind, u.caption) for u in by_html.uses] == [(u.name, u.kind, u.caption) for u in by_text.uses]


def test_a_portals_gallery_is_read_from_its_html(subject):
    with subject.client(select="pages") as client:
        facts = listed(client)
    (portal,) = facts.rendered.values()
    shown = {use.name: use.caption for use in portal.page.uses if use.kind == "gallery"}
    assert shown.keys() == facts.files.keys()
    assert set(portal.files) >= facts.files.keys()
    assert shown[subject.portrait] == subject.article


def test_the_original_comes_whatever_the_cdn_would_rather_give(subject):
    original = subject.original(subject.portrait)
    with subject.client() as client:
        url = listed(client).files[subject.portrait].url
        with client.transport.original(url) as response:
            assert response.content == original
            assert int(response.headers["Content-Length"]) == len(original)
    session = requests.Session()
    session.trust_env = False
    proxies = {"http": subject.proxy} if subject.proxy else {}
    like_a_browser = {"Accept": "image/avif,image/webp,*/*"}
    webp = session.get(url, headers=like_a_browser, proxies=proxies, timeout=10)
    assert webp.headers["Content-Type"] == "image/webp"
    assert webp.content != original
    requested = session.get(f"{url}&format=original", headers=like_a_browser, proxies=proxies, timeout=10)
    assert requested.content == original


def test_robots_txt_keeps_out_of_special_pages_only(subject):
    with subject.client() as client:
        client.transport._robots.check(f"{subject.address}/api.php?action=query")
        with pytest.raises(WikiBlocked, match=r"robots\.txt does not allow sp-data"):
            client.transport._robots.check(f"{subject.address}/wiki/Special:AllPages")
