"""A list of changes to the sample wiki: every kind of change that a wiki's pictures and pages go through.

`visible_changes` are in the wiki's lists of changes; `imports`, dated years back, are in none of them.
"""

from __future__ import annotations

import time
from pathlib import Path

from mediawiki.sample import FILE_PAGES, KID, draw_files
from mediawiki.wiki import Op

OLD = "20140305000000"
CAST = "<includeonly><gallery>\n{}|In the cast\n</gallery></includeonly>"


def visible_changes(folder: Path) -> list[Op]:
    """34 operations on `sample_ops(..., num_kids)`'s wiki of at least 24 kids; `folder` gets the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_files(folder, 40)

    def picture(number: int) -> Path:
        return folder / f"Kid-{number:03d}.png"

    def kid(number: int, **changed: str) -> str:
        fields = {
            "kid": f"Kid {number:03d}",
            "file": f"Kid-{number:03d}.png",
            "number": f"{number:03d}",
            "friend": "Pilot",
            "friend_file": "Pixel.png",
            "gender": "Female",
            "noun": "girl",
            "hair": "Green",
            "hair_colour": "green",
        }
        text = KID.replace("{number:03d}", "{number}")
        return text.format(**(fields | changed))

    return [
        # Files
        _upload(picture(30), "Newcomer.png", FILE_PAGES[0].format("A newcomer")),
        _upload(picture(31), "Kid-005.png"),  # new bytes
        _upload(picture(7), "Kid-006.png"),  # bytes that another name has
        # MediaWiki keeps one old version a second.
        {**_upload(picture(32), "Kid-007.png"), "ts": time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() - 60))},
        _upload(picture(7), "Kid-007.png"),  # reverted: the bytes it had
        _delete("File:Kid-008.png"),
        _delete("File:Kid-009.png"),
        _undelete("File:Kid-009.png"),
        _undelete("File:Doomed.png"),  # deleted before the first scrape
        _move("File:Kid-010.png", "File:Renamed with a redirect.png"),
        _move("File:Kid-011.png", "File:Renamed without.png", redirect=False),
        _move("File:Kid-012.png", "File:Between.png"),
        _move("File:Between.png", "File:Renamed twice.png"),
        _delete("File:Old name.png"),  # a redirect
        _move("File:Kid-013.png", "File:Swap.png", redirect=False),
        _move("File:Kid-014.png", "File:Kid-013.png", redirect=False),
        _delete("File:Dancing.gif"),
        _upload(folder / "Dancing.gif", "Dancing.gif", "Uploaded once more."),
        # Pages about them
        _edit("Kid 000", kid(0)),
        _edit("Kid 001", "'''Kid 001''' has no infobox any more.\n[[File:Pixel.png|thumb|A pixel of a kid]]"),
        _edit("Newcomer", "{{Infobox character|image=Newcomer.png|hair=Blue}}\nThe '''newcomer''' has blue hair."),
        _edit("File:Kid-002.png", "== Summary ==\nAnother summary.\n{{Self}}\n{{CC-BY-SA}}\n[[Category:Fan art]]"),
        _edit("File:Kid-003.png", "{{Fairuse}}"),  # out of its category
        _move("Kid 015", "Kid fifteen"),
        _move("Kid 016", "Kid sixteen", redirect=False),
        _delete("Kid 017"),
        _delete("Kid 018"),
        _undelete("Kid 018"),
        _edit("Kid 019", "#REDIRECT [[Kid 020]]"),
        _edit("The Kid", "The '''kid''' is a page now.\n[[File:Webp-kid.webp|thumb|Not a redirect]]"),
        _edit(
            "Portal:Characters", "<gallery>\nKid-000.png|[[Kid 000]]\nNewcomer.png|[[Newcomer]]\n</gallery>\n{{Cast}}"
        ),
        # Templates: one that gives categories, one that shows a picture, one that no caption depends on
        _edit("Template:Fairuse", "<includeonly>Fair use.[[Category:Fair use]]</includeonly>"),
        _edit("Template:Cast", CAST.format("Kid-020.png")),
        _edit("Template:Infobox character", "<includeonly>Not an infobox any more.</includeonly>"),
    ]


def imports(folder: Path) -> list[Op]:
    """Two operations that no list of changes shows, as after an import of another wiki's history."""
    return [
        {**_upload(folder / "Kid-033.png", "Imported.png", "From elsewhere."), "ts": OLD},
        {**_edit("Imported", "[[File:Imported.png|thumb|An import]]"), "ts": OLD},
    ]


def _upload(source: Path, name: str, text: str = "") -> Op:
    return {"op": "upload", "name": name, "src": str(source.resolve()), "text": text}


def _edit(title: str, text: str) -> Op:
    return {"op": "edit", "title": title, "text": text}


def _delete(title: str) -> Op:
    return {"op": "delete", "title": title}


def _undelete(title: str) -> Op:
    return {"op": "undelete", "title": title}


def _move(old: str, new: str, *, redirect: bool = True) -> Op:
    return {"op": "move", "from": old, "to": new, "redirect": redirect}
