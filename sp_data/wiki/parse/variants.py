"""Wikis in a language of several scripts write words for each: Chinese, Serbian, Kazakh, ...

'-{zh-hans:红外套;zh-hant:紅外套}-'  ->  '红外套'        '-{Ada}-'  ->  'Ada'        '-{T|a title}-'  ->  ''
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARKUP = re.compile(r"-\{([^{}]*)\}-")
_SILENT = frozenset({"T", "H", "-"})
"""Flags of rules that show nothing: a title, a hidden rule, a removed one."""


def resolve(text: str, language: str, variants: Sequence[str]) -> str:
    """The text in one variant: the wiki's own `language` if the rule names it, else the first that it names."""
    if not variants or "-{" not in text:
        return text
    codes = "|".join(re.escape(code) for code in sorted(variants, key=len, reverse=True))
    rule = re.compile(rf"(?:^|;)(?:[^;:]*=>)?\s*({codes})\s*:([^;]*)", re.IGNORECASE)

    def chosen(match: re.Match[str]) -> str:
        flags, bar, rest = match[1].partition("|")
        content = rest if bar else match[1]
        if bar and {flag.strip().upper() for flag in flags.split(";")} & _SILENT:
            return ""
        texts: dict[str, str] = {code.lower(): words.strip() for code, words in reversed(rule.findall(content))}
        if not texts:
            return content
        return texts.get(language.lower()) or list(texts.values())[-1]

    return _MARKUP.sub(chosen, text)
