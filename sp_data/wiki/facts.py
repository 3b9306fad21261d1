"""What a wiki said, as far as the catalogue's rows depend on it; a scrape brings these facts up to date.

    Facts(files={'Ada Birch.png': WikiFile(...)}, aliases={'Old name.png': 'Ada Birch.png'},
          file_pages={'Ada Birch.png': FilePage(...)}, articles={'Ada Birch': Page(...)},
          rendered={'Portal:Characters': Rendered(...)}, usage={'Unsaid.png': ('Ada Birch',)})

Rows are a pure function of facts (rows.py). A first scrape gathers all facts (gather.py), a later one requests what
changed (update.py); equal facts make equal rows, whichever way they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sp_data.recipe import Source
from sp_data.wiki.parse.file_page import FilePage
from sp_data.wiki.parse.page import Page
from sp_data.wiki.parse.titles import file_title, name_of


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

    `files`: names of the files it shows, red links included. `includes`: titles of the pages it includes. `unread`: why
    its HTML could not be read; `page` is then what an earlier run read, or empty.
    """

    page: Page
    files: tuple[str, ...]
    includes: tuple[str, ...]
    unread: str = ""


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
    unread: dict[str, str] = field(default_factory=dict)
    """Article or file page (by title, 'File:...') whose wikitext could not be read -> why. What an earlier run read of
    it is kept."""

    def copy(self) -> Facts:
        return Facts(
            dict(self.files),
            dict(self.aliases),
            dict(self.file_pages),
            dict(self.articles),
            dict(self.rendered),
            dict(self.usage),
            dict(self.unread),
        )

    @property
    def num_unread(self) -> int:
        """Number of pages whose wikitext or HTML could not be read."""
        return len(self.unread) + sum(bool(page.unread) for page in self.rendered.values())

    def keep_known(self, before: Facts) -> None:
        """Take from an earlier run's facts what it read of the pages that could not be read now."""
        for title in self.unread:
            if title in before.articles:
                self.articles.setdefault(title, before.articles[title])
            name = name_of(title)
            if name in self.files and file_title(name) == title and name in before.file_pages:
                self.file_pages.setdefault(name, before.file_pages[name])
        for title, page in self.rendered.items():
            if page.unread and title in before.rendered:
                self.rendered[title] = replace(page, page=before.rendered[title].page)

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
        gone = {title for title in self.unread if title.startswith(file_title("")) and name_of(title) not in self.files}
        self.unread = {title: reason for title, reason in self.unread.items() if title not in gone}

    def files_not_in_wikitext(self, mime_types: Iterable[str]) -> set[str]:
        """Names of wanted files that no article's wikitext shows."""
        in_wikitext = set(self.files_in_wikitext())
        wanted = set(mime_types)
        return {name for name, file in self.files.items() if file.mime in wanted and name not in in_wikitext}

    def files_in_wikitext(self) -> Iterator[str]:
        """Names of the files that articles show by their wikitext; a name may come more than once."""
        for page in self.articles.values():
            yield from (self.aliases.get(name, name) for name in page.shown)
