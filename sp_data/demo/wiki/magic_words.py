"""The magic words and messages of an English MediaWiki, as far as the made-up wiki's pages could use them."""

from sp_data.demo.wiki.listings import Answer

VARIABLES = ("basepagename", "fullpagename", "namespace", "pagename", "sitename", "subpagename")
EXTENSION_TAGS = ("pre", "nowiki", "gallery", "indicator", "langconvert", "infobox", "ref", "references")
_WORDS: dict[str, tuple[str, ...]] = {
    **{name: (name.upper(),) for name in VARIABLES},
    "redirect": ("#REDIRECT",),
    "notoc": ("__NOTOC__",),
    "toc": ("__TOC__",),
    "noeditsection": ("__NOEDITSECTION__",),
    "img_thumbnail": ("thumb", "thumbnail"),
    "img_manualthumb": ("thumbnail=$1", "thumb=$1"),
    "img_right": ("right",),
    "img_left": ("left",),
    "img_none": ("none",),
    "img_center": ("center", "centre"),
    "img_framed": ("frame", "framed", "enframed"),
    "img_frameless": ("frameless",),
    "img_lang": ("lang=$1",),
    "img_page": ("page=$1", "page $1"),
    "img_upright": ("upright", "upright=$1", "upright $1"),
    "img_border": ("border",),
    "img_baseline": ("baseline",),
    "img_sub": ("sub",),
    "img_super": ("super", "sup"),
    "img_top": ("top",),
    "img_text_top": ("text-top",),
    "img_middle": ("middle",),
    "img_bottom": ("bottom",),
    "img_text_bottom": ("text-bottom",),
    "img_link": ("link=$1",),
    "img_alt": ("alt=$1",),
    "img_class": ("class=$1",),
    "img_width": ("$1px",),
}
_ANY_CASE = ("redirect", "notoc", "toc", "noeditsection")
_MESSAGES = {
    "license-header": "Licensing",
    "license": "Licensing:",
    "licenses": "-",
    "filedesc": "Summary",
    "fileuploadsummary": "Summary:",
    "listfiles_description": "Description",
    "upload-form-label-infoform-description": "Description",
}


def magic_words() -> list[Answer]:
    return [
        {"name": name, "aliases": list(aliases), "case-sensitive": name not in _ANY_CASE}
        for name, aliases in _WORDS.items()
    ]


def messages(wanted: list[str]) -> list[Answer]:
    """The answer to meta=allmessages: an unknown message is missing."""
    return [
        {"name": name, "normalizedname": name}
        | ({"content": _MESSAGES[name]} if name in _MESSAGES else {"missing": True})
        for name in wanted
    ]
