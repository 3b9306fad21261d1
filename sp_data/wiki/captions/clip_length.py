"""Captions cut to what CLIP reads: 77 tokens, of which two mark start and end.

The tokenizer of the `clip` package counts the tokens. Its module is loaded alone: importing the package would import
torch, which a scrape does not need.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

TOKENS = 77 - 2
LONGEST_READ = 10_000
"""In characters: more than TOKENS can ever stand for. Counting the tokens of a megabyte takes minutes."""


def shortened(text: str) -> str:
    """The text, cut to TOKENS if it is longer: after the last whole sentence if that keeps more than half of what fits,
    else after the last whole word."""
    # A token stands for at least one byte of the text, so most captions need no counting.
    if len(text.encode("utf-8", "replace")) <= TOKENS or (len(text) <= LONGEST_READ and num_tokens(text) <= TOKENS):
        return text
    words = text[:LONGEST_READ].split()
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if num_tokens(" ".join(words[:middle])) <= TOKENS:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        return _cut_word(words[0])
    prefix = " ".join(words[:low])
    sentence = re.match(r".*[.!?](?=\s|$)", prefix, re.DOTALL)
    if sentence and len(sentence[0]) * 2 > len(prefix):
        return sentence[0]
    return prefix.rstrip(",;:- ")


def num_tokens(text: str) -> int:
    """Number of CLIP's tokens of a text, without start and end."""
    return len(_encoder()(text))


def _cut_word(word: str) -> str:
    """The longest prefix of one very long word that fits."""
    low, high = 1, len(word)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if num_tokens(word[:middle]) <= TOKENS else (low, middle - 1)
    return word[:low]


@functools.cache
def _encoder() -> Callable[[str], list[int]]:
    package = importlib.util.find_spec("clip")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the package clip-anytorch is missing; run `make install`")
    path = Path(package.submodule_search_locations[0]) / "simple_tokenizer.py"
    spec = importlib.util.spec_from_file_location("sp_data_clip_tokenizer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encode: Callable[[str], list[int]] = module.SimpleTokenizer().encode
    return encode
