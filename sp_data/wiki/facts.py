"""What a wiki said, as far as the catalogue's rows depend on it; a scrape brings these facts up to date.

    Facts(files={'Ada Birch.png': WikiFile(...)}, aliases={'Old name.png': 'Ada Birch.png'},
          file_pages={'Ada Birch.png': FilePage(...)}, articles={'Ada Birch': Page(...)},
          rendered={'Portal:Characters': Rendered(...)}, usage={'Unsaid.png': ('Ada Birch',)})

Rows are a pure function of facts (rows.py). A first scrape gathers all facts (gather.py), a later one requests what
changed (update.py); equal facts make equal rows, whichever way they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sp_data.recipe import Source
from sp_data.wiki.parse.file_page import FilePage
from sp_data.wiki.parse.page import Page
from sp_data.wiki.parse.titles import file_title


@dataclass(frozen=True, slots=True)
class WikiFile:
    """A file as the wiki lists it. `sha1` and `url` are empty where the wiki hides its content."""

    name: str
    page_id: int | None
    url: str
    sha1: str
    bytes: int
    mime: str
    width: int
    height: int
    uploaded_at: str
    uploader: str | None
    categories: tuple[str, ...]

    @property
    def title(self) -> str:
        return file_title(self.name)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page as its HTML shows it, with what that depends on.

    `files`: names of the files it shows, red links included. `includes`: titles of the pages it includes.
    """

    page: Page
    files: tuple[str, ...]
    includes: tuple[str, ...]


@dataclass(slots=True)
class Facts:
    """See the module's docstring. Change a `copy()`, not the facts of an earlier run."""

    files: dict[str, WikiFile] = field(default_factory=dict)
    """Selected files by name."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other name -> name of a selected file."""
    file_pages: dict[str, FilePage] = field(default_factory=dict)
    articles: dict[str, Page] = field(default_factory=dict)
    """Articles by title, read from their wikitext."""
    rendered: dict[str, Rendered] = field(default_factory=dict)
    """Pages read as HTML, by the title that was requested, which may be a redirect: the source's pages, and pages that
    show files without naming them in their wikitext."""
    usage: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """File that no article's wikitext shows -> articles that show it nevertheless, sorted."""

    def copy(self) -> Facts:
        return Facts(
            dict(self.files),
            dict(self.aliases),
            dict(self.file_pages),
            dict(self.articles),
            dict(self.rendered),
            dict(self.usage),
        )

    def portal_files(self, source: Source) -> set[str]:
        """Names of the files on the source's pages; known aliases are replaced by the files' names."""
        shown = (name for title in source.portals for name in self._files_of(title))
        return {self.aliases.get(name, name) for name in shown}

    def _files_of(self, title: str) -> tuple[str, ...]:
        return self.rendered[title].files if title in self.rendered else ()

    def prune(self, source: Source, categories: frozenset[str]) -> None:
        """Drop what the source does not select. `categories`: names of the selected categories."""
        match source.select:
            case "pages":
                selected = self.portal_files(source)
                self.files = {name: file for name, file in self.files.items() if name in selected}
            case "categories":
                self.files = {name: file for name, file in self.files.items() if categories & set(file.categories)}
            case "all":
                pass
        self.aliases = {
            alias: name for alias, name in self.aliases.items() if name in self.files and alias not in self.files
        }
        self.file_pages = {name: page for name, page in self.file_pages.items() if name in self.files}

    def files_not_in_wikitext(self, mime_types: Iterable[str]) -> set[str]:
        """Names of wanted files that no article's wikitext shows."""
        in_wikitext = set(self.files_in_wikitext())
        wanted = set(mime_types)
        return {name for name, file in self.files.items() if file.mime in wanted and name not in in_wikitext}

    def files_in_wikitext(self) -> Iterator[str]:
        """Names of the files that articles show by their wikitext; a name may come more than once."""
        for page in self.articles.values():
            yield from (self.aliases.get(name, name) for name in page.shown)
