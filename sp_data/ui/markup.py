"""The HTML that Gradio has no component for: pictures with what is known of them, and how a drawing goes.

Every text goes through `html_text`: prompts, captions, titles and errors are other people's words.

A button says what it does in its data, and page.js does it:

    data-fill='{"dream-seed": 7}'            puts values into fields, by the fields' ids
    data-pick="variation generated/x.png"    takes a picture of the lake to a tab
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from sp_data.foreign_text import html_text, is_web_address
from sp_data.recipe import Recipe
from sp_data.ui.drawing import DrawnPicture, Moment

if TYPE_CHECKING:
    from sp_data.generation.search import Neighbour

SMALL_PX = 128
"""Up to this side the pixels of a picture are shown as squares."""
SHOWN_PX = 320
"""The side that a small picture is enlarged to, or nearly: by a whole factor."""


def generated_address(name: str) -> str:
    """Where the page serves a generated picture."""
    return f"lake/generated/{quote(name)}"


def picture_address(key: str) -> str:
    """Where the page serves a picture of the dataset."""
    return f"lake/pictures/{quote(key)}.jpg"


def image(address: str, alt: str, size: tuple[int, int] | None = None) -> str:
    """An <img>; a small one is enlarged by a whole factor."""
    attributes = f'src="{html_text(address)}" alt="{html_text(alt)}" loading="lazy"'
    if size is None:
        return f"<img {attributes}>"
    width, height = size
    attributes += f' width="{width}" height="{height}"'
    longer = max(size)
    if longer > SMALL_PX:
        return f"<img {attributes}>"
    return f'<img {attributes} class="sp-small" style="--side:{width * (SHOWN_PX // longer)}px">'


def link(address: str, text: str, *, classes: str = "") -> str:
    """A link to another site, which is not told where it was followed; text alone without an address."""
    if not is_web_address(address):
        return f"<span>{html_text(text)}</span>"
    attributes = f'class="{classes}" href="{html_text(address)}" target="_blank" rel="noopener noreferrer"'
    return f"<a {attributes}>{html_text(text)}</a>"


def notice(sentence: str, kind: str = "note") -> str:
    """A sentence in a box; `kind`: note or bad."""
    role = "alert" if kind == "bad" else "status"
    return f'<p class="sp-notice sp-{kind}" role="{role}">{html_text(_sentence(sentence))}</p>'


def _sentence(text: str) -> str:
    text = text.strip()
    # A file's name keeps its letters.
    first = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]
    return first + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else ".")


# How a drawing goes


def status(moment: Moment, notes: Iterable[str] = ()) -> str:
    """A line, and a bar while it draws."""
    said = "".join(notice(note) for note in notes)
    if moment.phase == "failed":
        return said + notice(moment.sentence, "bad")
    bar = ""
    if moment.phase == "drawing" and moment.num_steps:
        bar = f'<progress max="{moment.num_steps}" value="{moment.step}" aria-label="steps"></progress>'
    elif not moment.is_end:
        bar = '<progress aria-label="waiting"></progress>'
    return f'{said}<div class="sp-status"><p>{html_text(_status_line(moment))}</p>{bar}</div>'


def _status_line(moment: Moment) -> str:
    drawn, wanted = len(moment.pictures), moment.num_pictures
    pictures = f"{wanted} picture{'s' * (wanted != 1)}"
    if moment.phase == "waiting":
        before = moment.num_before
        return f"Waiting: {before} drawing{'s' * (before != 1)} before yours." if before else "Starting…"
    if moment.phase == "loading":
        return "Loading the models, once: some ten seconds…"
    if moment.phase == "drawing":
        if not moment.num_steps:
            return f"Drawing {pictures}…"
        return f"Drawing {pictures}: step {moment.step} of {moment.num_steps}" + (f", {drawn} done" if drawn else "")
    if moment.phase == "cancelled":
        kept = f"; {drawn} of {pictures} were drawn" if drawn else ""
        return f"Cancelled at step {moment.step} of {moment.num_steps}{kept}." if moment.num_steps else "Cancelled."
    return f"{pictures}, kept in generated/ of the lake."


# Generated pictures


def drawn_cards(pictures: Sequence[DrawnPicture], tab: str, recipe: Recipe) -> str:
    return _cards(_drawn_card(picture, tab, recipe) for picture in pictures)


def _cards(cards: Iterable[str]) -> str:
    return f'<div class="sp-cards">{"".join(cards)}</div>'


def _drawn_card(drawn: DrawnPicture, tab: str, recipe: Recipe) -> str:
    made, address = drawn.made, generated_address(drawn.name)
    alt = made.prompt or f"{made.origin['kind']} of {_input_name(made.origin)}"
    # The seed of the best of some is that of the picture itself.
    fields = {f"{tab}-seed": made.seed, f"{tab}-best-of": 1}
    match = made.scores.get("clip", made.scores.get("clip_input"))
    words = "its prompt" if "clip" in made.scores else "the picture it was made from"
    again = "Use this seed again: with equal words and settings it gives this very picture"
    facts = [
        f'<button type="button" data-fill="{html_text(json.dumps(fields))}" title="{again}">seed {made.seed}</button>'
    ]
    if match is not None:
        facts.append(
            f'<span title="Cosine between CLIP’s embeddings of the picture and of {words}">match {match:.2f}</span>'
        )
    return (
        '<figure class="sp-card">'
        f'<a class="sp-picture" href="{html_text(address)}" target="_blank" title="Open the picture alone">'
        f"{image(address, alt, made.picture.size)}</a>"
        f'<figcaption><p class="sp-words">{html_text(alt)}</p><p class="sp-facts">{"".join(facts)}</p>'
        f'<p class="sp-facts"><a href="{html_text(address)}" download="{html_text(drawn.name)}">Download</a>'
        f"{_picks(f'generated/{drawn.name}')}</p>{_nearest(drawn, recipe)}</figcaption></figure>"
    )


def _input_name(origin: dict[str, object]) -> str:
    inputs = origin.get("inputs")
    return str(inputs[0]["name"]) if isinstance(inputs, list) and inputs else "a picture"


def _picks(path: str) -> str:
    return "".join(
        f'<button type="button" data-pick="{tab} {html_text(path)}" title="{title}">{label}</button>'
        for tab, label, title in (
            ("variation", "Vary", "Make pictures like this one"),
            ("inpaint", "Repaint", "Draw a part of this one anew"),
        )
    )


def _nearest(drawn: DrawnPicture, recipe: Recipe) -> str:
    nearest = drawn.nearest
    if nearest.why_not:
        return f'<p class="sp-muted">Nearest training pictures: {html_text(nearest.why_not)}.</p>'
    if not nearest.neighbours:
        return ""
    warning = ""
    if nearest.copied is not None and nearest.threshold is not None:
        warning = (
            f'<p class="sp-copy" role="note"><b>Nearly a copy</b> of {html_text(nearest.copied.title)}: nearer to it '
            f"than {nearest.threshold.quantile:.0%} of the held-out pictures are to any training picture.</p>"
        )
    thumbnails = "".join(_near(neighbour, recipe) for neighbour in nearest.neighbours)
    return f'{warning}<p class="sp-muted">Nearest training pictures</p><div class="sp-near">{thumbnails}</div>'


def _near(neighbour: Neighbour, recipe: Recipe) -> str:
    title = f"{neighbour.title}: {neighbour.caption}"
    picture = image(picture_address(neighbour.key), neighbour.title)
    address = wiki_address(neighbour, recipe)
    inner = f"{picture}<span>{neighbour.cosine:.3f}</span>"
    if not address:
        return f'<span class="sp-thumb" title="{html_text(title)}">{inner}</span>'
    return (
        f'<a class="sp-thumb" title="{html_text(title)}" href="{html_text(address)}" target="_blank" '
        f'rel="noopener noreferrer">{inner}</a>'
    )


def wiki_address(neighbour: Neighbour, recipe: Recipe) -> str:
    """Where the wiki shows the page of a picture, else the picture; empty for the demo's wiki, which nobody serves."""
    # Its module is loaded with the index.
    from sp_data.generation.explain import page_address

    if recipe.source.demo is not None:
        return ""
    address = page_address(recipe, neighbour.page, neighbour.revision) or neighbour.url
    return address if is_web_address(address) else ""


