"""The caption that a picture gets, and variants of it for training.

    templates = ['{subject}[ in a {coat} coat][, {lead}]']
    chosen(words, templates)                                     'Ada in a red coat, Ada is a kid.'
    variants(words, templates, 2, dropout=0.3, seed='0 Ada.png')   ('Ada, Ada is a kid.', 'Ada in a red coat')

A name does not say what a picture shows: a caption that is only a name is chosen if there is no other. No caption is
longer than the 77 tokens that CLIP reads.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sp_data.wiki.captions.candidates import TELLING, CaptionCandidate, Owner
from sp_data.wiki.captions.clip_length import shortened
from sp_data.wiki.captions.templates import drop_parts, fill
from sp_data.wiki.parse.page import field_name
from sp_data.wiki.parse.titles import cleaned_name, owner_key

DRAWS_A_VARIANT = 8


@dataclass(frozen=True)
class Words:
    """All that the wiki says about one picture. `candidates` are best first and never empty."""

    name: str
    candidates: Sequence[CaptionCandidate]
    owner: Owner | None

    @cached_property
    def subject(self) -> str:
        """Name of whom or what it shows: the infobox's `name`, else the owning page's title, else the file's name."""
        if self.owner is None:
            return cleaned_name(self.name)
        return self.owner.fields.get("name") or self.owner.page.title

    @property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        """What the owner's infobox says of the subject, except its name."""
        return self.owner.attributes if self.owner else ()

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """The fields that templates may use: the infobox's fields, `subject`, and the best caption of each kind."""
        by_kind: dict[str, str] = {}
        for candidate in self.candidates:
            by_kind.setdefault(field_name(candidate.source), candidate.text)
        return {**by_kind, "subject": self.subject, **(self.owner.fields if self.owner else {})}

    def is_only_a_name(self, text: str) -> bool:
        names = (self.subject, cleaned_name(self.name), self.owner.page.title if self.owner else "")
        return owner_key(text) in {owner_key(name) for name in names}


def chosen(words: Words, templates: Iterable[str]) -> str:
    """The first template that can be filled; else the best caption that says more than a name; else the best."""
    for template in templates:
        if (caption := fill(template, words.fields)) is not None:
            return shortened(caption)
    return shortened(_best(words).text)


def variants(words: Words, templates: Sequence[str], number: int, *, dropout: float, seed: str) -> tuple[str, ...]:
    """Up to `number` other captions, without duplicates; equal seeds give equal variants.

    If no template can be filled, they are the other candidates of the TELLING kinds.
    """
    captions = dict.fromkeys([chosen(words, templates)])
    usable = [template for template in templates if fill(template, words.fields) is not None]
    if usable:
        rng = random.Random(seed)
        for _ in range(number * DRAWS_A_VARIANT):
            if len(captions) > number:
                break
            template = rng.choice(usable)
            reduced = drop_parts(template, dropout, rng)
            if text := fill(reduced, words.fields, may_be_bare=True):
                captions.setdefault(shortened(text))
    else:
        for candidate in words.candidates:
            if candidate.source in TELLING and len(captions) <= number:
                captions.setdefault(shortened(candidate.text))
    return tuple(captions)[1:]


def _best(words: Words) -> CaptionCandidate:
    for candidate in words.candidates:
        if candidate.source in TELLING and not words.is_only_a_name(candidate.text):
            return candidate
    return words.candidates[0]
