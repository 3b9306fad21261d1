"""The report's template shows any words as they are."""

from __future__ import annotations

from html.parser import HTMLParser

from fuzzing import few_and_many, fuzz
from hypothesis import strategies as st

from sp_data.foreign_text import one_line
from sp_data.report.page import _environment


class _Parsed(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.starts: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@few_and_many
def test_any_words_are_text(num_inputs: int) -> None:
    template = _environment().from_string(
        '<p title="{{ words }}">{{ words }}</p>{% if words is web_address %}<a href="{{ words }}">x</a>{% endif %}'
    )

    def read(words: str) -> None:
        parsed = _Parsed(template.render(words=words))
        first, *rest = parsed.starts
        assert first == ("p", [("title", one_line(words))])
        assert parsed.text.removesuffix("x" if rest else "") == one_line(words)
        for tag, attributes in rest:
            assert tag == "a" and str(attributes[0][1]).startswith(("http://", "https://"))

    addresses = st.builds(
        "{}{}".format, st.sampled_from(["http://", "https://", "javascript:", "//", "data:"]), st.text()
    )
    fuzz(st.one_of(st.text(), st.text("<>&\"'`={}%#x\x00\x1b\u202e\n"), addresses), read, num_inputs)