# Pictures of the dataset


def found_cards(neighbours: Iterable[Neighbour], recipe: Recipe, *, is_search: bool) -> str:
    """Pictures of the dataset with caption, licence and page; `is_search`: with their cosines."""
    return _cards(_found_card(neighbour, recipe, is_search=is_search) for neighbour in neighbours)


def _found_card(neighbour: Neighbour, recipe: Recipe, *, is_search: bool) -> str:
    address = wiki_address(neighbour, recipe)
    source = neighbour.page or neighbour.title
    licence = neighbour.licence or "licence unknown"
    by = f"by {neighbour.uploader}" if neighbour.uploader else "uploader unknown"
    facts = [f"<span>{html_text(neighbour.split)}</span>"]
    if is_search:
        facts.append(f'<span title="Cosine with what was searched for">{neighbour.cosine:.3f}</span>')
    return (
        '<figure class="sp-card sp-found">'
        f'<div class="sp-picture">{image(picture_address(neighbour.key), neighbour.caption or neighbour.title)}</div>'
        f'<figcaption><p class="sp-words">{html_text(neighbour.caption) or "<i>without a caption</i>"}</p>'
        f'<p class="sp-muted">{html_text(neighbour.title)} · {link(address, f"page {source}")}</p>'
        f'<p class="sp-muted">{html_text(licence)}, {html_text(by)}</p>'
        f'<p class="sp-facts">{"".join(facts)}</p><p class="sp-facts">{_picks(f"pictures/{neighbour.key}")}</p>'
        "</figcaption></figure>"
    )


def dropped_card(picture: str, title: str, reason: str, detail: str) -> str:
    """A picture that was dropped; `picture` is a data URI, empty where there is none to show."""
    shown = image(picture, title) if picture else '<span class="sp-none">no picture to show</span>'
    return (
        f'<figure class="sp-card sp-found"><div class="sp-picture">{shown}</div><figcaption>'
        f'<p class="sp-words">{html_text(title)}</p><p class="sp-muted"><b>{html_text(reason)}</b>'
        f"{f': {html_text(detail)}' if detail else ''}</p></figcaption></figure>"
    )


def dropped_cards(cards: Iterable[str]) -> str:
    return _cards(cards)


def suggestions(captions: Iterable[str], field: str) -> str:
    """Captions as buttons that put themselves into a field."""
    buttons = "".join(
        f'<button type="button" data-fill="{html_text(json.dumps({field: caption}))}">{html_text(caption)}</button>'
        for caption in captions
    )
    return f'<p class="sp-suggestions"><span>Try</span>{buttons}</p>' if buttons else ""
