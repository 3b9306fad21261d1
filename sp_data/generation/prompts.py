"""Prompts: read from a file, checked, and measured against what CLIP reads."""

from __future__ import annotations

from pathlib import Path

from sp_data.errors import UsageError
from sp_data.wiki.captions.clip_length import TOKENS, num_tokens

MAX_FILE_BYTES = 10_000_000
MAX_CHARACTERS = 10_000


def read_prompts(path: Path) -> list[str]:
    """A prompt a line; empty lines and those that begin with # are left out.

    Raises UsageError if the file is not there, not UTF-8, too large or without a prompt.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path} has more than {MAX_FILE_BYTES / 1e6:.0f} MB: expected a prompt a line")
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}, is not UTF-8; save the file as UTF-8") from error
    prompts = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise UsageError(f"{path} has no prompt: expected one a line")
    return prompts


def check_prompt(prompt: str) -> None:
    """Raises UsageError for a prompt that nothing can be drawn from."""
    if not prompt.strip():
        raise UsageError('an empty prompt: say what to draw, such as "a kid in a red coat"')
    if len(prompt) > MAX_CHARACTERS:
        raise UsageError(f"a prompt of {len(prompt):,} characters: CLIP reads some 300 of them; shorten it")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the prompt {prompt!r} is not UTF-8; check the terminal's encoding") from error


def lost_words(prompt: str) -> str:
    """The end of a prompt that lies beyond what CLIP reads; empty if it reads all."""
    # A token stands for at least one byte.
    if len(prompt.encode()) <= TOKENS or num_tokens(prompt) <= TOKENS:
        return ""
    words = prompt.split()
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if num_tokens(" ".join(words[:middle])) <= TOKENS else (low, middle - 1)
    read, lost = " ".join(words[:low]), " ".join(words[low:])
    if num_tokens(words[low]) <= TOKENS:
        return lost
    # A text without spaces, such as a Chinese one, is read up to a letter.
    low, high = 0, len(words[low])
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if num_tokens(f"{read} {lost[:middle]}") <= TOKENS else (low, middle - 1)
    return lost[low:]


def lost_words_sentence(prompt: str) -> str:
    """A sentence that names the words of a prompt that CLIP does not read; empty if it reads all."""
    lost = lost_words(prompt)
    if not lost:
        return ""
    count, unit = len(lost.split()), "word"
    if prompt.split()[-count:] != lost.split():
        count, unit = len(lost), "letter"
    end = f"the last {unit} of the prompt is" if count == 1 else f"the last {count} {unit}s of the prompt are"
    shown = lost if len(lost) <= 80 else f"{lost[:80]}…"
    return f"CLIP reads {TOKENS} tokens; {end} lost: “{shown}”"
