"""Prompts: a line each of a file, checked, and told where they are longer than CLIP reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_data.errors import UsageError
from sp_data.generation.prompts import check_prompt, lost_words, lost_words_sentence, read_prompts
from sp_data.wiki.captions.clip_length import TOKENS, num_tokens

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def prompts_txt(tmp_path: Path) -> Path:
    return tmp_path / "prompts.txt"


def test_a_file_has_a_prompt_a_line_without_comments_and_empty_lines(prompts_txt: Path) -> None:
    prompts_txt.write_bytes(
        BOM
        + b"a kid in a red coat\r\n\n  # not this one\n\ta kid in a blue coat \na kid #2\n"
        + "ein Füchslein".encode()
    )
    assert read_prompts(prompts_txt) == ["a kid in a red coat", "a kid in a blue coat", "a kid #2", "ein Füchslein"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "has no prompt: expected one a line"),
        (BOM + b"# a comment\n \n", "has no prompt: expected one a line"),
        (b"a kid\nwith a hat\nin a k\xfcche\n", "line 3, is not UTF-8; save the file as UTF-8"),
        (BOM + b"a kid\n\xff", "line 2, is not UTF-8"),
        ("a kid".encode("utf-16"), "line 1, is not UTF-8"),
        (b"a kid\n" * 2_000_000, "has more than 10 MB: expected a prompt a line"),
    ],
    ids=["empty", "comments", "Latin-1", "Latin-1 after a BOM", "UTF-16", "long"],
)
def test_a_file_that_holds_no_prompts_is_refused_in_a_sentence(prompts_txt: Path, data: bytes, sentence: str) -> None:
    prompts_txt.write_bytes(data)
    with pytest.raises(UsageError, match=sentence) as caught:
        read_prompts(prompts_txt)
    assert str(prompts_txt) in str(caught.value)


def test_a_file_that_is_not_there_or_has_no_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*none\.txt"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="/dev/zero has more than 10 MB"):
        read_prompts(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "an empty prompt: say what to draw"),
        (" \t\n", "an empty prompt"),
        ("a kid " * 2_000, "a prompt of 12,000 characters: CLIP reads some 300 of them"),
        ("kid \udcff", "is not UTF-8; check the terminal's encoding"),
    ],
)
def test_a_prompt_that_nothing_can_be_drawn_from_is_refused(prompt: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_prompt(prompt)


NUMBERS = "one two three four five six seven eight nine ten"


def test_what_clip_does_not_read_is_told_word_by_word() -> None:
    assert lost_words_sentence(f"{NUMBERS} " * 7 + "one two three four five") == ""
    long = f"{NUMBERS} " * 8
    assert lost_words(long) == "six seven eight nine ten"
    assert lost_words_sentence(long) == (
        "CLIP reads 75 tokens; the last 5 words of the prompt are lost: “six seven eight nine ten”"
    )
    one_more = f"{NUMBERS} " * 7 + "one two three four five six"
    assert lost_words_sentence(one_more) == "CLIP reads 75 tokens; the last word of the prompt is lost: “six”"
    very_long = lost_words_sentence(long * 3)
    assert "the last 165 words of the prompt are lost: “six seven eight" in very_long
    assert very_long.endswith("…”")
    assert len(very_long) < 200


def test_of_a_text_without_spaces_the_letters_are_told() -> None:
    """80 Chinese letters are 160 tokens."""
    prompt = "孩" * 80
    assert lost_words(prompt) == "孩" * 43
    assert lost_words_sentence(prompt).startswith(
        "CLIP reads 75 tokens; the last 43 letters of the prompt are lost: “孩"
    )
    assert lost_words(f"a kid {prompt}") == "孩" * 44
    assert lost_words("孩" * 30) == ""


@given(st.text(st.sampled_from("ab, 孩.-"), max_size=200))
def test_what_is_not_lost_fits_and_nothing_is_said_twice(prompt: str) -> None:
    lost = lost_words(prompt)
    whole = " ".join(prompt.split())
    assert whole.endswith(lost)
    assert num_tokens(whole.removesuffix(lost)) <= TOKENS
    assert bool(lost) == (num_tokens(whole) > TOKENS)
