"""The made-up wiki's pages as wikitext: kids, class pages, file descriptions, templates.

A real MediaWiki can render the templates, so that the same pages can be loaded into one.
"""

import random
from collections.abc import Sequence

from sp_data.demo.kids.kid import Kid

TEMPLATES = {
    "Template:Infobox kid": """<includeonly><infobox>
<title source="name"><default>{{PAGENAME}}</default></title>
<image source="image"><caption source="caption"/></image>
<group><header>Looks</header>
<data source="coat"><label>Coat</label></data>
<data source="hat"><label>Hat</label></data>
<data source="hat kind"><label>Hat kind</label></data>
<data source="hair"><label>Hair</label></data>
<data source="skin"><label>Skin</label></data></group>
<group><header>Whereabouts</header><data source="place"><label>Place</label></data></group>
</infobox></includeonly><noinclude>What a kid looks like, and where to find it.</noinclude>""",
    "Template:CC-BY-SA": "<includeonly>This file is licensed under the ''Creative Commons Attribution-Share Alike"
    " License''.[[Category:CC-BY-SA images]]</includeonly><noinclude>For cut-outs made by their uploader.</noinclude>",
    "Template:Fairuse": "<includeonly>This file is copyrighted. It is used under ''fair use''."
    "[[Category:Fair use images]]</includeonly><noinclude>For pictures from the show.</noinclude>",
    "Template:Opt-out": "<includeonly>The author asks that this file be left out of every training set."
    "[[Category:Opted out]]</includeonly><noinclude>For authors who do not want their work trained on.</noinclude>",
}
CATEGORIES = {
    "Category:Kids": "Everybody who was ever cut out.",
    "Category:Classes": "All classes of the paper school.",
    "Category:Pictures of kids": "One kid at a time.\n[[Category:Pictures]]",
    "Category:Pictures": "All pictures.",
    "Category:CC-BY-SA images": "Free to share alike.\n[[Category:Pictures]]",
    "Category:Fair use images": "Pictures from the show.\n[[Category:Pictures]]",
    "Category:Opted out": "Their authors said no.",
}
PLACES = {
    "Bus stop": "The '''bus stop''' is where the day begins. Nobody has ever seen the bus.",
    "Lake": "The '''lake''' is made of one large sheet of pale paper. It is never warm enough to swim.",
    "School": "The '''school''' has eight windows and one door. See also: [[Class of 1990]].",
    "Hill": "The '''hill''' is as high as two kids and good for sledging.",
}
MAIN_PAGE = """[[File:Paper Kids logo.svg|120px]]
Welcome to the '''Paper Kids Wiki''', the encyclopedia of a town where everything is cut from paper.

* [[Portal:Characters|All characters]]
* [[Class of 1990]]
* The [[bus stop]], the [[lake]], the [[school]] and the [[hill]]
* The [[theme song]]
"""
LEADS = (
    "'''{name}''' is a kid with {hair} hair who can usually be found at the {place}.",
    "'''{name}''' is a kid in a {coat} coat. There is {hair} hair under that {hat} {hat_kind}.",
    "'''{name}''' waits at the {place}, come rain or snow, always in the same {coat} coat.",
    "'''{name}''' is the kid with the {hat} {hat_kind}, known for {hair} hair and for being late.",
    "'''{name}''', a kid with {skin} skin and {hair} hair, lives near the {place}.",
)
MORE = (
    "Nobody has ever seen {name} without the {hat} {hat_kind}.",
    "''\"It is only paper\"'' is what {name} says about everything.",
    "{name} was cut out on a Tuesday.",
    "The {coat} coat was a present from [[{friend}]].",
    "",
)


def kid_page(kid: Kid, image: str, friend: Kid, dice: random.Random) -> str:
    """An article with an infobox about `kid`, whose picture is the file `image`."""
    # Editors are inconsistent: some link the place, some write no caption, some add spaces.
    place = f"[[{kid.place}]]" if dice.random() < 0.1 else kid.place
    caption = [] if dice.random() < 0.1 else [f"|caption = {kid.name} at the {kid.place}"]
    pad = "  " if dice.random() < 0.1 else ""
    fields = {name: getattr(kid, name) for name in ("name", "coat", "hat", "hat_kind", "hair", "skin", "place")}
    lead, remark = dice.choice(LEADS).format(**fields), dice.choice(MORE).format(**fields, friend=friend.name)
    gallery = [
        "",
        "== Gallery ==",
        "<gallery>",
        f"{image}|{kid.name} in the {kid.coat} coat",
        f"{friend.name}.png|{kid.name}'s friend [[{friend.name}]]",
        "</gallery>",
    ]
    lines = [
        "{{Infobox kid",
        f"|name = {kid.name}",
        f"|image = {image}",
        *caption,
        f"|coat = {pad}{kid.coat}",
        f"|hat = {kid.hat}{pad}",
        f"|hat kind = {kid.hat_kind}",
        f"|hair = {kid.hair}",
        f"|skin = {kid.skin}",
        f"|place = {place}",
        "}}",
        f"{lead} {remark}".rstrip(),
        *(gallery if dice.random() < 0.3 else []),
        "",
        "[[Category:Kids]]",
    ]
    return "\n".join(lines)


def thumb_page(kid: Kid, image: str) -> str:
    """An article without an infobox: the picture is a thumbnail in its text."""
    return (
        f"[[File:{image}|thumb|right|220px|{kid.name} in a {kid.coat} coat at the {kid.place}|alt=a kid in a {kid.hat} "
        f"{kid.hat_kind}]]\n'''{kid.name}''' is too new in town to have an infobox.\n\n[[Category:Kids]]\n"
    )


def class_page(year: int, members: Sequence[Kid], dice: random.Random) -> str:
    """A gallery of several kids' pictures, with other captions than on the kids' own pages."""
    remarks = ("in the front row", "blinking, as always", "with paper glue", "on the last day of school", "again")
    lines = [f"{kid.name}.png|[[{kid.name}]] {dice.choice(remarks)}" for kid in members]
    # Wikis keep galleries that show deleted files.
    lines.insert(len(lines) // 2, f"Teacher of {year}.png|The teacher")
    body = "\n".join(lines)
    return f"The '''class of {year}''' of the [[school]].\n\n<gallery>\n{body}\n</gallery>\n\n[[Category:Classes]]\n"


def portal_page(entries: Sequence[tuple[str, str]]) -> str:
    """Portal:Characters: a gallery with every `(file, article)`."""
    body = "\n".join(f"{file}|[[{article}]]|link={article}" for file, article in entries)
    return f'== Characters ==\n<gallery widths="185" hideaddbutton="true">\n{body}\n</gallery>\n__NOTOC__\n'


def file_page(summary: str, licence: str, category: str) -> str:
    """A file's description page; `licence` is a template's name."""
    return f"== Summary ==\n{summary}\n\n== Licensing ==\n{{{{{licence}}}}}\n[[Category:{category}]]\n"
