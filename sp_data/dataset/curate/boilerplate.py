"""Captions that say nothing about their picture: 'IMG 1234', 'Screenshot 2021-03-04', 'Click to enlarge', a hash.

    words     a caption of only these words, numbers and signs says nothing
    captions  nor does a caption that is one of these, apart from signs and case

A file's cleaned name is a caption like any other: 'Ada Birch' says something, 'image 12' does not. Captions too long
for a CLIP never get here: the scraper shortens them (sp_data/wiki/captions/clip_length.py), also those of a list of
addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LETTERS = re.compile(r"[^\W\d_]+")
_HASH = re.compile(r"(?=.*\d)[0-9a-f]{16,}")
"""File names that a program made up: sha1, md5, a UUID."""
_SIGNS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Boilerplate:
    words: frozenset[str]
    captions: frozenset[str]

    @classmethod
    def of(cls, words: Iterable[str], captions: Iterable[str]) -> Boilerplate:
        return cls(frozenset(word.casefold() for word in words), frozenset(_plain(caption) for caption in captions))

    def covers(self, caption: str) -> bool:
        """Whether a caption says nothing. Signs alone count as nothing, unless some are beyond ASCII, such as emoji."""
        plain = _plain(caption)
        if not plain:
            return not any(ord(character) > 0x7F for character in caption)
        words = plain.split()
        return set(words) <= self.words or plain in self.captions or _is_hash(caption)


def _plain(caption: str) -> str:
    """'Click to enlarge!' -> 'click to enlarge'; numbers and signs are left out."""
    return " ".join(_LETTERS.findall(caption)).casefold()


def _is_hash(caption: str) -> bool:
    return _HASH.fullmatch(_SIGNS.sub("", caption).casefold()) is not None
