"""The caption that a picture gets, and variants of it for training.

    templates = ['{subject}[ in a {coat} coat][, {lead}]']
    chosen(words, templates)                                     'Ada in a red coat, Ada is a kid.'
    variants(words, templates, 2, dropout=0.3, seed='0 Ada.png')   ('Ada, Ada is a kid.', 'Ada in a red coat')

Names alone teach no looks: a caption that is only the name is taken where nothing else is said. No caption is longer
than the 77 tokens that a CLIP reads.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sp_data.wiki.captions.candidates import TELLING, CaptionCandidate, Owner
from sp_data.wiki.captions.clip_length import shortened
from sp_data.wiki.parse.page import field_name
from sp_data.wiki.parse.titles import cleaned_name, owner_key

_PART = re.compile(r"\[([^\[\]]*)\]")
_FIELD = re.compile(r"\{([^{}]+)\}")
DRAWS_A_VARIANT = 8


@dataclass(frozen=True)
class Words:
    """All that is said of one picture. `candidates` are best first and never empty."""

    name: str
    candidates: Sequence[CaptionCandidate]
    owner: Owner | None

    @cached_property
    def subject(self) -> str:
        """Who or what it shows, by name: as the infobox has it, else the owning page's title, else the file's name."""
        if self.owner is None:
            return cleaned_name(self.name)
        return self.owner.fields.get("name") or self.owner.page.title

    @property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        """What the owner's infobox says of the subject, its name apart."""
        return self.owner.attributes if self.owner else ()

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """What templates may name: the infobox's fields, `subject`, and the best caption of each kind."""
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
    """Up to `number` other captions, none twice; equal seeds give equal ones. Without a template that can be filled
    they are the other captions that say something."""
    made = dict.fromkeys([chosen(words, templates)])
    fit = [template for template in templates if fill(template, words.fields) is not None]
    if fit:
        dice = random.Random(seed)
        for _ in range(number * DRAWS_A_VARIANT):
            if len(made) > number:
                break
            template = dice.choice(fit)
            left = _PART.sub(lambda part: "" if dice.random() < dropout else part[0], template)
            if text := fill(left, words.fields, may_be_bare=True):
                made.setdefault(shortened(text))
    else:
        for candidate in words.candidates:
            if candidate.source in TELLING and len(made) <= number:
                made.setdefault(shortened(candidate.text))
    return tuple(made)[1:]


def _best(words: Words) -> CaptionCandidate:
    for candidate in words.candidates:
        if candidate.source in TELLING and not words.is_only_a_name(candidate.text):
            return candidate
    return words.candidates[0]


def fill(template: str, fields: Mapping[str, str], *, may_be_bare: bool = False) -> str | None:
    """'a {hat kind}[ in {colour}]' with {'hat kind': 'cap'} -> 'a cap'; None if a field outside brackets is missing, or
    if there are brackets and not one can be filled (unless it `may_be_bare`)."""

    def value(match: re.Match[str]) -> str:
        return fields[field_name(match[1])]

    def is_known(text: str) -> bool:
        return all(fields.get(field_name(name)) for name in _FIELD.findall(text))

    parts = _PART.findall(template)
    if parts and not may_be_bare and not any(is_known(part) for part in parts):
        return None
    bare = _PART.sub(lambda part: part[1] if is_known(part[1]) else "", template)
    if not is_known(bare):
        return None
    return _FIELD.sub(value, bare).strip()
