"""The page's HTML: other people's words stay words."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
from PIL import Image

from sp_data.generation.explain import NearThreshold
from sp_data.generation.picture import GeneratedPicture
from sp_data.generation.search import Neighbour
from sp_data.recipe import Recipe, load_recipe
from sp_data.ui import markup
from sp_data.ui.drawing import DrawnPicture
from sp_data.ui.state import Nearest

HOSTILE = "\"><img src=x onerror='alert(1)'><script>alert(2)</script>"
WIKI = ["source.wiki=https://kids.fandom.com", "source.acknowledge_terms=true", "source.contact=kid@example.org"]


def _recipe(*, is_demo: bool = False) -> Recipe:
    return load_recipe("demo") if is_demo else load_recipe("southpark", WIKI)


def _neighbour(cosine: float = 0.5, **fields: object) -> Neighbour:
    given = {
        "key": "000070042",
        "tar": "shards/00007.tar",
        "cosine": cosine,
        "title": "File:Jory Frost.png",
        "page": "Jory Frost",
        "revision": 412,
        "licence": "CC-BY-SA",
        "uploader": "Paper Cut",
        "url": "https://static.example/Jory.png",
        "caption": "a kid in a red coat",
        "split": "train",
        **fields,
    }
    return Neighbour.model_validate(given)


def _drawn(prompt: str, nearest: Nearest, side: int = 64) -> DrawnPicture:
    origin = {"kind": "dream", "prompt": prompt, "seed": 7, "decoder": []}
    return DrawnPicture(GeneratedPicture(Image.new("RGB", (side, side)), origin, {"clip": 0.31}), nearest)


class _Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_hostile_words_stay_words_everywhere() -> None:
    hostile = _neighbour(title=HOSTILE, page=HOSTILE, licence=HOSTILE, uploader=HOSTILE, caption=HOSTILE, url=HOSTILE)
    for recipe in (_recipe(), _recipe(is_demo=True)):
        for html in (
            markup.found_cards([hostile], recipe, is_search=True),
            markup.drawn_cards([_drawn(HOSTILE, Nearest((hostile,)))], "dream", recipe),
            markup.dropped_card("", HOSTILE, HOSTILE, HOSTILE),
            markup.suggestions([HOSTILE], "dream-prompts"),
            markup.notice(HOSTILE, "bad"),
        ):
            read = _Tags(html)
            assert "script" not in read.tags
            assert not [name for name, _ in read.attributes if name.startswith("on")]
            assert all(value != "x" for name, value in read.attributes if name == "src")


def test_an_address_that_is_no_web_page_is_not_linked() -> None:
    assert markup.link("javascript:alert(1)", "page") == "<span>page</span>"
    assert 'rel="noopener noreferrer"' in markup.link("https://kids.fandom.com/wiki/Jory", "page")


def test_a_found_picture_names_caption_licence_uploader_and_the_wiki_s_page() -> None:
    html = markup.found_cards([_neighbour()], _recipe(), is_search=True)
    for words in ("a kid in a red coat", "CC-BY-SA", "by Paper Cut", "train", "0.500"):
        assert words in html
    assert 'href="https://kids.fandom.com/wiki/Jory_Frost?oldid=412"' in html


def test_the_demo_s_wiki_is_not_linked_since_nobody_serves_it() -> None:
    assert "paper-kids" not in markup.found_cards([_neighbour()], _recipe(is_demo=True), is_search=False)


def test_what_is_nearly_a_copy_is_warned_of() -> None:
    threshold = NearThreshold(0.9, 0.95, 100)
    near = markup.drawn_cards([_drawn("a kid", Nearest((_neighbour(0.95),), threshold))], "dream", _recipe())
    assert "<b>Nearly a copy</b> of File:Jory Frost.png: nearer to it than 95%" in near
    far = markup.drawn_cards([_drawn("a kid", Nearest((_neighbour(0.85),), threshold))], "dream", _recipe())
    assert "Nearly a copy" not in far
    unknown = markup.drawn_cards([_drawn("a kid", Nearest((_neighbour(0.99),), None))], "dream", _recipe())
    assert "Nearly a copy" not in unknown


def test_a_small_picture_is_enlarged_by_a_whole_factor_and_a_large_one_is_not() -> None:
    assert 'style="--side:320px"' in markup.image("a.png", "", (64, 64))
    assert 'style="--side:288px"' in markup.image("a.png", "", (96, 64))
    assert "style" not in markup.image("a.png", "", (256, 256))


def test_a_seed_s_button_fills_the_fields_of_its_tab() -> None:
    html = markup.drawn_cards([_drawn("a kid", Nearest())], "inpaint", _recipe())
    assert 'data-fill="{&quot;inpaint-seed&quot;: 7, &quot;inpaint-best-of&quot;: 1}"' in html
    assert np.isclose(float(html.partition("match ")[2].partition("<")[0]), 0.31)


def test_a_sentence_begins_with_a_capital_unless_with_a_file_s_name() -> None:
    assert "No space left.</p>" in markup.notice("no space left")
    assert "noise.png cannot be read." in markup.notice("noise.png cannot be read")
