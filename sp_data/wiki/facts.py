"""What a wiki said, as far as rows of the catalogue depend on it: the one thing that a scrape brings up to date.

    Facts(files={'Ada Birch.png': WikiFile(...)}, aliases={'Old name.png': 'Ada Birch.png'},
          file_pages={'Ada Birch.png': FilePage(...)}, articles={'Ada Birch': Page(...)},
          rendered={'Portal:Characters': Rendered(...)}, usage={'Unsaid.png': ('Ada Birch',)})

Rows are a pure function of facts (rows.py). A first scrape gathers all of them (gather.py), a later one asks again
about what changed (update.py); equal facts, however they came about, make equal rows.
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
    """A page as its readers see it, with what that depends on. `files` are names, red links too; `includes` titles."""

    page: Page
    files: tuple[str, ...]
    includes: tuple[str, ...]


@dataclass(slots=True)
class Facts:
    """See the module. Whoever changes them works on a copy."""

    files: dict[str, WikiFile] = field(default_factory=dict)
    """The selected ones, by name."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other name -> name of a selected file."""
    file_pages: dict[str, FilePage] = field(default_factory=dict)
    articles: dict[str, Page] = field(default_factory=dict)
    """By title, from their wikitext."""
    rendered: dict[str, Rendered] = field(default_factory=dict)
    """By the title that was asked for, which may be a redirect: portals, and pages whose wikitext does not tell."""
    usage: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Files that no article's wikitext shows -> articles that show them all the same, sorted."""

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
        """Names of the files on the source's pages, as the wiki calls them where it is known."""
        shown = (name for title in source.portals for name in self._files_of(title))
        return {self.aliases.get(name, name) for name in shown}

    def _files_of(self, title: str) -> tuple[str, ...]:
        return self.rendered[title].files if title in self.rendered else ()

    def prune(self, source: Source, categories: frozenset[str]) -> None:
        """Leave out what the source does not select. `categories`: names of those it does."""
        match source.select:
            case "pages":
                chosen = self.portal_files(source)
                self.files = {name: file for name, file in self.files.items() if name in chosen}
            case "categories":
                self.files = {name: file for name, file in self.files.items() if categories & set(file.categories)}
            case "all":
                pass
        self.aliases = {
            alias: name for alias, name in self.aliases.items() if name in self.files and alias not in self.files
        }
        self.file_pages = {name: page for name, page in self.file_pages.items() if name in self.files}

    def untold(self, mime_types: Iterable[str]) -> set[str]:
        """Names of wanted files that no article's wikitext shows."""
        told = set(self.told())
        wanted = set(mime_types)
        return {name for name, file in self.files.items() if file.mime in wanted and name not in told}

    def told(self) -> Iterator[str]:
        """Names of the files that articles show by their wikitext; one may come often."""
        for page in self.articles.values():
            yield from (self.aliases.get(name, name) for name in page.shown)
