"""Other people's text shows itself and does nothing: in terminals, logs, errors, JSON, Markdown and HTML."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import unicodedata
from html.parser import HTMLParser

import pytest
from fuzzing import few_and_many, fuzz
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from sp_data.errors import StageError, WikiApiError
from sp_data.foreign_text import (
    OneLineFilter,
    OneLineFormatter,
    html_text,
    is_web_address,
    json_text,
    markdown,
    markdown_code,
    markdown_link,
    one_line,
    web_address,
)
from sp_data.generation.picture import slug

PIECES = [
    "![x](http://evil.example/a.png)",
    "[x](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<!--",
    "&lt;b&gt;",
    "http://evil.example",
    "www.evil.example",
    "a@evil.example",
    "<http://evil.example>",
    "[x]: http://evil.example",
    "`",
    "``",
    "|",
    "\\|",
    "\\",
    "*",
    "**",
    "_",
    "~~",
    "#",
    "# ",
    "- ",
    "1. ",
    "> ",
    "    ",
    "\t",
    "\n",
    "\n\n",
    "---",
    "===",
    "$$",
    ":smile:",
    "[^1]",
    "\x1b]8;;http://evil.example\x07x\x1b]8;;\x07",
    "\x1b[2J",
    "\u202egnp.",
    "\x00",
    "\u2028",
    "\x85",
    "\r",
    "�",
    "\U000e0041",
    "\u200d",
    "é",
    "中文",
    "عربي",
    "👩\u200d🚀",
    "'",
    '"',
    "{{",
    "%s",
]
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=8).map("".join)
COMMONMARK = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def _inner(tokens: list[Token]) -> list[Token]:
    return [inner for token in tokens for inner in (token, *_inner(token.children or []))]


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\u200c\u200d"


def _words(text: str) -> str:
    return " ".join(re.split(" +", one_line(text))).strip()


@few_and_many
def test_a_line_has_no_character_that_acts(num_inputs: int) -> None:
    def read(text: str) -> None:
        line = one_line(text)
        assert not any(_acts(character) for character in line), ascii(line)
        assert one_line(line) == line
        if not any(_acts(character) for character in text):
            assert line == text
        line.encode()

    fuzz(texts, read, num_inputs)


@few_and_many
@pytest.mark.parametrize("form", ["paragraph", "item", "heading", "cell", "alt", "code"])
def test_markdown_shows_the_very_text(num_inputs: int, form: str) -> None:
    def read(text: str) -> None:
        safe = markdown_code(text) if form == "code" else markdown(text)
        document = {
            "paragraph": f"{safe}\n",
            "item": f"- {safe}: x\n",
            "heading": f"### {safe}\n",
            "cell": f"| a | b |\n|---|---|\n| {safe} | x |\n",
            "alt": f"![{safe}](data:image/jpeg;base64,AAAA)\n",
            "code": f"- in {safe}.\n",
        }[form]
        tokens = _inner(COMMONMARK.parse(document))
        kinds = {token.type for token in tokens}
        allowed = {"inline", "text", "text_special", "paragraph_open", "paragraph_close"}
        allowed |= {
            "paragraph": set(),
            "item": {"bullet_list_open", "list_item_open", "list_item_close", "bullet_list_close"},
            "heading": {"heading_open", "heading_close"},
            "cell": {
                f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")
            },
            "alt": {"image"},
            "code": {"bullet_list_open", "list_item_open", "list_item_close", "bullet_list_close", "code_inline"},
        }[form]
        assert kinds <= allowed, (document, kinds)
        shown = "".join(token.content for token in tokens if token.type in ("text", "text_special", "code_inline"))
        before, after = {"item": ("", ": x"), "cell": ("ab", "x"), "code": ("in ", ".")}.get(form, ("", ""))
        expected = one_line(text).strip() if form == "code" else _words(text)
        assert shown == f"{before}{expected}{after}", document

    fuzz(texts, read, num_inputs)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://a.example/x", r"see http\:\/\/a\.example\/x"),
        ("www.a.example", r"www\.a\.example"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("a|b", r"a\|b"),
        ("two\nlines", "two lines"),
        ("  # no heading ", r"\# no heading"),
    ],
)
def test_what_means_something_is_escaped(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        " http://a.example",
        "http:\\\\a.example",
        "//a.example",
        "http://",
        "http://a.example\\@b.example",
        "http://a b.example",
        "http://kid@b.example",
        "ftp://a.example",
        "",
        "http://a.example/\u202e",
        "http://a.example/\n",
        "vbscript:x",
        "file:///etc/passwd",
        "http://[::1",
    ],
)
def test_only_the_web_is_linked_to(address: str) -> None:
    assert not is_web_address(address)
    assert web_address(address) == ""
    assert markdown_link("x", address) == "x"


def test_a_link_leads_where_it_says() -> None:
    address = "https://kids.example/wiki/Jory_(Frost)?a=[b]&c=`<d>`"
    assert is_web_address(address)
    (opened,) = [t for t in _inner(COMMONMARK.parse(markdown_link("a](b", address))) if t.type == "link_open"]
    assert opened.attrs["href"] == "https://kids.example/wiki/Jory_%28Frost%29?a=%5Bb%5D&c=%60%3Cd%3E%60"


class _Parsed(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@few_and_many
def test_html_shows_the_very_text(num_inputs: int) -> None:
    def read(text: str) -> None:
        parsed = _Parsed(f'<p title="{html_text(text)}">{html_text(text)}</p>')
        assert (parsed.tags, parsed.attributes) == (["p"], [("title", one_line(text))])
        assert parsed.text == one_line(text)

    fuzz(texts, read, num_inputs)


@few_and_many
def test_json_is_the_same_value_and_plain(num_inputs: int) -> None:
    def read(text: str) -> None:
        line = json_text({"title": text, text: [text]})
        assert json.loads(line) == {"title": text, text: [text]}
        assert not any(_acts(character) for character in line)
        line.encode()

    fuzz(texts, read, num_inputs)
    assert json_text({"a": "é中"}) == '{"a": "é中"}'


@few_and_many
def test_a_picture_s_name_is_one_file_s_on_any_system(num_inputs: int) -> None:
    def read(text: str) -> None:
        name = f"{slug(text)}-seed-{2**53}-0123abcd.png"
        assert re.fullmatch(r"\w(?:[\w-]*\w)?-seed-\d+-0123abcd\.png", name), name
        assert len(name.encode()) < 200

    fuzz(
        st.one_of(texts, st.text(min_size=50), st.sampled_from(["..", "/", "-rf", "CON", "a" * 999, "é" * 999])),
        read,
        num_inputs,
    )


@few_and_many
def test_an_error_is_one_plain_line(num_inputs: int) -> None:
    def read(text: str) -> None:
        raise StageError(f"File:{text}.png is no picture")

    fuzz(texts, read, num_inputs, refusals=(StageError,))


def test_an_error_keeps_its_fields_and_can_be_sent() -> None:
    error = WikiApiError("no\x1b[2J such page", "missingtitle")
    assert (str(error), error.code) == ("no\\x1b[2J such page", "missingtitle")
    again = pickle.loads(pickle.dumps(StageError("a\nb")))
    assert (type(again), str(again)) == (StageError, "a b")


@pytest.mark.parametrize("by", ["formatter", "filter"])
def test_log_lines_cannot_be_forged(by: str) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    if by == "formatter":
        handler.setFormatter(OneLineFormatter("%(levelname)s %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        handler.addFilter(OneLineFilter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("fetched %s", "File:a\nERROR the disk is gone\x1b[2J.png")
    try:
        raise ValueError("File:b\x1b]0;title\x07.png")
    except ValueError:
        logger.exception("100%% of %s", "it\u202e")
    lines = out.getvalue().splitlines()
    assert lines[0] == "INFO fetched File:a ERROR the disk is gone\\x1b[2J.png"
    assert lines[1] == "ERROR 100% of it\\u202e"
    assert lines[2] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: File:b\\x1b]0;title\\x07.png"
