"""The tree of errors. Each message is one sentence: what is wrong, where, and what to do.

SpDataError
├── UsageError              the command or the recipe is wrong: exit 2
│   ├── RecipeError         a field of the recipe is unknown, missing or out of range
│   └── LayoutError         a key layout that cannot be read, or does not fit the keys
├── WikiError               the wiki cannot be scraped as asked
│   ├── WikiUnreachable     no connection, time-out, or only 5xx answers
│   ├── WikiBlocked         a challenge (403), HTML instead of JSON, or a host that asks to be left alone
│   │   └── RobotsForbid    robots.txt forbids this address; others of the host may be allowed
│   └── WikiApiError        the API answered with an `error`
├── LakeError               the lake cannot be read or written
│   ├── LakeBusy            another process writes this dataset
│   └── LakeFull            no space left
├── StageError              a stage cannot run, or its library failed
│   ├── StageNotDone        an earlier stage is missing or stale
│   ├── NothingCame         a scrape has no picture at all
│   └── ListShrank          a list or a wiki suddenly has few of its pictures left
└── DataError               data that contradicts itself
    ├── DuplicateKey        one key fills a row twice
    ├── KeyOutsideShard     a key lies beyond its shard, or in a shard that was not planned
    ├── MadeByNewer         a newer sp-data made it, and this one would not understand or would replace it
    ├── CorruptFile         a file that is truncated, unreadable, or not of the expected shape
    └── VerifyFailed        parts of the dataset disagree; carries every problem
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from sp_data.foreign_text import one_line


class SpDataError(Exception):
    """Ends a command with one sentence and exit code 1.

    Sentences name files, titles and answers of others: whatever these hold, the sentence is one line of plain text.
    """

    exit_code = 1
    items: tuple[str, ...] = ()
    """What the sentence announces, each for a line of its own below it."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(part) if isinstance(part, str) else part for part in args))


class UsageError(SpDataError):
    exit_code = 2


class RecipeError(UsageError):
    pass


class LayoutError(UsageError):
    pass


class WikiError(SpDataError):
    pass


class WikiUnreachable(WikiError):
    pass


class WikiBlocked(WikiError):
    pass


class RobotsForbid(WikiBlocked):
    pass


class WikiApiError(WikiError):
    """The API answered with an `error`; `code` is MediaWiki's, e.g. 'toomanyvalues'."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class LakeError(SpDataError):
    pass


class LakeBusy(LakeError):
    pass


class LakeFull(LakeError):
    pass


class StageError(SpDataError):
    pass


class StageNotDone(StageError):
    pass


class NothingCame(StageError):
    pass


class ListShrank(StageError):
    pass


class DataError(SpDataError):
    pass


class DuplicateKey(DataError):
    pass


class KeyOutsideShard(DataError):
    pass


class MadeByNewer(DataError):
    pass


class CorruptFile(DataError):
    pass


def reason_of(error: BaseException, length: int = 200) -> str:
    """What a library's exception says, on one line, without control characters; its name if it says nothing."""
    words = " ".join(str(error).split())
    return "".join(char if char.isprintable() else "?" for char in words)[:length] or type(error).__name__


def system_sentence(error: OSError) -> str:
    """What the operating system refused, in our words: a full disk, a file that may not be used."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left{where}; free some, then run the same command again"
    return f"{error.strerror}{where}; see that it is there and may be used, then run the same command again"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; `file` and `key` are empty if it concerns none."""

    check: str
    file: str
    key: str
    message: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.file, f"key {self.key}" if self.key else "") if part)
        return f"verify: {self.check}: {where}: {self.message}" if where else f"verify: {self.check}: {self.message}"


class VerifyFailed(DataError):
    """`problems` holds all of them; the message names the first. `num_checked` samples were checked."""

    def __init__(self, problems: list[Problem], num_checked: int) -> None:
        first, others = problems[0], len(problems) - 1
        more = f" (and {others:,} more: --json lists them)" if others else ""
        super().__init__(f"{first}{more}")
        self.problems = problems
        self.num_checked = num_checked
