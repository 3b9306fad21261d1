"""Where the pictures come from: a wiki, a list of addresses, or an import."""

from __future__ import annotations

import codecs
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sp_data.errors import RecipeError
from sp_data.recipe.part import EXECUTION_ONLY, RecipePart
from sp_data.web_address import NotAWebAddress, read_web_address


def is_text_encoding(name: str) -> bool:
    """Whether Python has an encoding of whole files of text of this name; 'base64' and 'rot13' are none."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        return False
    # These are for parts of programs, of host names and of mails.
    special = codec.name in ("idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7")
    return bool(getattr(codec, "_is_text_encoding", True)) and not special


class DemoWiki(RecipePart):
    """The made-up wiki of paper-cutout kids, served by the run itself."""

    num_kids: int = Field(1600, ge=24, le=5000)
    seed: int = 0
    weeks: int = Field(
        0,
        ge=0,
        le=52,
        description="Age of the wiki; each week some pictures are added, changed, deleted and renamed",
        json_schema_extra=EXECUTION_ONLY,
    )


class Imported(RecipePart):
    """Shards made elsewhere; `sp-data import` writes this part, not a person."""

    shards: str = Field(description="Where they were", json_schema_extra=EXECUTION_ONLY)
    embeddings: str = Field(description="Where their embeddings were", json_schema_extra=EXECUTION_ONLY)
    digest: str = Field("", description="sha256 over the shards")


class Source(RecipePart):
    """Which wiki, and which of its pictures."""

    wiki: str = Field("", description="Address of the wiki, e.g. https://southpark.fandom.com")
    addresses: str = Field(
        "",
        description="Instead of a wiki: a list of pictures' addresses, as .txt (one per line), .csv, .tsv or .parquet "
        "(column `url`, and optionally `caption` and `licence`, or their usual synonyms)",
    )
    encoding: str = Field(
        "",
        description="Encoding of the list if it is not Unicode, e.g. cp1252 for a CSV that Excel wrote on Windows; "
        "empty: UTF-8, or what the file's mark says",
    )
    demo: DemoWiki | None = Field(None, description="Serve the made-up wiki and scrape it")
    imported: Imported | None = Field(None, description="Instead of a wiki: what `sp-data import` imported")
    select: Literal["pages", "categories", "all"] = Field(
        "pages", description="Files shown on `pages`, files in `categories`, or every file of the wiki"
    )
    pages: tuple[str, ...] = ("Portal:Characters",)
    categories: tuple[str, ...] = ()
    article_namespaces: tuple[int, ...] = Field(
        (0,), description="Namespaces whose pages are read for captions and infoboxes"
    )
    mime_types: tuple[str, ...] = ("image/png", "image/jpeg", "image/gif", "image/webp")
    caption_templates: tuple[str, ...] = Field(
        (),
        description="Captions made of infobox fields and of the wiki's captions by their kind, such as "
        "'{subject}[ in a {coat} coat][, {lead}]': a part in brackets is left out if a field is missing. The first "
        "template that can be filled is used; if there is none, the best caption of the wiki",
    )
    caption_variants: int = Field(
        0, ge=0, le=16, description="More captions of each picture, for training: parts in brackets left out at random"
    )
    caption_dropout: float = Field(0.3, ge=0, lt=1, description="How often a part in brackets is left out of a variant")
    caption_seed: int = Field(0, ge=0, description="Seed of the variants")
    max_html_pages: int = Field(
        100,
        ge=0,
        description="How many pages may be read as HTML, because their wikitext does not name the pictures they show; "
        "one request each",
    )
    reconcile_every: int = Field(
        13,
        ge=1,
        description="Incremental runs between two runs that list the whole wiki; a month after the last listing it is "
        "listed in any case. A listing finds changes that the wiki does not log, such as imports with old dates",
        json_schema_extra=EXECUTION_ONLY,
    )
    contact: str = Field(
        "", description="Who runs this: a mail address or a page, for the User-Agent", json_schema_extra=EXECUTION_ONLY
    )
    acknowledge_terms: bool = Field(
        False,
        description="You have read the wiki's terms of use, and they allow you this",
        json_schema_extra=EXECUTION_ONLY,
    )
    requests_per_second: float = Field(
        1.0,
        ge=0,
        le=50,
        description="0 = as fast as the wiki answers; only for a wiki on this machine",
        json_schema_extra=EXECUTION_ONLY,
    )
    timeout_s: float = Field(30.0, gt=0, json_schema_extra=EXECUTION_ONLY)
    allow_private_addresses: bool = Field(
        False,
        description="Pictures may lie on this machine and in private networks. A wiki that is itself there by its name "
        "(localhost, 10.0.0.7, wiki.internal) needs no leave; a list of such addresses, and a wiki whose name only "
        "leads there, do",
        json_schema_extra=EXECUTION_ONLY,
    )
    max_file_bytes: int = Field(100_000_000, gt=0, description="A larger picture is refused")

    @field_validator("wiki")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not value:
            return value
        try:
            read_web_address(value)
        except NotAWebAddress as error:
            if "login" in str(error):
                raise ValueError(
                    "expected an address without a login, which would be written into every manifest; "
                    "sp-data reads public wikis only"
                ) from error
            raise ValueError(f"expected an address such as https://southpark.fandom.com; {error}") from error
        return _without_page(value).rstrip("/")

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str) -> str:
        if value and not is_text_encoding(value):
            raise ValueError("expected the name of an encoding, such as utf-8, utf-16-le, cp1252, latin-1 or shift_jis")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if sum(map(bool, (self.wiki, self.addresses, self.imported))) != 1:
            raise ValueError("expected `wiki`, or `addresses` instead of one")
        if self.select == "pages" and not self.pages:
            raise ValueError("select is 'pages', so `pages` must name at least one")
        if self.select == "categories" and not self.categories:
            raise ValueError("select is 'categories', so `categories` must name at least one")
        if self.requests_per_second == 0 and not self.is_loopback:
            raise ValueError("`requests_per_second` may be 0 only for a wiki on this machine")
        return self

    def check_politeness(self) -> None:
        """Check that a wiki on another machine is scraped only with a contact, and after its terms were read.

        Raises RecipeError.
        """
        if self.is_loopback:
            return
        if not self.contact.strip():
            raise RecipeError(
                "source.contact is empty: say who runs this (a mail address or a page; it goes into the User-Agent), "
                "e.g. --set source.contact=me@example.org"
            )
        if not self.acknowledge_terms:
            raise RecipeError(
                f"first read the terms of use and the licence of {self.place} (Fandom's terms are stricter than its "
                "robots.txt; text is CC-BY-SA, most pictures are fair use); if they allow you this, "
                "set it: --set source.acknowledge_terms=true"
            )

    def identity_fields(self) -> dict[str, Any]:
        """As of every part; without `encoding` where it is not set, so that older datasets keep their identities."""
        fields = super().identity_fields()
        return fields if self.encoding else {name: value for name, value in fields.items() if name != "encoding"}

    @property
    def place(self) -> str:
        """Where the pictures come from, for messages."""
        if self.imported:
            return f"the shards in {self.imported.shards}"
        return self.wiki or f"the addresses in {self.addresses}"

    @property
    def portals(self) -> tuple[str, ...]:
        """The pages that select files; they are read as rendered HTML."""
        return self.pages if self.select == "pages" else ()

    @property
    def is_loopback(self) -> bool:
        """Whether the wiki runs on this machine (names below .localhost always do: RFC 6761)."""
        if not self.wiki:
            return False
        address = read_web_address(self.wiki)
        if address.host == "localhost" or address.host.endswith(".localhost"):
            return True
        return address.ip is not None and address.ip.is_loopback

    @property
    def wiki_host(self) -> str:
        """The wiki's host, '' if there is no wiki."""
        return read_web_address(self.wiki).host if self.wiki else ""


def _without_page(wiki: str) -> str:
    """A wiki's address without what belongs to one of its pages or to its API: '…/index.php?title=Ada', '…/api.php'."""
    wiki = wiki.strip().partition("#")[0].partition("?")[0]
    parts = urlsplit(wiki)
    head, script, _ = parts.path.partition("/index.php")
    path = head if script else parts.path.removesuffix("/").removesuffix("/api.php")
    return f"{parts.scheme}://{parts.netloc}{path}"
